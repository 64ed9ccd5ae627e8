// What is wrong with a form, said beside each field from when it was first noticed until it is mended.

import { $, setText } from "./dom.js";

export class FieldErrors {
  /** @type {Set<string>} fields that have shown a fault */
  #shown = new Set();

  /** @param {Element} form */
  constructor(form) {
    this.form = form;
  }

  /** Whether there is a place for what is wrong with `field`. @param {string} field */
  has(field) {
    return field !== "" && this.form.querySelector(`#${field}-error`) !== null;
  }

  /**
   * @param {string} field
   * @param {string} sentence "" once it is mended
   */
  say(field, sentence) {
    setText($(this.form, `#${field}-error`), sentence);
    const input = $(this.form, `#${field}`);
    if (sentence && "value" in input) input.setAttribute("aria-invalid", "true");
    else input.removeAttribute("aria-invalid");
    this.#shown.add(field);
  }

  /** Bring those that were shown up to date. @param {Map<string, string>} found */
  refresh(found) {
    for (const field of this.#shown) this.say(field, found.get(field) ?? "");
  }
}
