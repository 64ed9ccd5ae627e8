// The videos that this page knows of. One truth for all views: they listen to `change`, `gone` and
// `preview`.

import * as api from "./api.js";

/**
 * @typedef {import("./api.js").Video} Video
 * @typedef {import("./api.js").Preview} Preview
 * @typedef {{settle: () => void, undo: () => void}} Choice what can still be taken back
 */

/** @param {Video} video */
export const unfinished = (video) => video.status === "queued" || video.status === "in_progress";

class VideoStore extends EventTarget {
  /** @type {Map<string, {video: Video, asOf: number}>} */
  #known = new Map();
  /** @type {Map<string, number>} when a video was dropped: older answers do not bring it back */
  #dropped = new Map();
  /** @type {Map<string, Preview>} the newest of each video that runs */
  #previews = new Map();
  /** @type {Map<string, () => Promise<void>>} deletions that can still be taken back */
  #leaving = new Map();
  /** @type {Map<string, () => Promise<void>>} cancellations that can still be taken back */
  #ending = new Map();

  /**
   * @param {string} id
   * @returns {Video | undefined}
   */
  get(id) {
    return this.#leaving.has(id) ? undefined : this.#known.get(id)?.video;
  }

  /** Those still in the making, in the order of the queue. */
  get unfinished() {
    const all = [...this.#known.values()].map((entry) => entry.video);
    const making = all.filter((video) => unfinished(video) && !this.#leaving.has(video.id));
    return making.sort((a, b) => a.queue_position - b.queue_position || a.created_at - b.created_at);
  }

  /**
   * Take in how a video stands. `asOf` is when that was asked for: an answer that was overtaken by
   * the stream of events is dropped.
   * @param {Video} video
   * @param {number} [asOf]
   */
  put(video, asOf = performance.now()) {
    const before = this.#known.get(video.id);
    if ((before?.asOf ?? this.#dropped.get(video.id) ?? 0) > asOf) return;
    this.#known.set(video.id, { video, asOf });
    if (video.status !== "in_progress") this.#previews.delete(video.id);
    if (!unfinished(video)) this.#ending.delete(video.id);
    if (this.#leaving.has(video.id)) return;
    this.dispatchEvent(new CustomEvent("change", { detail: { video, before: before?.video } }));
  }

  /**
   * Take in the answer of a call; what the stream told meanwhile is newer.
   * @param {() => Promise<Video>} call
   * @returns {Promise<Video>} as it stands now
   */
  async ask(call) {
    const asOf = performance.now();
    const video = await call();
    this.put(video, asOf);
    return this.get(video.id) ?? video;
  }

  /** @param {string} id */
  preview(id) {
    return this.#previews.get(id);
  }

  /** Take in how a video that runs is foreseen. @param {Preview} preview */
  foresee(preview) {
    if (this.get(preview.id)?.status !== "in_progress") return;
    this.#previews.set(preview.id, preview);
    this.dispatchEvent(new CustomEvent("preview", { detail: preview.id }));
  }

  /** @param {string} id */
  drop(id) {
    this.#leaving.delete(id);
    this.#ending.delete(id);
    this.#previews.delete(id);
    this.#dropped.set(id, performance.now());
    if (this.#known.delete(id)) this.#tellGone(id);
  }

  /**
   * Hide a video until it is settled whether it is deleted on the server.
   * @param {string} id
   * @param {(error: unknown) => void} failed
   * @returns {Choice}
   */
  deleteSoon(id, failed) {
    this.#leaving.set(id, () => this.#delete(id, failed));
    this.#tellGone(id);
    return { settle: () => this.#leaving.get(id)?.(), undo: () => this.#bringBack(id) };
  }

  /**
   * Mark a video as one that will be cancelled, until that is settled.
   * @param {string} id
   * @param {(error: unknown) => void} failed
   * @returns {Choice}
   */
  cancelSoon(id, failed) {
    const undo = () => {
      if (this.#ending.delete(id)) this.#tellChange(id);
    };
    const cancel = () => this.ask(() => api.cancel(id)).then(undo, (error) => (undo(), failed(error)));
    this.#ending.set(id, cancel);
    this.#tellChange(id);
    return { settle: () => this.#ending.get(id)?.(), undo };
  }

  /** Whether a video is about to be cancelled. @param {string} id */
  isEnding(id) {
    return this.#ending.has(id);
  }

  /** Do whatever could still be taken back: the page is being left. */
  flush() {
    const all = [this.#leaving, this.#ending].flatMap((pending) => [...pending.values()]);
    return Promise.all(all.map((settle) => settle()));
  }

  /**
   * @param {string} id
   * @param {(error: unknown) => void} failed
   */
  async #delete(id, failed) {
    try {
      await api.remove(id);
      this.drop(id);
    } catch (error) {
      if (error instanceof api.ApiError && error.status === 404) return this.drop(id);
      this.#bringBack(id);
      failed(error);
    }
  }

  /** @param {string} id */
  #bringBack(id) {
    if (this.#leaving.delete(id)) this.#tellChange(id);
  }

  /** @param {string} id */
  #tellChange(id) {
    const video = this.get(id);
    if (video) this.dispatchEvent(new CustomEvent("change", { detail: { video, before: undefined } }));
  }

  /** @param {string} id */
  #tellGone(id) {
    this.dispatchEvent(new CustomEvent("gone", { detail: id }));
  }
}

export const videos = new VideoStore();
