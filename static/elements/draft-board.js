// The four drafts of a set side by side; one press makes the chosen one in full.

import * as api from "../api.js";
import { letGo, movingClip, still } from "../clip.js";
import { agreed, complain } from "../deeds.js";
import { $, announce, arrange, h, setText } from "../dom.js";
import { askForRest, changes, finish, isAsked, sets, taken } from "../drafts.js";
import { icon } from "../icons.js";
import { videos } from "../store.js";
import { ago } from "../words.js";
import { GONE, makeCell, showCell } from "./draft-cell.js";

/**
 * @typedef {import("../api.js").Video} Video
 * @typedef {import("../drafts.js").DraftSet} DraftSet
 * @typedef {import("../drafts.js").Draft} Draft
 */

const INVITATION =
  "Draft four makes a prompt with four seeds and few steps, side by side. Then one press makes the best one in full.";
/** How far a clip may run ahead of the first or behind it. */
const MAY_BE_OFF_S = 0.1;

class DraftBoard extends HTMLElement {
  static observedAttributes = ["hidden"];
  #shown = "";
  /** Why a video is not known here: id to a sentence. @type {Map<string, string>} */
  #absent = new Map();
  /** Whether the clips are to play, as long as somebody can see them. */
  #plays = !still.matches;

  connectedCallback() {
    videos.addEventListener("change", (event) => {
      const { id } = /** @type {CustomEvent} */ (event).detail.video;
      this.#absent.delete(id);
      this.#heard(id);
    });
    videos.addEventListener("gone", (event) => {
      const id = /** @type {CustomEvent} */ (event).detail;
      this.#absent.set(id, GONE);
      this.#heard(id);
    });
    videos.addEventListener("preview", (event) => this.#heard(/** @type {CustomEvent} */ (event).detail));
    changes.addEventListener("change", () => this.#changed());
    document.addEventListener("visibilitychange", () => this.#move());
  }

  attributeChangedCallback() {
    this.#move();
  }

  get #set() {
    return sets().find((one) => one.id === this.#shown);
  }

  get #clips() {
    return [...this.querySelectorAll("video")];
  }

  /** @param {string} id of the set; "" for the newest */
  show(id) {
    const set = sets().find((one) => one.id === id) ?? sets()[0];
    this.#shown = set?.id ?? "";
    this.#clips.forEach(letGo);
    this.replaceChildren(h("div", { class: "heading" }, h("h2", {}, "Drafts")));
    if (!set) return this.append(h("p", { class: "lead" }, INVITATION));
    const toggle = () => {
      this.#plays = !this.#plays;
      this.#move();
    };
    $(this, ".heading").append(h("button", { type: "button", class: "motion", onclick: toggle }));
    const board = h("ul", { class: "board" });
    board.style.setProperty("--ratio", String(Number(set.recipe.width) / Number(set.recipe.height)));
    this.append(
      h("p", { class: "text" }, set.recipe.prompt),
      h("p", { class: "hint" }, described(set)),
      this.#rest(),
      board,
      h("h3", {}, "Earlier"),
      h("ul", { class: "earlier" }),
    );
    this.#refresh();
    this.#move();
    for (const draft of set.drafts) this.#fetch(draft);
  }

  /** What the page does not know yet: after a reload. @param {Draft} draft */
  async #fetch(draft) {
    for (const id of [draft.draft, draft.full]) {
      if (!id || videos.get(id)) continue;
      try {
        await videos.ask(() => api.video(id));
        // It is there, but is being deleted.
        if (!videos.get(id)) this.#absent.set(id, GONE);
      } catch (error) {
        const { status, message } = /** @type {api.ApiError} */ (error);
        this.#absent.set(id, status === 404 ? GONE : message);
      }
      this.#heard(id);
    }
  }

  /** What is shown while the service has not taken all four. */
  #rest() {
    const ask = async () => {
      const set = this.#set;
      if (!set || !(await agreed())) return;
      askForRest(set);
      this.#refresh();
    };
    const button = h("button", { type: "button", onclick: ask }, "Try the rest");
    return h("div", { class: "note rest" }, h("p"), button);
  }

