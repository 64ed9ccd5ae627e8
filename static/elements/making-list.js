// The videos in the making: a card each, kept up to date by the store.

import { cancel } from "../deeds.js";
import { $, arrange, fromTemplate, setText } from "../dom.js";
import { showPreview } from "../preview.js";
import { unfinished, videos } from "../store.js";
import { outlook, phase } from "../words.js";

/** @typedef {import("../api.js").Video} Video */

const TICK_MS = 1000;

/**
 * Show how far a video is, in any card that has these places.
 * @param {Element} card
 * @param {Video} video
 * @param {number} heardAt
 */
export function showProgress(card, video, heardAt) {
  const waits = video.status === "queued";
  setText($(card, ".percent"), waits ? `No. ${video.queue_position}` : `${video.progress} %`);
  const ends = videos.isEnding(video.id);
  setText($(card, ".phase"), ends ? "About to be cancelled" : phase(video));
  setText($(card, ".outlook"), outlook(video, heardAt));
  // A button that is disabled loses the focus.
  $(card, ".cancel").ariaDisabled = String(ends);
  card.classList.toggle("stalled", video.stalled === true);
  const bar = $(card, "progress");
  bar.value = video.progress;
  bar.setAttribute("aria-label", `${phase(video)}: ${video.prompt}`);
}

class MakingList {
  /** @type {Map<string, {card: HTMLElement, heardAt: number}>} */
  #cards = new Map();

  /** @param {HTMLElement} section */
  constructor(section) {
    this.section = section;
    videos.addEventListener("change", (event) => this.#take(/** @type {CustomEvent} */ (event).detail.video));
    videos.addEventListener("gone", (event) => this.#drop(/** @type {CustomEvent} */ (event).detail));
    videos.addEventListener("preview", (event) => this.#showPreview(/** @type {CustomEvent} */ (event).detail));
    setInterval(() => this.#tick(), TICK_MS);
  }

  /** @param {Video} video */
  #take(video) {
    if (!unfinished(video)) return this.#drop(video.id);
    const known = this.#cards.get(video.id);
    const entry = { card: known?.card ?? this.#make(video), heardAt: performance.now() };
    this.#cards.set(video.id, entry);
    showProgress(entry.card, video, entry.heardAt);
    this.#showPreview(video.id);
    this.#arrange();
  }

  /** @param {string} id */
  #showPreview(id) {
    const card = this.#cards.get(id)?.card;
    if (card) showPreview($(card, ".well"), id);
  }

  /** @param {Video} video */
  #make(video) {
    const card = fromTemplate("running-card");
    $(card, ".well").style.aspectRatio = `${video.width} / ${video.height}`;
    $(card, ".text").textContent = video.prompt;
    $(card, ".text").href = `#/videos/${video.id}`;
    $(card, ".cancel").addEventListener("click", () => {
      const now = videos.get(video.id);
      if (now) cancel(now);
    });
    return card;
  }

  /** @param {string} id */
  #drop(id) {
    const card = this.#cards.get(id)?.card;
    if (!card) return;
    const hadFocus = card.contains(document.activeElement);
    card.remove();
    this.#cards.delete(id);
    this.#arrange();
    if (hadFocus) (this.section.querySelector("a") ?? $(document, "video-wall")).focus();
  }

  #arrange() {
    const ids = videos.unfinished.map(({ id }) => id).filter((id) => this.#cards.has(id));
    const cardOf = (/** @type {string} */ id) => /** @type {any} */ (this.#cards.get(id)).card;
    arrange($(this.section, "ul"), ids, cardOf);
    this.section.hidden = this.#cards.size === 0;
  }

  #tick() {
    for (const [id, { card, heardAt }] of this.#cards) {
      const video = videos.get(id);
      if (video) setText($(card, ".outlook"), outlook(video, heardAt));
    }
  }
}

export { MakingList };
