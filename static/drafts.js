// Draft, pick, finish: four seeds with few steps; the chosen one is made in full with the same seed.

import * as api from "./api.js";
import { keep, kept } from "./dom.js";
import { toForm } from "./recipe.js";
import { rolled } from "./settings.js";
import { videos } from "./store.js";

/**
 * @typedef {import("./api.js").Model} Model
 * @typedef {import("./recipe.js").Recipe} Recipe
 * @typedef {{seed: string, draft: string, full: string}} Draft ids of its two videos, "" for none: a
 *   draft that the service has not taken has none either
 * @typedef {{id: string, at: number, recipe: Recipe, fast: Recipe, withPicture: boolean, drafts: Draft[],
 *   why?: string}} DraftSet `why` the service has not taken all of them
 */

const STORE = "studio.drafts";
const SEEDS = 4;
const MOST_SETS = 12;
const SHARE_OF_STEPS = 1 / 4;
/** The pictures of sets that were begun since the page was opened. @type {Map<string, Blob>} */
const pictures = new Map();
/** The sets whose drafts are being asked for. @type {Set<string>} */
const asking = new Set();
/** Tells, as `change`, that the sets are others than before. */
export const changes = new EventTarget();

addEventListener("storage", (event) => {
  if (event.key === STORE) take(newest([...stored(), ...all]));
});

/** Every set that this browser remembers, the newest first. */
export const sets = () => all;

/** Those of its drafts that the service has taken. @param {DraftSet} set */
export const taken = (set) => set.drafts.filter(({ draft }) => draft !== "");

/** Whether its drafts are being asked for just now. @param {DraftSet} set */
export const isAsked = (set) => asking.has(set.id);

/** @param {any} recipe */
const isRecipe = (recipe) =>
  typeof recipe === "object" && recipe && Object.values(recipe).every((value) => typeof value === "string");

/** @param {any} draft */
const isDraft = (draft) => [draft?.seed, draft?.draft, draft?.full].every((one) => typeof one === "string");

/** @param {any} set */
const isSet = (set) =>
  typeof set?.id === "string" &&
  typeof set.at === "number" &&
  isRecipe(set.recipe) &&
  typeof set.recipe.prompt === "string" &&
  isRecipe(set.fast) &&
  Array.isArray(set.drafts) &&
  set.drafts.every(isDraft);

/** What is stored; another version of this page may have written something else. @returns {DraftSet[]} */
function stored() {
  const found = kept(STORE);
  return Array.isArray(found) ? found.filter(isSet) : [];
}

/** Of two that are the same set the first is kept. @param {DraftSet[]} some */
function newest(some) {
  const ids = some.map((set) => set.id);
  const each = some.filter((set, index) => ids.indexOf(set.id) === index);
  return each.sort((a, b) => b.at - a.at).slice(0, MOST_SETS);
}

/** The newest first. This is the truth, also where the browser stores nothing; what it stores is a copy. */
let all = newest(stored());

/** @param {DraftSet[]} some */
function take(some) {
  all = some;
  changes.dispatchEvent(new Event("change"));
}

/** @param {DraftSet} set */
function remember(set) {
  take(newest([set, ...all, ...stored()]));
  keep(STORE, all);
}

/** The set as it stands now. @param {DraftSet} set */
const now = (set) => all.find((one) => one.id === set.id) ?? set;

/**
 * Keep what is new about one draft: the others may have changed meanwhile.
 * @param {DraftSet} set
 * @param {string} seed
 * @param {Partial<Draft>} news
 */
function mark(set, seed, news) {
  const { drafts, ...rest } = now(set);
  remember({ ...rest, drafts: drafts.map((one) => (one.seed === seed ? { ...one, ...news } : one)) });
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
 * Begin four drafts. A seed that was locked is the first of them. Fails when the service takes none; when
 * it takes some, the set tells why not all.
 * @param {Recipe} recipe
 * @param {Blob | null} picture
 * @param {Model} model the one that is asked first
 * @returns {Promise<DraftSet>}
 */
export async function begin(recipe, picture, model) {
  const random = () => String(rolled(model.limits.seed.maximum));
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
    drafts: seeds.map((seed) => ({ seed, draft: "", full: "" })),
  };
  if (picture) pictures.set(set.id, picture);
  await askForRest(set);
  return now(set);
}

/**
 * Ask for the drafts of a set that the service has not taken yet.
 * @param {DraftSet} set
 */
export async function askForRest(set) {
  if (isAsked(set)) return;
  asking.add(set.id);
  let why = "";
  try {
    const picture = await pictureOf(set);
    for (const { seed } of set.drafts.filter(({ draft }) => draft === "")) {
      const form = toForm({ ...set.recipe, ...set.fast, seed }, picture);
      mark(set, seed, { draft: (await videos.ask(() => api.create(form))).id });
    }
  } catch (error) {
    if (!taken(now(set)).length) throw error;
    why = /** @type {Error} */ (error).message;
  } finally {
    asking.delete(set.id);
  }
  remember({ ...now(set), why });
}

/**
 * Make one of the drafts in full.
 * @param {DraftSet} set
 * @param {Draft} draft
 */
export async function finish(set, { seed }) {
  const form = toForm({ ...set.recipe, seed }, await pictureOf(set));
  mark(set, seed, { full: (await videos.ask(() => api.create(form))).id });
}

/**
 * The picture that its videos begin with. After a reload only the service has it, with each finished draft.
 * @param {DraftSet} set
 * @returns {Promise<Blob | null>}
 */
async function pictureOf(set) {
  const here = pictures.get(set.id);
  if (here || !set.withPicture) return here ?? null;
  const done = taken(set).find(({ draft }) => videos.get(draft)?.status === "completed");
  if (done) return api.picture(done.draft);
  throw new Error("The picture that they begin with is not here before a draft is finished.");
}
