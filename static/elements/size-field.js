// Width and height: by shape and short side, or freely.

import { $, h } from "../dom.js";

/** @typedef {import("../api.js").Range} Range */

/** @type {[string, number, number][]} */
const SHAPES = [
  ["16:9", 16, 9],
  ["4:3", 4, 3],
  ["1:1", 1, 1],
  ["3:4", 3, 4],
  ["9:16", 9, 16],
];
const SCALES = [256, 384, 512, 720, 1080];

class SizeField extends HTMLElement {
  #shape = "1:1";
  #scale = 720;
  /** @type {{width: Range, height: Range, area: Range} | null} */
  #limits = null;

  connectedCallback() {
    const shapes = SHAPES.map(([name, wide, high]) => chip("shape", name, name, glyph(wide, high)));
    const scales = SCALES.map((side) => chip("scale", String(side), String(side)));
    $(this, ".shapes").append(h("div", { class: "chips" }, ...shapes));
    $(this, ".scales").append(h("div", { class: "chips" }, ...scales));
    this.addEventListener("input", (event) => this.#entered(/** @type {any} */ (event.target)));
  }

  /** @returns {{width: number, height: number}} */
  get size() {
    return { width: Number($(this, "#width").value), height: Number($(this, "#height").value) };
  }

  /** @param {{width: Range, height: Range, area: Range}} limits */
  setLimits(limits) {
    this.#limits = limits;
    this.showChoice();
  }

  /** @param {HTMLInputElement} input */
  #entered(input) {
    if (input.name === "shape") this.#shape = input.value;
    if (input.name === "scale") this.#scale = Number(input.value);
    if (input.name === "shape" || input.name === "scale") this.#apply();
    this.showChoice();
  }

  #apply() {
    const [width, height] = this.#sides(this.#shape, this.#scale);
    $(this, "#width").value = String(width);
    $(this, "#height").value = String(height);
  }

  /**
   * @param {string} shape
   * @param {number} scale
   */
  #sides(shape, scale) {
    const [, wide, high] = SHAPES.find(([name]) => name === shape) ?? SHAPES[2];
    const step = this.#limits?.width.multiple_of ?? 1;
    const long = Math.round((scale * Math.max(wide, high)) / Math.min(wide, high) / step) * step;
    return wide >= high ? [long, scale] : [scale, long];
  }

  /** Mark what the two numbers amount to, and leave out what no model takes. */
  showChoice() {
    const { width, height } = this.size;
    const fits = (/** @type {string} */ shape, /** @type {number} */ scale) => {
      const sides = this.#sides(shape, scale);
      return sides[0] === width && sides[1] === height;
    };
    const match = SHAPES.flatMap(([shape]) => SCALES.map((scale) => ({ shape, scale }))).find((one) =>
      fits(one.shape, one.scale),
    );
    if (match) [this.#shape, this.#scale] = [match.shape, match.scale];
    for (const input of /** @type {NodeListOf<HTMLInputElement>} */ (this.querySelectorAll("[type=radio]"))) {
      const isShape = input.name === "shape";
      input.checked = match !== undefined && input.value === String(isShape ? match.shape : match.scale);
      const [shape, scale] = isShape ? [input.value, this.#scale] : [this.#shape, Number(input.value)];
      input.disabled = !this.#taken(this.#sides(shape, scale));
    }
  }

  /** @param {number[]} sides */
  #taken([width, height]) {
    if (!this.#limits) return true;
    const inside = (/** @type {Range} */ range, /** @type {number} */ value) =>
      value >= range.minimum && value <= range.maximum;
    const { area } = this.#limits;
    return (
      inside(this.#limits.width, width) && inside(this.#limits.height, height) && inside(area, width * height)
    );
  }
}

/**
 * @param {string} name
 * @param {string} value
 * @param {string} text
 * @param {Node | null} [picture]
 */
function chip(name, value, text, picture = null) {
  return h(
    "label",
    { class: "chip" },
    h("input", { type: "radio", name, value }),
    picture,
    h("span", {}, text),
  );
}

/**
 * A small rectangle of the shape.
 * @param {number} wide
 * @param {number} high
 */
function glyph(wide, high) {
  const box = h("span", { class: "glyph", "aria-hidden": "true" });
  box.style.aspectRatio = `${wide} / ${high}`;
  box.style[wide >= high ? "width" : "height"] = "16px";
  return box;
}

customElements.define("size-field", SizeField);
