// Two videos side by side in one player, and what their recipes do not share.

import { h } from "../dom.js";
import { facts } from "../words.js";
import "./video-player.js";

/** @typedef {import("../api.js").Video} Video */

/** What differs between any two videos, and says nothing of how they were made. */
const NOISE = ["Started", "Kept until", "ID"];

class CompareView extends HTMLElement {
  /**
   * @param {Video} one
   * @param {Video} other
   */
  show(one, other) {
    const player = h("video-player");
    const [left, right] = [recipe(one), recipe(other)];
    const names = [...new Set([...left.keys(), ...right.keys()])];
    const rows = names
      .filter((name) => left.get(name) !== right.get(name))
      .map((name) =>
        h(
          "tr",
          {},
          h("th", { scope: "row" }, name),
          ...[left, right].map((side) => h("td", { class: "text" }, side.get(name) ?? "–")),
        ),
      );
    const title = rows.length ? "What differs" : "Nothing differs: both have the same recipe.";
    const table = h("table", {}, h("caption", {}, title), h("tbody", {}, ...rows));
    this.replaceChildren(h("h2", { id: "sheet-title", tabindex: -1 }, "Compare"), player, table);
    player.show([one, other]);
  }
}

/** @param {Video} video */
const recipe = (video) =>
  new Map([["Prompt", video.prompt], ...facts(video).filter(([name]) => !NOISE.includes(name))]);

customElements.define("compare-view", CompareView);
