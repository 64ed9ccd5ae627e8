// When the video would begin and what it would take, asked for anew as the settings and the queue change;
// and what would fit, where it does not.

import * as api from "../api.js";
import { $, announce, h, setText } from "../dom.js";
import { toForm } from "../recipe.js";
import { isAble } from "../settings.js";
import { inWords } from "../words.js";

/** @typedef {import("../recipe.js").Recipe} Recipe */

const PAUSE_MS = 400;
/** How long a wait that was told is good for. */
const FRESH_MS = 5000;
/** The words do not count, but the service wants some. */
const SOME_PROMPT = "any scene";

class LiveEstimate extends HTMLElement {
  #timer = 0;
  #asked = "";
  #ahead = 0;
  /** What is shown, but for its figures. */
  #told = "";

  /**
   * @param {Recipe} recipe one that can be made, but for its prompt
   * @param {boolean} hasPicture
   * @param {number} ahead how many videos are there that are not done
   */
  ask(recipe, hasPicture, ahead) {
    const question = JSON.stringify([{ ...recipe, prompt: "", seed: "" }, hasPicture, ahead]);
    if (question === this.#asked) return;
    this.#ahead = ahead;
    this.#asked = question;
    clearTimeout(this.#timer);
    this.#timer = window.setTimeout(() => this.#fetch(recipe, hasPicture, question), PAUSE_MS);
  }

  /** Say nothing: this cannot be made as it is. */
  clear() {
    clearTimeout(this.#timer);
    this.#asked = "";
    this.#empty();
  }

  #empty() {
    this.#told = "";
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
      if (question === this.#asked) this.#empty(); // the video itself will be refused with the reason
    }
  }

  /** @param {api.Estimate} estimate */
  #show(estimate) {
    if (estimate.seconds_until_start) this.#timer = window.setTimeout(() => (this.#asked = ""), FRESH_MS);
    const facts = [begins(estimate, this.#ahead), ...costs(estimate)].join(" · ");
    if (estimate.fits !== false) return this.#tell("hint", facts, "", null);
    const message = estimate.nearest?.message ?? "It does not fit.";
    this.#tell("error", costs(estimate).join(" · "), message, estimate.nearest);
  }

  /**
   * What is said already stays, with the focus on its buttons, and is not read out again.
   * @param {string} kind
   * @param {string} facts
   * @param {string} message
   * @param {api.Estimate["nearest"]} nearest
   */
  #tell(kind, facts, message, nearest) {
    const told = JSON.stringify([kind, message, nearest]);
    if (told === this.#told) return setText($(this, "p"), facts);
    this.#told = told;
    if (message) announce(`${facts}. ${message}`);
    this.replaceChildren(
      h("p", { class: kind }, facts),
      ...(message ? [h("p", { class: "hint" }, message)] : []),
      ...(message ? [h("div", { class: "buttons" }, ...this.#ways(nearest))] : []),
    );
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

/**
 * When its turn comes: from the times of videos before it, else from their number.
 * @param {api.Estimate} estimate
 * @param {number} ahead
 */
function begins({ seconds_until_start: wait, models }, ahead) {
  if (!models.some(({ state }) => isAble(state))) return "Begins when a model is ready";
  if (wait === 0 || !ahead) return "Begins at once";
  if (wait !== null) return `Begins in about ${inWords(wait)}`;
  return ahead === 1 ? "One video is before yours" : `${ahead} videos are before yours`;
}

/** Time and memory, as far as they are known. @param {api.Estimate} estimate */
function costs({ seconds_to_make: seconds, peak_gb: peak, available_gb: available }) {
  return [
    ...(seconds === null ? [] : [`takes about ${inWords(seconds)}`]),
    ...(peak === null || available === null ? [] : [`${peak.toFixed(1)} of ${available.toFixed(1)} GB`]),
  ];
}

customElements.define("live-estimate", LiveEstimate);
