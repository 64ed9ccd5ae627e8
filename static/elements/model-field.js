// The model: any, or one of them; each says what it can do, and what of the present request it cannot.

import { $, h, setText } from "../dom.js";

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
    const all = [option("", "Any", "Whichever can make it and is free."), ...models.map(described)];
    const list = h("div", { class: "options" }, ...all);
    $(this, "fieldset").querySelector(".options")?.remove();
    $(this, "fieldset").append(list);
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
function described(model) {
  const { limits } = model;
  const from = limits.accepts_image ? "Text or a picture" : "Text only";
  const state = ["ready", "unloaded"].includes(model.state) ? "" : ` ${model.state}.`;
  const demo = model.bundled ? " Demo checkpoint." : "";
  return option(model.id, model.id, `${from}, up to ${limits.num_frames.maximum} frames.${demo}${state}`);
}

/**
 * @param {string} value
 * @param {string} name
 * @param {string} can
 */
function option(value, name, can) {
  const input = h("input", { type: "radio", name: "model", value });
  const words = h(
    "span",
    {},
    h("b", {}, name),
    h("span", { class: "hint" }, can),
    h("span", { class: "cannot" }),
  );
  return h("label", { "data-model": value }, input, words);
}

customElements.define("model-field", ModelField);
