// LoRA files of the model: which, and how much of each. Its value is the text of the form's field.

import { $, h, setText } from "../dom.js";
import { loraText, lorasIn } from "../recipe.js";
import { range } from "../settings.js";

/**
 * @typedef {import("../api.js").Model} Model
 * @typedef {{name: string, strength: number}} Lora
 */

const STEP = 0.05;

class LoraField extends HTMLElement {
  /** @type {Map<string, number>} strengths of those that are chosen, in the order chosen */
  #chosen = new Map();
  /** @type {string[]} what the models have that it may be for */
  #there = [];
  #most = Infinity;
  #strength = { minimum: 0, maximum: 1 };

  /** As `name:0.8, other:1`. */
  get value() {
    return loraText([...this.#chosen].map(([name, strength]) => ({ name, strength })));
  }

  set value(text) {
    this.#chosen = new Map(lorasIn(text).map(({ name, strength }) => [name, strength]));
    this.#show();
  }

  /**
   * Offer what these models have, and say of the rest why not; nothing is shown where there is nothing.
   * @param {Model[]} models those that were asked for
   */
  setModels(models) {
    const files = models.flatMap((model) => model.loras);
    const usable = files.filter((lora) => !lora.problem);
    const there = [...new Set(usable.map((lora) => lora.name))].sort();
    const problems = files.filter((lora) => lora.problem && !there.includes(lora.name));
    const lines = problems.map(({ name, problem }) => h("li", {}, `${name} cannot be used: ${problem}`));
    $(this, ".unusable").replaceChildren(...lines);
    this.hidden = !files.length && !this.#chosen.size;
    if (String(there) === String(this.#there)) return;
    this.#there = there;
    this.#most = range(models, "loras").maximum;
    this.#strength = range(models, "lora_strength");
    this.#show();
  }

  focus() {
    this.querySelector("input")?.focus();
  }

  #show() {
    // What was chosen and is not there any more can be let go.
    const names = [...new Set([...this.#there, ...this.#chosen.keys()])];
    $(this, "fieldset").hidden = !names.length;
    if (names.length) this.hidden = false;
    $(this, ".options").replaceChildren(...names.map((name) => this.#row(name)));
    this.#limit();
  }

  /** @param {string} name */
  #row(name) {
    const strength = this.#chosen.get(name);
    const told = h("output", { class: "hint" });
    const slider = h("input", {
      type: "range",
      min: this.#strength.minimum,
      max: this.#strength.maximum,
      step: STEP,
      value: strength ?? 1,
      "aria-label": `Strength of ${name}`,
      oninput: () => this.#set(name, slider, told),
    });
    slider.hidden = strength === undefined;
    const box = h("input", {
      type: "checkbox",
      value: name,
      checked: strength !== undefined,
      onchange: () => {
        if (box.checked) this.#set(name, slider, told);
        else this.#chosen.delete(name);
        slider.hidden = told.hidden = !box.checked;
        this.#limit();
        this.dispatchEvent(new Event("input", { bubbles: true }));
      },
    });
    if (strength !== undefined) setText(told, String(strength));
    return h("div", { class: "lora" }, h("label", {}, box, h("span", {}, name)), slider, told);
  }

  /**
   * @param {string} name
   * @param {HTMLInputElement} slider
   * @param {Element} told
   */
  #set(name, slider, told) {
    this.#chosen.set(name, Number(slider.value));
    setText(told, slider.value);
  }

  #limit() {
    for (const box of this.querySelectorAll("input[type=checkbox]")) {
      const { checked } = /** @type {HTMLInputElement} */ (box);
      /** @type {HTMLInputElement} */ (box).disabled = !checked && this.#chosen.size >= this.#most;
    }
  }
}

customElements.define("lora-field", LoraField);