  /**
   * @param {HTMLButtonElement} button
   * @param {string} seed
   */
  async #pick(button, seed) {
    const set = this.#set;
    const draft = set?.drafts.find((one) => one.seed === seed);
    if (!set || !draft || button.ariaDisabled === "true") return;
    // A button that is disabled loses the focus.
    button.ariaDisabled = "true";
    try {
      if (await agreed()) await finish(set, draft);
    } catch (error) {
      complain(error);
    } finally {
      button.ariaDisabled = "false";
    }
  }

  /** There is news of a video. @param {string} id */
  #heard(id) {
    if (this.hidden) return;
    const set = this.#set;
    const place = set ? taken(set).findIndex(({ draft, full }) => id === draft || id === full) : -1;
    if (set && place >= 0) this.#showCell($(this, ".board").children[place], taken(set)[place]);
  }

  /** A set was begun, or one of its drafts chosen: here, or in another tab. */
  #changed() {
    if (this.hidden) return;
    if (this.#shown) this.#refresh();
    else this.show("");
  }

  #refresh() {
    const set = this.#set;
    if (!set) return;
    const drafts = taken(set);
    const cells = arrange(
      $(this, ".board"),
      drafts.map(({ seed }) => seed),
      (seed) => makeCell(set, seed, (button) => this.#pick(button, seed)),
    );
    cells.forEach((cell, place) => this.#showCell(cell, drafts[place]));
    this.#showRest(set);
    const others = sets().filter((one) => one !== set);
    $(this, "h3").hidden = !others.length;
    arrange(
      $(this, ".earlier"),
      others.map(({ id }) => id),
      (id) => entry(/** @type {DraftSet} */ (others.find((one) => one.id === id))),
    );
  }

  /** @param {DraftSet} set */
  #showRest(set) {
    const place = $(this, ".rest");
    const [asked, count, all] = [isAsked(set), taken(set).length, set.drafts.length];
    const held = place.contains(document.activeElement);
    place.hidden = count === all;
    if (held && place.hidden) $(this, ".board li:last-child .well").focus();
    $(place, "button").ariaDisabled = String(asked);
    const told = `Only ${count} of the ${all} drafts were taken. ${set.why ?? ""}`;
    const text = asked ? "Asking for the rest …" : told;
    if (place.hidden || $(place, "p").textContent === text) return;
    setText($(place, "p"), text);
    announce(text);
  }

  /**
   * @param {Element} cell
   * @param {Draft} draft
   */
  #showCell(cell, draft) {
    showCell(cell, draft, this.#absent);
    const video = videos.get(draft.draft);
    if (video?.status === "completed" && !cell.querySelector("video"))
      this.#add(movingClip(video, api.contentUrl(video.id, "thumbnail")), $(cell, ".state"));
  }

  /**
   * @param {HTMLVideoElement} clip
   * @param {Element} place
   */
  #add(clip, place) {
    // Whoever comes later joins the first where that is.
    const join = () => {
      const { currentTime } = this.#clips[0];
      for (const one of this.#clips)
        if (Math.abs(one.currentTime - currentTime) > MAY_BE_OFF_S) one.currentTime = currentTime;
    };
    clip.addEventListener("playing", join, { once: true });
    place.replaceChildren(clip);
    this.#move();
  }

  /** Play all clips, or none: what nobody sees does not move. */
  #move() {
    const clips = this.#clips;
    const play = this.#plays && !this.hidden && !document.hidden;
    for (const clip of clips) {
      if (!play) clip.pause();
      else if (clip.paused) clip.play().catch(() => {});
    }
    const button = /** @type {HTMLElement | null} */ (this.querySelector(".motion"));
    if (!button) return;
    button.hidden = !clips.length;
    button.replaceChildren(icon(this.#plays ? "pause" : "play"), this.#plays ? "Pause" : "Play");
  }
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
    h("a", { class: "text", href: `#/drafts/${set.id}` }, set.recipe.prompt),
    h("span", { class: "hint" }, ago(set.at / 1000)),
  );

customElements.define("draft-board", DraftBoard);
