// The player: one video, or two that move together. It counts in frames.

import * as api from "../api.js";
import { letGo, still } from "../clip.js";
import { $, h, setText } from "../dom.js";
import { drawIcons, icon } from "../icons.js";

/** @typedef {import("../api.js").Video} Video */

/** How far the second picture may run ahead or behind. */
const MAY_BE_OFF_S = 0.08;
const CAN_FILL = "requestFullscreen" in Element.prototype;
/** On an iPhone a video can fill the screen, and nothing else. */
const VIDEO_CAN_FILL = "webkitEnterFullscreen" in HTMLVideoElement.prototype;

class VideoPlayer extends HTMLElement {
  /** @type {HTMLVideoElement[]} */
  #clips = [];
  /** The clip that the others follow: the longest. @type {HTMLVideoElement} */
  #leader = document.createElement("video");
  #fps = 24;
  #frames = 1;
  #scrubbing = false;
  #loops = true;

  disconnectedCallback() {
    this.#clips.forEach(letGo);
  }

  /** @param {Video[]} list one or two finished videos */
  show(list) {
    const longest = list.reduce((a, b) => (b.num_frames / b.fps > a.num_frames / a.fps ? b : a));
    this.#fps = longest.fps;
    this.#frames = longest.num_frames;
    this.#clips = list.map((video) => clipOf(video));
    this.#leader = this.#clips[list.indexOf(longest)];
    const clips = this.#clips.map((clip, index) => h("div", { class: "clip" }, clip, caption(list, index)));
    this.replaceChildren(h("div", { class: "clips" }, ...clips), this.#bar());
    drawIcons(this);
    for (const clip of this.#clips) {
      clip.addEventListener("click", () => this.toggle());
      clip.addEventListener("error", () => this.#failed(clip));
    }
    for (const type of ["play", "pause"]) {
      this.#leader.addEventListener(type, () => {
        this.#applyLoop();
        this.#follow();
      });
    }
    this.#leader.addEventListener("seeked", () => this.#follow());
    if (!still.matches) this.toggle();
    this.#watch();
  }

  toggle() {
    // A browser may refuse to start by itself; the button is there.
    if (this.#leader.paused) this.#leader.play().catch(() => {});
    else this.#leader.pause();
  }

  /** @param {number} frames how many, negative for back */
  step(frames) {
    this.#leader.pause();
    this.#seek(Math.min(this.#frames - 1, Math.max(0, this.#frame + frames)));
  }

  /** Chromium takes a clip that loops from its last frame to its first also while it is paused. */
  #applyLoop() {
    this.#leader.loop = this.#loops && !this.#leader.paused;
  }

  get #frame() {
    return Math.min(this.#frames - 1, Math.floor(this.#leader.currentTime * this.#fps + 0.01));
  }

  /** @param {number} frame */
  #seek(frame) {
    // The middle of a frame: its edge may round to the one before.
    this.#leader.currentTime = (frame + 0.5) / this.#fps;
  }

  #bar() {
    const button = (/** @type {string} */ name, /** @type {string} */ label, /** @type {() => void} */ act) =>
      h(
        "button",
        { type: "button", class: `tool ${name}`, "data-icon": name, title: label, onclick: act },
        h("span", { class: "unseen" }, label),
      );
    const scrub = h("input", {
      type: "range",
      min: 0,
      max: this.#frames - 1,
      value: 0,
      "aria-label": "Frame",
    });
    scrub.addEventListener("input", () => this.#seek(Number(scrub.value)));
    scrub.addEventListener("pointerdown", () => (this.#scrubbing = true));
    // A touch that turns out to scroll is cancelled, and never lifted.
    for (const type of ["pointerup", "pointercancel", "lostpointercapture"])
      scrub.addEventListener(type, () => (this.#scrubbing = false));
    const loop = button("loop", "Loop", () => {
      this.#loops = !this.#loops;
      this.#applyLoop();
      loop.setAttribute("aria-pressed", String(this.#loops));
    });
    loop.setAttribute("aria-pressed", "true");
    const full = button("frame", "Full screen", () => this.#fillScreen());
    full.hidden = !CAN_FILL && !VIDEO_CAN_FILL;
    return h(
      "div",
      { class: "bar-of-player", role: "group", "aria-label": "Player" },
      button("play", "Play", () => this.toggle()),
      button("back", "One frame back", () => this.step(-1)),
      button("forth", "One frame on", () => this.step(1)),
      scrub,
      h("span", { class: "time" }),
      loop,
      full,
    );
  }

  async #fillScreen() {
    try {
      if (CAN_FILL) await $(this, ".clips").requestFullscreen();
      else /** @type {any} */ (this.#leader).webkitEnterFullscreen();
    } catch {
      // A browser may refuse, and an iPhone does before the first byte is there.
    }
  }

  /** Keep the figures and the followers in step, as long as the player is on the page. */
  #watch() {
    if (!this.isConnected) return;
    this.#tick();
    requestAnimationFrame(() => this.#watch());
  }

  #tick() {
    const playing = !this.#leader.paused;
    const play = $(this, ".play");
    if (play.dataset.playing !== String(playing)) {
      play.dataset.playing = String(playing);
      $(play, "svg").replaceWith(icon(playing ? "pause" : "play"));
      setText($(play, ".unseen"), playing ? "Pause" : "Play");
      play.title = playing ? "Pause" : "Play";
    }
    const frame = this.#frame;
    const scrub = $(this, "input");
    if (!this.#scrubbing) scrub.value = String(frame);
    scrub.setAttribute("aria-valuetext", `frame ${frame + 1} of ${this.#frames}`);
    setText($(this, ".time"), `${((frame + 1) / this.#fps).toFixed(2)} s · ${frame + 1} / ${this.#frames}`);
    if (playing) this.#follow();
  }

  #follow() {
    const { currentTime, paused } = this.#leader;
    for (const clip of this.#clips) {
      if (clip === this.#leader) continue;
      const wanted = Math.min(currentTime, (clip.duration || currentTime) - 0.5 / this.#fps);
      const ended = wanted < currentTime;
      const off = Math.abs(clip.currentTime - wanted);
      // While it seeks, another seek would only put the picture off.
      if (off > (paused ? 0.001 : MAY_BE_OFF_S) && !clip.seeking) clip.currentTime = wanted;
      if (!paused && clip.paused && !ended) clip.play().catch(() => {});
      if ((paused || ended) && !clip.paused) clip.pause();
    }
  }

  /** @param {HTMLVideoElement} clip */
  #failed({ error }) {
    const reason = error?.message ? ` (${error.message})` : "";
    $(this, ".clips").append(
      h("p", { class: "error", role: "alert" }, `This browser cannot play the video${reason}.`),
    );
  }
}

/** @param {Video} video */
function clipOf(video) {
  const source = api.contentUrl(video.id, "video");
  const clip = h("video", {
    src: source,
    poster: api.contentUrl(video.id, "thumbnail"),
    playsinline: true,
    preload: "auto",
  });
  clip.muted = true;
  // The numbers reserve the room before the first byte is there.
  clip.width = video.width;
  clip.height = video.height;
  clip.setAttribute("aria-label", video.prompt);
  return clip;
}

/**
 * @param {Video[]} list
 * @param {number} index
 */
function caption(list, index) {
  if (list.length === 1) return null;
  const video = list[index];
  const parts = [
    h("a", { href: `#/videos/${video.id}` }, video.prompt),
    h("span", { class: "hint" }, `${video.model} · seed ${video.seed}`),
  ];
  return h("p", { class: "caption" }, ...parts);
}

customElements.define("video-player", VideoPlayer);
