// The keyboard on the wall: one tile at a time is in the tab order, and the arrows move on.

import { $ } from "../dom.js";
import { play, stop } from "./video-tile.js";

export class TileKeys {
  /** @param {HTMLElement} list */
  constructor(list) {
    this.list = list;
    list.addEventListener("keydown", (event) => this.#key(event));
    list.addEventListener("focusin", (event) => this.makeCurrent(/** @type {Element} */ (event.target)));
  }

  /** The link that the tab key leads to. @returns {HTMLElement | null} */
  get current() {
    return this.list.querySelector("a[tabindex='0']");
  }

  /** @param {Element} target a tile, or something in it */
  makeCurrent(target) {
    const current = target.closest(".tile");
    for (const tile of this.list.children) {
      for (const stop of /** @type {NodeListOf<HTMLElement>} */ (tile.querySelectorAll("a, button")))
        stop.tabIndex = tile === current ? 0 : -1;
    }
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    const target = /** @type {HTMLElement} */ (event.target);
    const tile = /** @type {HTMLElement | null} */ (target.closest(".tile"));
    if (!tile || !target.matches("a") || event.ctrlKey || event.metaKey || event.altKey) return;
    const next = this.#neighbour(tile, event.key);
    if (next) $(next, "a").focus();
    else if (event.key === " ") (tile.querySelector("video") ? stop : play)(tile);
    else if (event.key === "Delete") $(tile, ".delete").click();
    else return;
    event.preventDefault();
  }

  /**
   * @param {Element} tile
   * @param {string} key
   * @returns {Element | null}
   */
  #neighbour(tile, key) {
    if (key === "ArrowRight") return tile.nextElementSibling;
    if (key === "ArrowLeft") return tile.previousElementSibling;
    if (key === "Home") return this.list.firstElementChild;
    if (key === "End") return this.list.lastElementChild;
    if (key !== "ArrowDown" && key !== "ArrowUp") return null;
    const here = tile.getBoundingClientRect();
    const down = key === "ArrowDown";
    const rows = [...this.list.children].filter((other) => {
      const { top } = other.getBoundingClientRect();
      return down ? top > here.top + 1 : top < here.top - 1;
    });
    if (!rows.length) return null;
    const row = (down ? rows[0] : rows[rows.length - 1]).getBoundingClientRect().top;
    const off = (/** @type {Element} */ other) => Math.abs(other.getBoundingClientRect().left - here.left);
    const near = rows.filter((other) => Math.abs(other.getBoundingClientRect().top - row) < 1);
    return near.reduce((best, other) => (off(other) < off(best) ? other : best));
  }
}
