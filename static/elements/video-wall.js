// The wall: what is in the making on top, then every video, newest first, fetched in pages as one scrolls.

import * as api from "../api.js";
import { complain } from "../deeds.js";
import { $, announce, h } from "../dom.js";
import { unfinished, videos } from "../store.js";
import { failure, shortened } from "../words.js";
import { invitation } from "./invitation.js";
import { MakingList } from "./making-list.js";
import { TileKeys } from "./tile-keys.js";
import { makeTile, showTile, stop } from "./video-tile.js";

/**
 * @typedef {import("../api.js").Video} Video
 * @typedef {import("../api.js").Model} Model
 */

const PAGE = 24;
/** How far below the screen the end of the wall may be before more is fetched, in pixels. */
const AHEAD = 600;
const TYPING_MS = 250;
/** How many letters of a prompt are read out. */
const SPOKEN = 80;

class VideoWall extends HTMLElement {
  /** @type {Map<string, HTMLElement>} */
  #tiles = new Map();
  #after = "";
  #hasMore = true;
  /** Which of two of the same second stands first: the lower. @type {Map<string, number>} */
  #ranks = new Map();
  #lowest = 0;
  #highest = 0;
  #turn = 0;
  #loading = false;
  /** Whether what is shown is not what was asked for: that did not come. */
  #stale = false;
  /** @type {string} the first of a pair to compare */
  #first = "";
  /** @type {TileKeys | null} */
  #keys = null;

