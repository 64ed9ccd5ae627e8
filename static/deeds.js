// What one can do with a video that is there: the same from the wall, the detail view and the keyboard.

import * as api from "./api.js";
import { $, announce } from "./dom.js";
import { recipeOf, toForm } from "./recipe.js";
import { videos } from "./store.js";
import { toast } from "./toasts.js";

/** @typedef {import("./api.js").Video} Video */

/** How long a video must have been in the making for its cancelling to be held back, in seconds. */
const WORTH_ASKING_S = 60;

/** Say what went wrong; a missing key is asked for anyway. @param {unknown} error */
export function complain(error) {
  if (error instanceof api.ApiError && error.status === 401) return;
  toast(error instanceof Error ? error.message : String(error));
}

/** @param {Video} video */
export function remove(video) {
  const { undo, settle } = videos.deleteSoon(video.id, complain);
  toast("Deleted.", { label: "Undo", act: undo, lapse: settle });
}

/** @param {Video} video */
export async function pin(video) {
  const pinned = !video.pinned;
  const show = (/** @type {boolean} */ now) => {
    const known = videos.get(video.id);
    if (known) videos.put({ ...known, pinned: now });
  };
  show(pinned);
  try {
    await api.pin(video.id, pinned);
    announce(pinned ? "Pinned." : "No longer pinned.");
  } catch (error) {
    show(!pinned);
    complain(error);
  }
}

/**
 * End a video that is in the making. Where much would be lost, that can be taken back for a while.
 * @param {Video} video
 */
export function cancel(video) {
  if (videos.isEnding(video.id)) return;
  const { undo, settle } = videos.cancelSoon(video.id, complain);
  if (video.started_at === null || Date.now() / 1000 - video.started_at < WORTH_ASKING_S) {
    settle();
    announce("Cancelled.");
  } else toast("It will be cancelled.", { label: "Undo", act: undo, lapse: settle });
}

/**
 * Make a finished video again, with another prompt or with its own: everything else is the same.
 * @param {Video} video
 * @param {string} [prompt]
 */
export const again = (video, prompt = video.prompt) => begin(() => api.remix(video.id, prompt));

/**
 * Make it anew from its recipe: with another seed, or because it failed.
 * @param {Video} video
 * @param {Record<string, string>} changes
 */
export const anew = (video, changes = {}) => begin(() => createAnew(video, changes));

/**
 * @param {Video} video
 * @param {Record<string, string>} changes
 */
async function createAnew(video, changes) {
  return api.create(toForm({ ...recipeOf(video), ...changes }, await pictureOf(video)));
}

/**
 * The picture that a video began with.
 * @param {Video} video
 * @returns {Promise<Blob | null>}
 */
export async function pictureOf(video) {
  if (!video.has_image) return null;
  if (video.status === "completed") return api.picture(video.id);
  throw new Error("The picture it began with is not kept. “Use settings” fills in the rest; add the picture there.");
}

/** Whether the question for consent stands there, unanswered. */
let asking = false;

/**
 * Whether whoever is there agrees to lawful use; who has not yet is asked.
 * @returns {Promise<boolean>}
 */
export function agreed() {
  const consent = $(document, "consent-field");
  if (consent.given || asking) return Promise.resolve(consent.given);
  asking = true;
  return new Promise((answer) => {
    const settle = (/** @type {boolean} */ given) => {
      asking = false;
      if (given) consent.give();
      answer(given);
    };
    toast(consent.sentence, { label: "I agree", act: () => settle(true), lapse: () => settle(false) });
  });
}

/**
 * Begin a video, if that may be.
 * @param {() => Promise<Video>} request
 * @returns {Promise<Video | null>} null when it has not begun
 */
async function begin(request) {
  if (!(await agreed())) return null;
  try {
    const made = await videos.ask(request);
    announce("Started.");
    return made;
  } catch (error) {
    complain(error);
    return null;
  }
}
