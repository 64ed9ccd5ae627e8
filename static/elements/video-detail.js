// One video as a whole: the player, its recipe, and everything that can be made of it.

import * as api from "../api.js";
import * as deeds from "../deeds.js";
import { $, fromTemplate, h } from "../dom.js";
import { drawIcons } from "../icons.js";
import { lastFrameOf } from "../picture.js";
import { showPreview } from "../preview.js";
import { asCurl, asPython, recipeOf } from "../recipe.js";
import { unfinished, videos } from "../store.js";
import { ago, facts, failure } from "../words.js";
import { showProgress } from "./making-list.js";
import "./video-player.js";

/** @typedef {import("../api.js").Video} Video */

const LARGEST_SEED = 2 ** 32;

class VideoDetail extends HTMLElement {
  #id = "";
  #status = "";
  #heardAt = 0;

  connectedCallback() {
    videos.addEventListener("change", this.#onChange);
    videos.addEventListener("preview", this.#onPreview);
  }

  disconnectedCallback() {
    videos.removeEventListener("change", this.#onChange);
    videos.removeEventListener("preview", this.#onPreview);
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
    if (video.status !== this.#status) this.show(video);
    else this.#refresh(video);
  };

  #onPreview = (/** @type {Event} */ event) => {
    if (/** @type {CustomEvent} */ (event).detail === this.#id) this.#showPreview();
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
      $(card, ".well").style.aspectRatio = `${video.width} / ${video.height}`;
      $(card, ".text").remove();
      $(card, ".cancel").addEventListener("click", () => deeds.cancel(video));
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
      this.#commands(video),
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
      location.hash = "#/";
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
    const seed = () => String(Math.floor(Math.random() * LARGEST_SEED));
    const fill = button("sliders", "Use settings", () => this.#fill(video));
    fill.title = "Puts its recipe into the composer, to be changed";
    if (!made) {
      const retry = button("again", "Try again", () => this.#after(deeds.anew(video)));
      return section("Once more", h("div", { class: "buttons" }, retry, fill));
    }
    const same = button("again", "Same again", () => this.#after(deeds.again(video)));
    const vary = button("dice", "Another seed", () => this.#after(deeds.anew(video, { seed: seed() })));
    const go = button("picture", "Continue it", () => this.#goOn(video));
    go.title = "Its last frame becomes the first picture of the next";
    return section(
      "Make more of it",
      h("div", { class: "buttons" }, same, vary, go, fill),
      this.#remix(video),
    );
  }

  /** @param {Video} video */
  #remix(video) {
    const prompt = h("textarea", { id: "remix", rows: 3, maxlength: 1000 });
    prompt.value = video.prompt;
    const send = async (/** @type {Event} */ event) => {
      event.preventDefault();
      this.#after(deeds.again(video, prompt.value));
    };
    const label = h("label", { for: "remix" }, "Change the words, keep the rest");
    return h("form", { class: "remix", onsubmit: send }, label, prompt, h("button", {}, "Remix"));
  }

  /**
   * A failed video's picture is gone: then the settings come without one.
   * @param {Video} video
   */
  async #fill(video) {
    const picture = await deeds.pictureOf(video).catch(() => null);
    this.#tell("settings", { recipe: recipeOf(video), ...(picture && { picture }) });
  }

  /** @param {Video} video */
  async #goOn(video) {
    try {
      const picture = await lastFrameOf(api.contentUrl(video.id, "video"));
      this.#tell("settings", { recipe: { ...recipeOf(video), seed: "", model: "" }, picture });
    } catch (error) {
      deeds.complain(error);
    }
  }

  /** @param {Video} video */
  #commands(video) {
    const withKey = api.hasKey();
    const withPicture = video.has_image;
    const text = h("pre", { tabindex: 0, "aria-label": "The command" });
    const copy = button("copy", "Copy", () => copied(text, copy));
    const show = (/** @type {string} */ command, /** @type {HTMLElement} */ chosen) => {
      text.textContent = command;
      for (const one of tabs) one.setAttribute("aria-pressed", String(one === chosen));
    };
    const recipe = recipeOf(video);
    const tabs = [
      h(
        "button",
        { type: "button", class: "quiet", onclick: () => show(asCurl(recipe, withKey, withPicture), tabs[0]) },
        "curl",
      ),
      h(
        "button",
        { type: "button", class: "quiet", onclick: () => show(asPython(recipe, withKey, withPicture), tabs[1]) },
        "Python",
      ),
    ];
    show(asCurl(recipe, withKey, withPicture), tabs[0]);
    return h(
      "details",
      { class: "commands" },
      h("summary", {}, "As a command"),
      h("div", { class: "buttons" }, ...tabs, copy),
      text,
    );
  }

  /** @param {Promise<Video | null>} request back to the wall, where the new one is */
  async #after(request) {
    const here = location.hash;
    if ((await request) && location.hash === here) location.hash = "#/";
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
 * @param {string} icon
 * @param {string} text
 * @param {() => void} act
 */
const button = (icon, text, act) => h("button", { type: "button", "data-icon": icon, onclick: act }, text);

/**
 * @param {string} title
 * @param {...(Node | string)} children
 */
const section = (title, ...children) => h("section", {}, h("h3", {}, title), ...children);

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
const notices = (video) =>
  video.notices.length
    ? [h("ul", { class: "notices" }, ...video.notices.map((one) => h("li", {}, one)))]
    : [];

/**
 * @param {HTMLElement} text
 * @param {HTMLElement} button
 */
async function copied(text, button) {
  try {
    await navigator.clipboard.writeText(text.textContent ?? "");
    button.lastChild?.replaceWith("Copied");
  } catch {
    // Away from localhost browsers keep the clipboard to themselves: the text is selected instead.
    getSelection()?.selectAllChildren(text);
    button.lastChild?.replaceWith("Selected: press Ctrl+C");
  }
}

customElements.define("video-detail", VideoDetail);
