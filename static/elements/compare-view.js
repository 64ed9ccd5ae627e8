// Two videos side by side in one player, and what their recipes do not share.

import { h } from "../dom.js";
import { facts } from "../words.js";
import "./video-player.js";

/** @typedef {import("../api.js").Video} Video */

class CompareView extends HTMLElement {
  /**
   * @param {Video} one
   * @param {Video} other
   */
  show(one, other) {
    const player = h("video-player");
    const [left, right] = [new Map(facts(one)), new Map(facts(other))];
    const names = [...new Set([...left.keys(), ...right.keys()])];
    const rows = names
      .filter((name) => left.get(name) !== right.get(name))
      .map((name) =>
        h(
          "tr",
          {},
          h("th", { scope: "row" }, name),
          ...[left, right].map((side) => h("td", {}, side.get(name) ?? "–")),
        ),
      );
    const table = h("table", {}, h("caption", {}, "What differs"), h("tbody", {}, ...rows));
    this.replaceChildren(h("h2", { id: "sheet-title", tabindex: -1 }, "Compare"), player, table);
    player.show([one, other]);
  }
}

customElements.define("compare-view", CompareView);
