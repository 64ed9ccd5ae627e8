// The model: any, or one of them; each says what it can do, and what of the present request it cannot.

import { $, arrange, h, setText } from "../dom.js";
import { isAble } from "../settings.js";

/** @typedef {import("../api.js").Model} Model */

class ModelField extends HTMLElement {
  #wanted = "";

  /** The chosen model's name, "" for any. */
  get value() {
    const inputs = [...this.querySelectorAll("input")];
    return inputs.length ? (inputs.find((input) => input.checked)?.value ?? "") : this.#wanted;
  }

  set value(name) {
    this.#wanted = name;
    const inputs = [...this.querySelectorAll("input")];
    const found = inputs.find((input) => input.value === name) ?? inputs[0];
    if (found) found.checked = true;
  }

  /** @param {Model[]} models */
  setModels(models) {
    const chosen = this.value;
    if (!this.querySelector(".options")) $(this, "fieldset").append(h("div", { class: "options" }));
    const cans = ["Whichever can make it and is free.", ...models.map(can)];
    arrange($(this, ".options"), ["", ...models.map((model) => model.id)], option).forEach((one, place) =>
      setText($(one, ".hint"), cans[place]),
    );
    this.value = chosen;
  }

  /**
   * Say beside each model why it cannot make this, if so.
   * @param {Map<string, string>} reasons
   */
  setReasons(reasons) {
    for (const [name, reason] of reasons) {
      const place = this.querySelector(`[data-model="${CSS.escape(name)}"]`);
      if (!place) continue;
      setText($(place, ".cannot"), reason ? `Not this one: ${reason}.` : "");
      place.classList.toggle("unable", reason !== "");
    }
  }
}

/** @param {Model} model */
function can(model) {
  const { limits } = model;
  const from = limits.accepts_image ? "Text or a picture" : "Text only";
  const state = isAble(model.state) ? "" : ` ${model.state}.`;
  const demo = model.bundled ? " Demo checkpoint." : "";
  return `${from}, up to ${limits.num_frames.maximum} frames.${demo}${state}`;
}

/** @param {string} name of a model, "" for any */
function option(name) {
  const words = h(
    "span",
    {},
    h("b", {}, name || "Any"),
    h("span", { class: "hint" }),
    h("span", { class: "cannot" }),
  );
  return h("label", { "data-model": name }, h("input", { type: "radio", name: "model", value: name }), words);
}

customElements.define("model-field", ModelField);
