// Draft, pick, finish: four seeds with few steps; the chosen one is made in full with the same seed.

import * as api from "./api.js";
import { keep, kept } from "./dom.js";
import { toForm } from "./recipe.js";
import { videos } from "./store.js";

/**
 * @typedef {import("./api.js").Model} Model
 * @typedef {import("./recipe.js").Recipe} Recipe
 * @typedef {{seed: string, draft: string, full: string}} Draft ids of its two videos, "" for none
 * @typedef {{id: string, at: number, recipe: Recipe, fast: Recipe, withPicture: boolean, drafts: Draft[]}} DraftSet
 */

const STORE = "studio.drafts";
const SEEDS = 4;
const MOST_SETS = 12;
const SHARE_OF_STEPS = 1 / 4;
/** The pictures of sets that were begun since the page was opened. @type {Map<string, Blob>} */
const pictures = new Map();

/** Every set that this browser remembers, the newest first. @returns {DraftSet[]} */
export const sets = () => kept(STORE) ?? [];

/** @param {DraftSet} set */
function remember(set) {
  const others = sets().filter((other) => other.id !== set.id);
  keep(STORE, [set, ...others].sort((a, b) => b.at - a.at).slice(0, MOST_SETS));
}

/**
 * What makes a draft quick: the model's own draft mode with its own steps, or a quarter of the steps.
 * @param {Model} model
 * @returns {Recipe}
 */
function fastOf(model) {
  if (model.limits.draft) return { quality: "draft", num_inference_steps: "" };
  const { minimum } = model.limits.num_inference_steps;
  const steps = Math.round(model.defaults.num_inference_steps * SHARE_OF_STEPS);
  return { num_inference_steps: String(Math.max(minimum, steps)) };
}

/**
 * Begin four drafts. A seed that was locked is the first of them.
 * @param {Recipe} recipe
 * @param {Blob | null} picture
 * @param {Model} model the one that is asked first
 * @returns {Promise<DraftSet>}
 */
export async function begin(recipe, picture, model) {
  const { maximum } = model.limits.seed;
  const random = () => String(Math.floor(Math.random() * (maximum + 1)));
  const seeds = [recipe.seed || random(), ...Array.from({ length: SEEDS - 1 }, random)];
  // Drafts and the finished video have to be of one model, or the seed means nothing.
  /** @type {Recipe} */
  const own = { ...recipe, model: model.id };
  // The chosen one is made in full, whatever the composer says.
  if (own.quality === "draft") own.quality = "";
  /** @type {DraftSet} */
  const set = {
    id: crypto.getRandomValues(new Uint32Array(1))[0].toString(36),
    at: Date.now(),
    recipe: own,
    fast: fastOf(model),
    withPicture: picture !== null,
    drafts: [],
  };
  if (picture) pictures.set(set.id, picture);
  for (const seed of seeds) {
    const video = await videos.ask(() => api.create(toForm({ ...own, ...set.fast, seed }, picture)));
    set.drafts.push({ seed, draft: video.id, full: "" });
    remember(set);
  }
  return set;
}

/**
 * Make one of the drafts in full.
 * @param {DraftSet} set
 * @param {Draft} draft
 */
export async function finish(set, draft) {
  let picture = pictures.get(set.id) ?? null;
  // After a reload the picture is gone, but each draft begins with it.
  if (set.withPicture && !picture) picture = await api.picture(draft.draft);
  const video = await videos.ask(() => api.create(toForm({ ...set.recipe, seed: draft.seed }, picture)));
  draft.full = video.id;
  remember(set);
}
