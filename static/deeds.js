// What one can do with a video that is there: the same from the wall, the detail view and the keyboard.

import * as api from "./api.js";
import { announce } from "./dom.js";
import { recipeOf, toForm } from "./recipe.js";
import { videos } from "./store.js";
import { toast } from "./toasts.js";

/** @typedef {import("./api.js").Video} Video */

/** @param {unknown} error */
export const complain = (error) => toast(error instanceof Error ? error.message : String(error));

/** @param {Video} video */
export function remove(video) {
  const undo = videos.deleteSoon(video.id, complain);
  toast("Deleted.", { label: "Undo", act: undo });
}

/** @param {Video} video */
export async function pin(video) {
  const pinned = !video.pinned;
  videos.put({ ...video, pinned });
  try {
    await api.pin(video.id, pinned);
    announce(pinned ? "Pinned." : "No longer pinned.");
  } catch (error) {
    videos.put({ ...video, pinned: !pinned });
    complain(error);
  }
}

/** @param {Video} video */
export async function cancel(video) {
  try {
    await videos.ask(() => api.cancel(video.id));
    announce("Cancelled.");
  } catch (error) {
    complain(error);
  }
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

/** @param {() => Promise<Video>} request */
async function begin(request) {
  try {
    const made = await videos.ask(request);
    announce("Begun.");
    return made;
  } catch (error) {
    complain(error);
    return null;
  }
}
