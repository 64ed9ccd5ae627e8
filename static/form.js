// The form: its limits come from the models, its errors stand beside the fields.

import { element, made } from "./dom.js";
import * as image from "./image.js";

/** @typedef {import("./api.js").Model} Model */

const STORE = "composer";
const NUMBERS = ["width", "height", "num_frames", "fps", "seed", "num_inference_steps", "guidance_scale"];
const OPTIONAL = ["num_inference_steps", "guidance_scale"];
const TEXTS = ["prompt", "negative_prompt"];
const FIELDS = [...TEXTS, ...NUMBERS, "prefer_backend", "quality", "low_vram", "image", "lawful_use_consent"];
// Kept from visit to visit; consent is asked for each time.
const KEPT = FIELDS.filter((name) => name !== "image" && name !== "lawful_use_consent");
const DEMO_EXAMPLES = [
  "a red ball moving right over the sea at sunset",
  "a yellow triangle bouncing on a black background",
  "a white square moving up in front of mountains at night",
];
const EXAMPLES = [
  "A serene lake at sunset with mountains in the background",
  "A cat playing with a ball of yarn, close-up, soft window light",
  "Waves rolling onto a rocky shore, slow motion, overcast sky",
];

const form = element("composer");
/** @type {Model[]} */
let models = [];

/**
 * Build the form from what the models can do.
 * @param {Model[]} found
 */
export function setModels(found) {
  models = found;
  const select = element("prefer_backend");
  const chosen = select.value;
  select.replaceChildren(made("option", "Any"), ...found.map((model) => made("option", model.id)));
  select.options[0].value = "";
  select.value = found.some((model) => model.id === chosen) ? chosen : "";
  showExamples(found[0]);
  applyLimits();
  for (const name of ["width", "height", "num_frames", "fps"]) {
    if (element(name).value === "") element(name).value = String(found[0].defaults[name]);
  }
  restore();
  showLength();
  image.showCrop();
}

/** @param {Model} model */
function showExamples(model) {
  const own = model.example_prompts.length ? model.example_prompts : DEMO_EXAMPLES;
  const prompts = (model.bundled ? own : model.example_prompts.length ? own : EXAMPLES).slice(0, 3);
  const buttons = prompts.map((prompt) => {
    const button = made("button", prompt);
    button.setAttribute("type", "button");
    button.addEventListener("click", () => {
      element("prompt").value = prompt;
      changed();
      element("prompt").focus();
    });
    return button;
  });
  element("examples").replaceChildren(...buttons);
  element("examples").hidden = false;
}

/** The models that may get the request. */
function eligible() {
  const chosen = element("prefer_backend").value;
  const named = models.filter((model) => !chosen || model.id === chosen);
  const able = named.filter((model) => !image.chosen() || model.limits.accepts_image);
  return able.length ? able : named;
}

function applyLimits() {
  const able = eligible();
  for (const name of NUMBERS) {
    const ranges = able.map((model) => model.limits[name]);
    const input = element(name);
    input.min = Math.min(...ranges.map((range) => range.minimum));
    input.max = Math.max(...ranges.map((range) => range.maximum));
    input.step = name === "guidance_scale" ? "any" : (ranges[0].multiple_of ?? 1);
    const own = OPTIONAL.includes(name) ? `, empty for ${able[0].defaults[name]}` : "";
    const step = ranges[0].multiple_of ? `, in steps of ${ranges[0].multiple_of}` : "";
    if (name !== "seed") element(`${name}-hint`).textContent = `${input.min} to ${input.max}${step}${own}`;
  }
  const takers = models.filter((model) => model.limits.accepts_image);
  element("image-field").hidden = takers.length === 0;
  if (takers.length) {
    const names = takers.map((model) => model.id).join(" or ");
    const most = `${takers[0].limits.max_upload_mb} MiB and ${takers[0].limits.max_image_megapixels} megapixels`;
    element("image-hint").textContent = `Choose or drop a JPEG, PNG or WebP, at most ${most}. Made by ${names}.`;
  }
  element("quality-field").hidden = !able.some((model) => model.limits.draft);
}

