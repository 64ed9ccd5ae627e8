// What the video would take, asked for anew as the settings change; and what would fit, where it does not.

import * as api from "../api.js";
import { h } from "../dom.js";
import { toForm } from "../recipe.js";
import { inWords } from "../words.js";

/** @typedef {import("../recipe.js").Recipe} Recipe */

const PAUSE_MS = 400;
/** The words do not count, but the service wants some. */
const SOME_PROMPT = "any scene";

class LiveEstimate extends HTMLElement {
  #timer = 0;
  #asked = "";

  /**
   * @param {Recipe} recipe one that can be made, but for its prompt
   * @param {boolean} hasPicture
   */
  ask(recipe, hasPicture) {
    const question = JSON.stringify([{ ...recipe, prompt: "", seed: "" }, hasPicture]);
    if (question === this.#asked) return;
    this.#asked = question;
    clearTimeout(this.#timer);
    this.#timer = window.setTimeout(() => this.#fetch(recipe, hasPicture, question), PAUSE_MS);
  }

  /** Say nothing: this cannot be made as it is. */
  clear() {
    clearTimeout(this.#timer);
    this.#asked = "";
    this.replaceChildren();
  }

  /**
   * @param {Recipe} recipe
   * @param {boolean} hasPicture
   * @param {string} question
   */
  async #fetch(recipe, hasPicture, question) {
    // Of a picture only that there is one counts.
    const form = toForm({ ...recipe, prompt: SOME_PROMPT }, hasPicture ? new Blob(["picture"]) : null);
    try {
      const estimate = await api.estimate(form);
      if (question === this.#asked) this.#show(estimate);
    } catch {
      if (question === this.#asked) this.clear(); // the video itself will be refused with the reason
    }
  }

  /** @param {api.Estimate} estimate */
  #show({ seconds_to_make: seconds, peak_gb: peak, available_gb: available, fits, nearest }) {
    const time = seconds === null ? "" : `Takes about ${inWords(seconds)}`;
    const memory =
      peak !== null && available !== null ? `${peak.toFixed(1)} of ${available.toFixed(1)} GB` : "";
    const facts = h(
      "p",
      { class: fits === false ? "error" : "hint" },
      [time, memory].filter(Boolean).join(" · "),
    );
    if (fits !== false) return this.replaceChildren(facts);
    const say = h("p", { class: "hint" }, nearest?.message ?? "It does not fit.");
    this.replaceChildren(facts, say, h("div", { class: "buttons" }, ...this.#ways(nearest)));
  }

  /** @param {api.Estimate["nearest"]} nearest */
  #ways(nearest) {
    const way = (/** @type {string} */ text, /** @type {Recipe} */ change) =>
      h("button", { type: "button", onclick: () => this.#change(change) }, text);
    const {
      low_vram: low,
      num_frames: frames,
      size,
    } = nearest ?? { low_vram: false, num_frames: null, size: null };
    return [
      ...(low ? [way("Use less memory", { low_vram: "true" })] : []),
      ...(frames ? [way(`${frames} frames`, { num_frames: String(frames) })] : []),
      ...(size
        ? [way(`${size.width} × ${size.height}`, { width: String(size.width), height: String(size.height) })]
        : []),
    ];
  }

  /** @param {Recipe} change */
  #change(change) {
    this.dispatchEvent(new CustomEvent("fitting", { bubbles: true, detail: change }));
  }
}

customElements.define("live-estimate", LiveEstimate);
