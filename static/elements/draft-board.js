// The four drafts of a set side by side; one press makes the chosen one in full.

import * as api from "../api.js";
import { complain } from "../deeds.js";
import { $, h, setText } from "../dom.js";
import { finish, sets } from "../drafts.js";
import { showPreview } from "../preview.js";
import { videos } from "../store.js";
import { ago, failure, phase } from "../words.js";

/**
 * @typedef {import("../api.js").Video} Video
 * @typedef {import("../drafts.js").DraftSet} DraftSet
 * @typedef {import("../drafts.js").Draft} Draft
 */

const still = matchMedia("(prefers-reduced-motion: reduce)");

class DraftBoard extends HTMLElement {
  #shown = "";

  connectedCallback() {
    for (const type of ["change", "gone", "preview"]) videos.addEventListener(type, () => this.#refresh());
  }

  /** @param {string} id of the set; "" for the newest */
  show(id) {
    const all = sets();
    const set = all.find((one) => one.id === id) ?? all[0];
    this.#shown = set?.id ?? "";
    this.replaceChildren(h("div", { class: "heading" }, h("h2", {}, "Drafts")));
    if (!set) {
      this.append(
        h(
          "p",
          { class: "lead" },
          "Draft four makes a prompt with four seeds and few steps, side by side. Then one press makes the best one in full.",
        ),
      );
      return;
    }
    const board = h("ul", { class: "board" }, ...set.drafts.map((draft) => this.#cell(set, draft)));
    board.style.setProperty("--ratio", String(Number(set.recipe.width) / Number(set.recipe.height)));
    this.append(
      h("p", { class: "text" }, set.recipe.prompt),
      h("p", { class: "hint" }, described(set)),
      board,
    );
    const others = all.filter((one) => one !== set);
    if (others.length)
      this.append(h("h3", {}, "Earlier"), h("ul", { class: "earlier" }, ...others.map(entry)));
    this.#refresh();
    for (const draft of set.drafts) this.#fetch(draft);
  }

  /** What the page does not know yet: after a reload. @param {Draft} draft */
  async #fetch(draft) {
    for (const id of [draft.draft, draft.full]) {
      if (!id || videos.get(id)) continue;
      try {
        await videos.ask(() => api.video(id));
      } catch {
        this.#refresh();
      }
    }
  }

  /**
   * @param {DraftSet} set
   * @param {Draft} draft
   */
  #cell(set, draft) {
    const state = h("span", { class: "state" });
    const well = h(
      "a",
      { class: "well", href: `#/videos/${draft.draft}` },
      h("span", { class: "unseen" }, `Draft with seed ${draft.seed}`),
      state,
    );
    well.style.aspectRatio = `${set.recipe.width} / ${set.recipe.height}`;
    const pick = async () => {
      button.disabled = true;
      try {
        await finish(set, draft);
        this.#refresh();
      } catch (error) {
        button.disabled = false;
        complain(error);
      }
    };
    const button = h("button", { type: "button", class: "pick", onclick: pick }, "Make in full");
    const full = h("a", { class: "full", hidden: true });
    return h(
      "li",
      { "data-seed": draft.seed },
      well,
      h("p", { class: "hint" }, `Seed ${draft.seed}`),
      h("div", { class: "buttons" }, button, full),
    );
  }

  #refresh() {
    const set = sets().find((one) => one.id === this.#shown);
    if (this.hidden || !set) return;
    for (const draft of set.drafts) {
      const cell = this.querySelector(`[data-seed="${CSS.escape(draft.seed)}"]`);
      if (cell) this.#showCell(cell, draft);
    }
  }

  /**
   * @param {Element} cell
   * @param {Draft} draft
   */
  #showCell(cell, draft) {
    const video = videos.get(draft.draft);
    const well = $(cell, ".well");
    showPreview(well, draft.draft);
    if (video?.status === "completed") {
      if (!well.querySelector("video")) $(well, ".state").replaceChildren(moving(video));
    } else {
      setText($(well, ".state"), video ? stateOf(video) : "No longer there");
    }
    $(cell, ".pick").hidden = draft.full !== "" || video?.status !== "completed";
    const full = $(cell, ".full");
    full.hidden = draft.full === "";
    full.href = `#/videos/${draft.full}`;
    const made = videos.get(draft.full);
    if (made) setText(full, made.status === "completed" ? "Watch it in full" : `In full: ${stateOf(made)}`);
    cell.classList.toggle("chosen", draft.full !== "");
  }
}

/** @param {Video} video */
function stateOf(video) {
  if (video.status === "failed") return failure(video);
  return video.status === "queued" ? phase(video) : `${video.progress} %`;
}

/** @param {Video} video */
function moving(video) {
  const source = api.contentUrl(video.id, "video");
  const clip = h("video", {
    src: source,
    poster: api.contentUrl(video.id, "thumbnail"),
    loop: true,
    playsinline: true,
    "aria-hidden": "true",
    tabindex: "-1",
  });
  clip.muted = true;
  if (!still.matches) clip.play().catch(() => {});
  return clip;
}

/** @param {DraftSet} set */
function described(set) {
  const how = set.fast.quality ? "in draft quality" : `with ${set.fast.num_inference_steps} steps each`;
  return `${set.recipe.model} · ${how} · ${set.recipe.width} × ${set.recipe.height} · ${ago(set.at / 1000)}`;
}

/** @param {DraftSet} set */
const entry = (set) =>
  h(
    "li",
    {},
    h("a", { href: `#/drafts/${set.id}` }, set.recipe.prompt),
    h("span", { class: "hint" }, ago(set.at / 1000)),
  );

customElements.define("draft-board", DraftBoard);