  connectedCallback() {
    new MakingList($(this, ".making"));
    let timer = 0;
    $(this, "#search").addEventListener("input", () => {
      clearTimeout(timer);
      timer = window.setTimeout(() => this.reload(), TYPING_MS);
    });
    for (const id of ["#filter-model", "#filter-status"]) {
      $(this, id).addEventListener("change", () => this.reload());
    }
    const more = $(this, ".more");
    more.addEventListener("click", () => this.#load());
    new IntersectionObserver((seen) => seen[0].isIntersecting && this.#load(), {
      rootMargin: `${AHEAD}px`,
    }).observe(more);
    videos.addEventListener("change", (event) => this.#take(/** @type {CustomEvent} */ (event).detail));
    videos.addEventListener("gone", (event) => this.#drop(/** @type {CustomEvent} */ (event).detail));
    this.addEventListener("pair", (event) => this.#pair(/** @type {CustomEvent} */ (event).detail));
    $(this, "#comparing button").addEventListener("click", () => this.#pair(this.#first));
    $(this, ".tiles").addEventListener("click", (/** @type {MouseEvent} */ event) => this.#choose(event));
    this.#keys = new TileKeys($(this, ".tiles"));
  }

  /** @param {Model[]} models */
  setModels(models) {
    const select = $(this, "#filter-model");
    const chosen = select.value;
    select.replaceChildren(select.options[0], ...models.map((model) => h("option", {}, model.id)));
    select.value = chosen;
    const examples = models.flatMap((model) => model.example_prompts).slice(0, 3);
    const demo = models.every((model) => model.bundled);
    $(this, ".empty").replaceChildren(...invitation(examples, demo, (prompt) => this.#offer(prompt)));
  }

  /** The ids on the wall, in its order. */
  get ids() {
    return [...$(this, ".tiles").children].map((tile) => tile.dataset.id);
  }

  /**
   * Fetch the wall anew from its first page.
   * @returns {Promise<string>} the event up to which it is complete; "" when it did not come
   */
  async reload() {
    this.#turn += 1;
    this.#loading = false;
    this.#after = "";
    this.#hasMore = true;
    return this.#load(true);
  }

  get #query() {
    const state = $(this, "#filter-status").value;
    const pinned = state === "pinned";
    return {
      search: $(this, "#search").value.trim(),
      model: $(this, "#filter-model").value,
      status: pinned ? "" : state,
      pinned: pinned ? "true" : "",
    };
  }

  get #filtered() {
    return Object.values(this.#query).some((value) => value !== "");
  }

  /**
   * @param {boolean} [fresh] whether this page replaces what is there
   * @returns {Promise<string>} as `reload`
   */
  async #load(fresh = false) {
    if (this.#loading || !this.#hasMore) return "";
    if (this.#stale && !fresh) return this.reload();
    this.#stale = false;
    const turn = this.#turn;
    let upTo = "";
    this.#loading = true;
    try {
      const asOf = performance.now();
      const page = await api.list({ ...this.#query, after: this.#after, limit: PAGE });
      if (turn !== this.#turn) return "";
      if (fresh) this.#clear(new Set(page.data.map((video) => video.id)));
      this.#after = page.last_id ?? "";
      this.#hasMore = page.has_more;
      upTo = page.last_event_id;
      for (const video of page.data) {
        this.#ranks.set(video.id, (this.#lowest += 1));
        videos.put(video, asOf);
        // It may have been overtaken by newer news, or be about to be deleted.
        const now = videos.get(video.id);
        if (now) this.#place(now);
      }
      this.#arrange();
      if (fresh && this.#filtered)
        announce(`${this.#tiles.size}${page.has_more ? " or more" : ""} videos found.`);
    } catch (error) {
      this.#stale = fresh && turn === this.#turn;
      if (!(error instanceof api.ApiError && [0, 401].includes(error.status))) complain(error);
    } finally {
      if (turn === this.#turn) this.#loading = false;
    }
    this.#showEnd();
    // The observer tells of changes only: on a tall screen the end may still be in sight.
    const more = $(this, ".more").getBoundingClientRect();
    if (turn === this.#turn && upTo && more.height && more.top < innerHeight + AHEAD) this.#load();
    return upTo;
  }

  /** Take in what is new, when the news did not come through; what is there stays where it is. */
  async catchUp() {
    if (!this.#tiles.size || this.#stale) return this.reload();
    const asOf = performance.now();
    for (const video of (await api.list({ ...this.#query, limit: PAGE })).data) videos.put(video, asOf);
  }

  /** @param {Set<string>} stay */
  #clear(stay) {
    for (const [id, tile] of this.#tiles) {
      if (stay.has(id)) continue;
      stop(tile);
      tile.remove();
      this.#tiles.delete(id);
    }
  }

  /** @param {{video: Video, before: Video | undefined}} change */
  #take({ video, before }) {
    if (before && unfinished(before) && !unfinished(video)) this.#tellEnd(video);
    // What lies beyond the pages that are loaded comes with its page.
    const oldest = videos.get(this.ids.at(-1) ?? "");
    if (this.#tiles.has(video.id) || !this.#hasMore || !oldest || video.created_at >= oldest.created_at)
      this.#place(video);
    this.#showEnd();
  }

  /** @param {Video} video */
  #place(video) {
    const known = this.#tiles.get(video.id);
    if (!this.#belongs(video)) return this.#drop(video.id);
    if (known) return showTile(known, video);
    const tile = makeTile(video);
    this.#tiles.set(video.id, tile);
    const list = $(this, ".tiles");
    if (!this.#ranks.has(video.id)) this.#ranks.set(video.id, (this.#highest -= 1));
    const later = [...list.children].find((other) => this.#precedes(video, videos.get(other.dataset.id)));
    list.insertBefore(tile, later ?? null);
    this.#keys?.makeCurrent(this.#keys.current ?? tile);
  }

  /** Put every tile in its place, for those that came before their page did. */
  #arrange() {
    const list = $(this, ".tiles");
    const order = [...list.children].sort((a, b) => {
      const video = videos.get(a.dataset.id);
      return video && this.#precedes(video, videos.get(b.dataset.id)) ? -1 : 1;
    });
    order.forEach(
      (tile, index) => tile !== list.children[index] && list.insertBefore(tile, list.children[index]),
    );
  }

  /**
   * @param {Video} video
   * @param {Video | undefined} other
   */
  #precedes(video, other) {
    if (!other) return true;
    const rank = (/** @type {Video} */ one) => this.#ranks.get(one.id) ?? 0;
    return (
      video.created_at > other.created_at ||
      (video.created_at === other.created_at && rank(video) < rank(other))
    );
  }

  /** @param {Video} video */
  #belongs(video) {
    const { search, model, status, pinned } = this.#query;
    const found = video.prompt.toLowerCase().includes(search.toLowerCase());
    const fits = (!model || video.model === model) && (!status || video.status === status);
    return !unfinished(video) && found && fits && (!pinned || video.pinned === true);
  }

  /** @param {string} id */
  #drop(id) {
    const tile = this.#tiles.get(id);
    if (!tile) return;
    const neighbour = tile.nextElementSibling ?? tile.previousElementSibling;
    const focused = tile.contains(document.activeElement);
    stop(tile);
    tile.remove();
    this.#tiles.delete(id);
    if (focused && neighbour) $(neighbour, "a").focus();
    else if (neighbour && !this.#keys?.current) this.#keys?.makeCurrent(neighbour);
    this.#showEnd();
  }

  #showEnd() {
    $(this, ".more").hidden = !this.#hasMore;
    const empty = this.#tiles.size === 0 && !this.#hasMore && !this.#loading;
    $(this, ".empty").hidden = !empty || this.#filtered || videos.unfinished.length > 0;
    $(this, ".tiles").dataset.none = empty && this.#filtered ? "No videos match." : "";
  }

  /** @param {Video} video */
  #tellEnd(video) {
    const words = shortened(video.prompt, SPOKEN);
    announce(video.status === "completed" ? `Finished: ${words}` : `${failure(video)} ${words}`);
    this.dispatchEvent(new CustomEvent("ended", { detail: video }));
  }

  /** @param {string} id */
  #pair(id) {
    const first = this.#first;
    this.#first = first ? "" : id;
    if (first && id !== first) location.hash = `#/compare/${first}/${id}`;
    $(this, "#comparing").hidden = this.#first === "";
    if (this.#first) announce($(this, "#comparing span").textContent);
    for (const [other, tile] of this.#tiles) tile.classList.toggle("paired", other === this.#first);
  }

  /** While a second one is looked for, a press on a video means it. @param {MouseEvent} event */
  #choose(event) {
    const tile = /** @type {HTMLElement} */ (event.target).closest("a")?.closest(".tile:not(.failed)");
    if (!this.#first || !tile) return;
    event.preventDefault();
    this.#pair(/** @type {HTMLElement} */ (tile).dataset.id ?? "");
  }

  /** Whether a second video is looked for, to compare with. */
  get choosing() {
    return this.#first !== "";
  }

  /** Give the focus to where one was on the wall. */
  focus() {
    (this.#keys?.current ?? $(this, "#search")).focus();
  }

  /** @param {string} prompt */
  #offer(prompt) {
    this.dispatchEvent(new CustomEvent("example", { detail: prompt }));
  }
}

customElements.define("video-wall", VideoWall);