function showLength() {
  const seconds = Number(element("num_frames").value) / Number(element("fps").value);
  const known = Number.isFinite(seconds) && seconds > 0;
  element("length").textContent = known ? `A video of ${seconds.toFixed(1)} seconds.` : "";
  element("prompt-count").textContent = String([...element("prompt").value].length);
}

/**
 * What is wrong with a field, in words; "" when nothing is.
 * @param {string} name
 */
function problem(name) {
  const input = element(name);
  const value = input.value;
  if (name === "prompt") {
    const count = [...value].length;
    if (!value.trim()) return "Describe what the video should show.";
    if (count < 3) return "Write at least 3 characters.";
  }
  if (TEXTS.includes(name) && [...value].length > 1000) return "Write at most 1000 characters.";
  if (NUMBERS.includes(name)) {
    const validity = input.validity;
    if (validity.badInput) return "Write a number.";
    if (validity.valueMissing) return `Write a number from ${input.min} to ${input.max}.`;
    if (validity.rangeUnderflow || validity.rangeOverflow) return `Must be ${input.min} to ${input.max}.`;
    if (validity.stepMismatch && input.step !== "1") {
      const below = Math.floor(Number(value) / input.step) * input.step;
      return `Must be a multiple of ${input.step}, for example ${below} or ${below + Number(input.step)}.`;
    }
    if (validity.stepMismatch) return "Must be a whole number.";
  }
  const file = name === "image" ? image.chosen() : null;
  if (file) {
    const taker = eligible().find((model) => model.limits.accepts_image);
    if (!taker) return `${element("prefer_backend").value} makes videos from text only. Remove it or choose another model.`;
    if (file.size > taker.limits.max_upload_mb * 2 ** 20) return `Larger than ${taker.limits.max_upload_mb} MiB.`;
  }
  if (name === "lawful_use_consent" && !input.checked) return "Agree to this first.";
  return "";
}

/**
 * Show `message` beside the field, or above the button when there is no such field.
 * @param {string} name
 * @param {string} message
 */
export function showError(name, message) {
  if (!FIELDS.includes(name)) {
    element("form-error").textContent = message;
    return;
  }
  element(`${name}-error`).textContent = message;
  const input = element(name);
  if (message) input.setAttribute("aria-invalid", "true");
  else input.removeAttribute("aria-invalid");
  if (message && element("more").contains(input)) element("more").open = true;
}

/** Check everything; returns whether it may be sent, and moves to the first fault. */
export function check() {
  showError("", "");
  const faults = FIELDS.filter((name) => {
    const message = problem(name);
    showError(name, message);
    return message;
  });
  if (faults.length) element(faults[0]).focus();
  return faults.length === 0;
}

/** The form as it is sent: what is empty or switched off is left out. */
export function values() {
  const data = new FormData(form);
  for (const [name, value] of [...data]) {
    if (value === "" || (value instanceof File && value.size === 0)) data.delete(name);
  }
  if (element("quality-field").hidden) data.delete("quality");
  return data;
}

/** @param {number} seed */
export function useSeed(seed) {
  element("seed").value = String(seed);
  changed();
  element("seed").focus();
}

function changed() {
  showLength();
  const kept = KEPT.map((name) => [name, name === "low_vram" ? element(name).checked : element(name).value]);
  try {
    localStorage.setItem(STORE, JSON.stringify(Object.fromEntries(kept)));
  } catch {
    // A browser that keeps nothing still makes videos.
  }
}

function restore() {
  let kept = {};
  try {
    kept = JSON.parse(localStorage.getItem(STORE) ?? "{}");
  } catch {
    return;
  }
  for (const [name, value] of Object.entries(kept)) {
    if (!KEPT.includes(name)) continue;
    if (name === "low_vram") element(name).checked = value === true;
    else if (value !== "") element(name).value = String(value);
  }
  if (element("prefer_backend").selectedIndex < 0) element("prefer_backend").value = "";
  applyLimits();
}

form.addEventListener("input", (/** @type {Event} */ event) => {
  const input = /** @type {HTMLInputElement} */ (event.target);
  if (input.name === "prefer_backend" || input.name === "image") applyLimits();
  if (input.name === "prefer_backend") showError("image", "");
  if (input.getAttribute("aria-invalid")) showError(input.name, problem(input.name));
  changed();
});
