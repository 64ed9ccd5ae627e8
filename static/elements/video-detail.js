// One video as a whole: the player, its recipe, and everything that can be made of it.

import * as api from "../api.js";
import * as deeds from "../deeds.js";
import { $, fromTemplate, h, section, setText } from "../dom.js";
import { drawIcons } from "../icons.js";
import * as models from "../models.js";
import { lastFrameOf } from "../picture.js";
import { showPreview } from "../preview.js";
import { recipeOf } from "../recipe.js";
import { promptProblem, range, rolled } from "../settings.js";
import { unfinished, videos } from "../store.js";
import { toast } from "../toasts.js";
import { ago, facts, failure } from "../words.js";
import { showProgress } from "./making-list.js";
import "./recipe-commands.js";
import "./video-player.js";

/** @typedef {import("../api.js").Video} Video */

class VideoDetail extends HTMLElement {
  #id = "";
  #status = "";
  #heardAt = 0;
  /** Whether a new video has been asked for, and the answer is not there. */
  #busy = false;

  connectedCallback() {
    videos.addEventListener("change", this.#onChange);
    videos.addEventListener("preview", this.#onPreview);
    videos.addEventListener("gone", this.#onGone);
    models.changes.addEventListener("change", this.#onModels);
  }

  disconnectedCallback() {
    videos.removeEventListener("change", this.#onChange);
    videos.removeEventListener("preview", this.#onPreview);
    videos.removeEventListener("gone", this.#onGone);
    models.changes.removeEventListener("change", this.#onModels);
  }

  /** @param {Video} video */
  show(video) {
    this.#id = video.id;
    this.#status = video.status;
    this.#heardAt = performance.now();
    this.replaceChildren(this.#screen(video), this.#panel(video));
    drawIcons(this);
    this.#refresh(video);
  }

  #onChange = (/** @type {Event} */ event) => {
    const { video } = /** @type {CustomEvent} */ (event).detail;
    if (video.id !== this.#id) return;
    this.#heardAt = performance.now();
    if (video.status === this.#status) return this.#refresh(video);
    const hadFocus = this.contains(document.activeElement);
    this.show(video);
    if (hadFocus) $(this, "h2").focus();
  };

  #onPreview = (/** @type {Event} */ event) => {
    if (/** @type {CustomEvent} */ (event).detail === this.#id) this.#showPreview();
  };

  #onGone = (/** @type {Event} */ event) => {
    if (/** @type {CustomEvent} */ (event).detail === this.#id) this.closest("dialog")?.close();
  };

  #onModels = () => {
    const go = /** @type {HTMLElement | null} */ (this.querySelector(".go-on"));
    if (go) go.hidden = !models.takePictures();
  };

  #showPreview() {
    const well = this.querySelector(".running .well");
    if (well) showPreview(well, this.#id);
  }

  /** What changes while the view is open. @param {Video} video */
  #refresh(video) {
    if (unfinished(video)) showProgress($(this, ".running"), video, this.#heardAt);
    this.#showPreview();
    this.querySelector(".pin")?.setAttribute("aria-pressed", String(video.pinned === true));
  }

  /** @param {Video} video */
  #screen(video) {
    const screen = h("div", { class: "screen" });
    if (video.status === "completed") {
      const player = h("video-player");
      screen.append(player);
      queueMicrotask(() => player.show([video]));
    } else if (unfinished(video)) {
      const card = h("div", { class: "running" }, ...fromTemplate("running-card").children);
      const well = $(card, ".well");
      well.style.aspectRatio = `${video.width} / ${video.height}`;
      well.style.setProperty("--ratio", String(video.width / video.height));
      $(card, ".text").remove();
      $(card, ".cancel").addEventListener("click", () => deeds.cancel(videos.get(video.id) ?? video));
      screen.append(card);
    } else {
      screen.append(h("p", { class: "failure", role: "alert" }, failure(video)));
    }
    return screen;
  }

  /** @param {Video} video */
  #panel(video) {
    const made = video.status === "completed";
    const open = unfinished(video);
    return h(
      "div",
      { class: "panel" },
      h("h2", { id: "sheet-title", class: "text", tabindex: -1 }, video.prompt),
      h("p", { class: "hint" }, `${video.model} · ${ago(video.created_at)}`),
      h("div", { class: "buttons" }, ...this.#firstButtons(video, made)),
      open ? null : this.#more(video, made),
      section("Recipe", list(video), ...begunWith(video), ...notices(video)),
      commands(video),
    );
  }

  /**
   * @param {Video} video
   * @param {boolean} made
   */
  #firstButtons(video, made) {
    const pin = button("pin", "Pin", () => deeds.pin(videos.get(video.id) ?? video));
    pin.classList.add("pin");
    const file = h(
      "a",
      {
        class: "button primary",
        href: api.contentUrl(video.id, "video"),
        download: "",
        "data-icon": "download",
      },
      "Download",
    );
    const remove = button("trash", "Delete", () => {
      deeds.remove(videos.get(video.id) ?? video);
    });
    const compare = button("compare", "Compare", () => this.#tell("compare", video.id));
    return [
      ...(made ? [file] : []),
      ...(made && video.pinned !== undefined ? [pin] : []),
      ...(made ? [compare] : []),
      remove,
    ];
  }

  /**
   * @param {Video} video
   * @param {boolean} made
   */
  #more(video, made) {
    const seed = () => String(rolled(limitsOf(video, "seed")?.maximum));
    const fill = button("sliders", "Use settings", () => this.#fill(video));
    fill.title = "Puts its recipe into the composer, to be changed";
    if (!made) {
      const retry = button("again", "Try again", () => this.#after(() => deeds.anew(video)));
      return section("Once more", h("div", { class: "buttons" }, retry, fill));
    }
    const same = button("again", "Same again", () => this.#after(() => deeds.again(video)));
    const vary = button("dice", "Another seed", () => this.#after(() => deeds.anew(video, { seed: seed() })));
    const go = button("picture", "Continue it", () => this.#goOn(video, go));
    go.title = "Its last frame becomes the first picture of the next";
    go.classList.add("go-on");
    go.hidden = !models.takePictures();
    return section(
      "Make more of it",
      h("div", { class: "buttons" }, same, vary, go, fill),
      this.#remix(video),
    );
  }

  /** @param {Video} video */
  #remix(video) {
    const prompt = h("textarea", { id: "remix", rows: 3, "aria-describedby": "remix-error" });
    prompt.value = video.prompt;
    const error = h("p", { class: "error", id: "remix-error", role: "alert" });
    const send = async (/** @type {Event} */ event) => {
      event.preventDefault();
      const limits = limitsOf(video, "prompt");
      const problem = limits ? promptProblem(prompt.value, limits) : "";
      setText(error, problem);
      if (!problem) this.#after(() => deeds.again(video, prompt.value));
    };
    const label = h("label", { for: "remix" }, "Change the words, keep the rest");
    return h("form", { class: "remix", onsubmit: send }, label, prompt, error, h("button", {}, "Remix"));
  }

  /**
   * A failed video's picture is gone: then the settings come without one.
   * @param {Video} video
   */
  async #fill(video) {
    const isKept = video.has_image && video.status === "completed";
    if (video.has_image && !isKept) toast("The picture it began with is not kept: choose it again.");
    try {
      const picture = isKept ? await deeds.pictureOf(video) : undefined;
      this.#tell("settings", { recipe: recipeOf(video), picture });
    } catch (error) {
      deeds.complain(error);
    }
  }

  /**
   * @param {Video} video
   * @param {HTMLButtonElement} pressed
   */
  async #goOn(video, pressed) {
    pressed.disabled = true;
    try {
      const picture = await lastFrameOf(api.contentUrl(video.id, "video"));
      this.#tell("settings", { recipe: { ...recipeOf(video), seed: "" }, picture });
    } catch (error) {
      deeds.complain(error);
    }
    pressed.disabled = false;
  }

  /**
   * Once for all presses until it is answered; then to the wall, where the new one is.
   * @param {() => Promise<Video | null>} request
   */
  async #after(request) {
    if (this.#busy) return;
    this.#busy = true;
    const here = location.hash;
    const made = await request();
    this.#busy = false;
    if (made && location.hash === here) location.hash = "#/";
  }

  /**
   * @param {string} name
   * @param {unknown} detail
   */
  #tell(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { bubbles: true, detail }));
  }
}

/**
 * What its model takes, once that is known.
 * @param {Video} video
 * @param {string} field
 */
function limitsOf(video, field) {
  const known = models.modelsOf(video.model);
  return known.length ? range(known, field) : null;
}

/**
 * @param {string} icon
 * @param {string} text
 * @param {() => void} act
 */
const button = (icon, text, act) => h("button", { type: "button", "data-icon": icon, onclick: act }, text);

/** @param {Video} video */
const list = (video) =>
  h("dl", {}, ...facts(video).flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));

/** The picture it began with; that of a failed one is gone. @param {Video} video */
const begunWith = (video) =>
  video.has_image && video.status === "completed"
    ? [
        h("img", {
          class: "begun",
          src: api.contentUrl(video.id, "picture"),
          alt: "The picture it began with",
          width: video.width,
          height: video.height,
        }),
      ]
    : [];

/** @param {Video} video */
function commands(video) {
  const element = h("recipe-commands");
  element.show(video);
  return element;
}

/** @param {Video} video */
const notices = (video) =>
  video.notices.length
    ? [h("ul", { class: "notices" }, ...video.notices.map((one) => h("li", {}, one)))]
    : [];

customElements.define("video-detail", VideoDetail);
