// What may be asked for: every limit comes from `/v1/models`, none is copied here.

import { lorasIn } from "./recipe.js";

/**
 * @typedef {import("./api.js").Model} Model
 * @typedef {import("./api.js").Range} Range
 * @typedef {import("./recipe.js").Recipe} Recipe
 */

export const NUMBERS = [
  "width",
  "height",
  "num_frames",
  "fps",
  "seed",
  "num_inference_steps",
  "guidance_scale",
];
const SIDES = ["width", "height"];
const MAY_BE_EMPTY = ["seed", "num_inference_steps", "guidance_scale"];

/**
 * The number of characters as the server counts them: a form sends two for a line break.
 * @param {string} text
 */
export const characters = (text) => [...text.replaceAll("\n", "\r\n")].length;

const LARGEST_SEED = 2 ** 32 - 1;

/** A seed that nobody has chosen; the largest before a model's is known. @param {number} [maximum] */
export const rolled = (maximum = LARGEST_SEED) => Math.floor(Math.random() * (maximum + 1));

/**
 * @param {Model} model
 * @param {string} name
 * @returns {Range}
 */
const rangeOf = (model, name) => (SIDES.includes(name) ? model.videos.limits[name] : model.limits[name]);

/**
 * What a quality changes with this model, or "" where it has none such.
 * @param {Model} model
 * @param {string} quality
 * @returns {string}
 */
export const qualityOf = (model, quality) =>
  model.limits.qualities.find((/** @type {any} */ one) => one.quality === quality)?.description ?? "";

/**
 * What a quality changes: one sentence if all models agree, else each one's with its name.
 * @param {Model[]} models
 * @param {string} quality
 */
export function meaning(models, quality) {
  const told = new Map(models.map((model) => [model.id, qualityOf(model, quality)]));
  if (new Set(told.values()).size === 1) return [...told.values()][0];
  return [...told].map(([id, sentence]) => `${id}: ${sentence}`).join(" ");
}

/** Whether a model in this state takes videos now. @param {string} state */
export const isAble = (state) => state === "ready" || state === "unloaded";

/**
 * Why `model` cannot make this, or "". What is wrong for every model is not looked at.
 * @param {Model} model
 * @param {Recipe} recipe
 * @param {boolean} hasPicture
 */
export function whyNot(model, recipe, hasPicture) {
  if (model.state === "failed" || model.state === "lost") return model.reason || `it is ${model.state}`;
  if (hasPicture && !model.limits.accepts_image) return "it makes videos from text only";
  if (recipe.quality && !qualityOf(model, recipe.quality)) return `it has no ${recipe.quality} mode`;
  const usable = model.loras.filter((lora) => !lora.problem).map((lora) => lora.name);
  const missing = lorasIn(recipe.loras ?? "").filter((lora) => !usable.includes(lora.name));
  if (missing.length) return `it has no LoRA ${missing[0].name}`;
  const most = model.limits.num_frames.maximum;
  if (Number(recipe.num_frames) > most) return `it makes at most ${most} frames`;
  return "";
}

/**
 * The models that the request may go to: those that can, else those that were asked for.
 * @param {Model[]} models
 * @param {Recipe} recipe
 * @param {boolean} hasPicture
 * @returns {Model[]}
 */
export function candidates(models, recipe, hasPicture) {
  const named = models.filter((model) => !recipe.model || model.id === recipe.model);
  const able = named.filter((model) => !whyNot(model, recipe, hasPicture));
  return able.length ? able : named;
}

/**
 * The widest range that any of these models takes.
 * @param {Model[]} models
 * @param {string} name
 * @returns {Range}
 */
export function range(models, name) {
  const ranges = models.map((model) => rangeOf(model, name));
  return {
    minimum: Math.min(...ranges.map((one) => one.minimum)),
    maximum: Math.max(...ranges.map((one) => one.maximum)),
    multiple_of: ranges[0].multiple_of,
  };
}

/**
 * Everything that is wrong, as field to sentence, in the order of the form.
 * @param {Model[]} models all of them
 * @param {Recipe} recipe
 * @param {{hasPicture: boolean, consent: boolean, unreadable: string[]}} more `unreadable` names
 *   the fields whose text is no number
 * @returns {Map<string, string>}
 */
export function problems(models, recipe, more) {
  const able = candidates(models, recipe, more.hasPicture);
  const found = new Map();
  const note = (/** @type {string} */ field, /** @type {string} */ sentence) => {
    if (sentence && !found.has(field)) found.set(field, sentence);
  };
  note("prompt", promptProblem(recipe.prompt, range(able, "prompt")));
  for (const name of NUMBERS) {
    if (more.unreadable.includes(name)) note(name, "Write a number.");
    else note(name, numberProblem(name, recipe[name], range(able, name)));
  }
  const area = Math.max(...able.map((model) => model.videos.limits.area.maximum));
  if (Number(recipe.width) * Number(recipe.height) > area) {
    note("width", `${recipe.width} × ${recipe.height} is more than ${area.toLocaleString()} pixels.`);
  }
  const most = range(able, "prompt").maximum;
  if (characters(recipe.negative_prompt) > most) note("negative_prompt", `Write at most ${most} characters.`);
  const reasons = able.map((model) => [model.id, whyNot(model, recipe, more.hasPicture)]);
  if (reasons.every(([, reason]) => reason)) {
    note("model", `${reasons.map(([id, reason]) => `${id}: ${reason}`).join("; ")}.`);
  }
  if (!more.consent) note("lawful_use_consent", "Agree to this first.");
  return found;
}

/**
 * What is wrong with a prompt, or "".
 * @param {string} text
 * @param {Range} limits in characters
 */
export function promptProblem(text, limits) {
  const count = characters(text);
  if (!text.trim()) return "Describe what the video should show.";
  if (count < limits.minimum) return `Write at least ${limits.minimum} characters.`;
  return count > limits.maximum ? `Write at most ${limits.maximum} characters.` : "";
}

/**
 * @param {string} name
 * @param {string} text
 * @param {Range} limits
 */
function numberProblem(name, text, limits) {
  const { minimum, maximum, multiple_of: step } = limits;
  if (text === "") return MAY_BE_EMPTY.includes(name) ? "" : `Write a number from ${minimum} to ${maximum}.`;
  const value = Number(text);
  if (value < minimum || value > maximum) return `Must be ${minimum} to ${maximum}.`;
  if (step && value % step) {
    const below = Math.floor(value / step) * step;
    return `Must be a multiple of ${step}, for example ${below} or ${below + step}.`;
  }
  return name !== "guidance_scale" && !Number.isInteger(value) ? "Must be a whole number." : "";
}
