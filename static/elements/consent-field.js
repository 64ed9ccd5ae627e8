// The consent to lawful use: beside the button until a video has begun with it, then among the settings.

import { $, keep, kept } from "../dom.js";

const STORE = "studio.consent";

class ConsentField extends HTMLElement {
  #known = false;

  connectedCallback() {
    if (this.#known) return; // it was only moved
    this.#known = true;
    const box = $(this, "input");
    box.checked = kept(STORE) === true;
    box.addEventListener("change", () => keep(STORE, box.checked));
    this.settle();
  }

  /** Get out of the way, once it is given. */
  settle() {
    if (this.given && !this.contains(document.activeElement)) $(document, "#settings").append(this);
  }

  get given() {
    return $(this, "input").checked;
  }

  /** What is agreed to. */
  get sentence() {
    return $(this, "label").textContent;
  }

  give() {
    $(this, "input").checked = true;
    $(this, "input").dispatchEvent(new Event("change", { bubbles: true }));
    $(this, "input").dispatchEvent(new Event("input", { bubbles: true }));
  }

  /** On a phone, where room is scarce, it is shown only when nothing else is missing. */
  ask() {
    this.classList.add("asked");
  }
}

customElements.define("consent-field", ConsentField);
