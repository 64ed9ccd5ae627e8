// The seed: empty is a new one each time; a number is kept until it is let go.

import { $ } from "../dom.js";
import { icon } from "../icons.js";
import { rolled } from "../settings.js";

class SeedField extends HTMLElement {
  /** @type {number | undefined} */
  #maximum;

  connectedCallback() {
    $(this, "#dice").addEventListener("click", () => this.set(rolled(this.#maximum)));
    $(this, "#lock").addEventListener("click", () =>
      this.set(this.#input.value === "" ? rolled(this.#maximum) : ""),
    );
    this.addEventListener("input", () => this.show());
    this.show();
  }

  get #input() {
    return $(this, "#seed");
  }

  /** @param {number} maximum */
  setLimits(maximum) {
    this.#maximum = maximum;
    this.show();
  }

  /** @param {number | string} seed */
  set(seed) {
    this.#input.value = String(seed);
    this.#input.dispatchEvent(new Event("input", { bubbles: true }));
  }

  show() {
    const locked = this.#input.value !== "";
    const lock = $(this, "#lock");
    lock.setAttribute("aria-pressed", String(locked));
    lock.querySelector("svg")?.remove();
    lock.prepend(icon(locked ? "lock" : "unlock"));
  }
}

customElements.define("seed-field", SeedField);
