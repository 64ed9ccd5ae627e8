// The composer: gathers the recipe, says beside each field what is wrong, and sends it.

import * as api from "../api.js";
import { $, keep, kept, setText } from "../dom.js";
import * as drafts from "../drafts.js";
import { FieldErrors } from "../field-errors.js";
import { FIELDS, toForm } from "../recipe.js";
import { NUMBERS, candidates, characters, meaning, problems, qualityOf, range, whyNot } from "../settings.js";
import { videos } from "../store.js";

/**
 * @typedef {import("../api.js").Model} Model
 * @typedef {import("../recipe.js").Recipe} Recipe
 */

const STORE = "studio.settings";
const CONSENT = "lawful_use_consent";
const FILLED_IN = ["width", "height", "num_frames", "fps"];
const DEFAULTED = ["num_inference_steps", "guidance_scale"];
const MODELS_OWN = ["model", "quality", "loras", ...DEFAULTED];
/** What the server calls differently. @type {Record<string, string>} */
const SERVER_NAMES = {
  input_reference: "picture",
  size: "width",
  seconds: "num_frames",
  prefer_backend: "model",
};

class VideoComposer extends HTMLElement {
  /** @type {Model[]} */
  #models = [];
  #errors = new FieldErrors(this);
  #ahead = 0;
  #sending = false;

  connectedCallback() {
    const form = $(this, "form");
    form.addEventListener("input", () => this.#changed());
    form.addEventListener("change", (/** @type {Event} */ event) =>
      this.#left(/** @type {any} */ (event.target)),
    );
    form.addEventListener("submit", (/** @type {Event} */ event) => {
      event.preventDefault();
      this.submit();
    });
    this.addEventListener("fitting", (event) => this.fill(/** @type {CustomEvent} */ (event).detail));
    $(this, "#draft").addEventListener("click", () => this.draft());
    $(this, "#unfold").addEventListener("click", () => this.unfold(!this.classList.contains("unfolded")));
    this.fill(kept(STORE) ?? {});
  }

  /** @param {Model[]} models */
  setModels(models) {
    this.#models = models;
    for (const name of FILLED_IN) {
      if ($(this, `#${name}`).value === "") $(this, `#${name}`).value = String(models[0].defaults[name]);
    }
    $(this, "picture-field").hidden = !models.some((model) => model.limits.accepts_image);
    for (const option of $(this, "#quality").options) {
      option.hidden = option.disabled = !models.some((model) => qualityOf(model, option.value));
    }
    const qualities = [...$(this, "#quality").options].filter((option) => !option.disabled);
    $(this, "#quality-field").hidden = qualities.length < 2;
    $(this, "model-field").setModels(models);
    this.#changed();
    this.dispatchEvent(new Event("known"));
  }

  /**
   * How many videos are before the next one.
   * @param {number} ahead
   */
  setQueue(ahead) {
    this.#ahead = ahead;
    if (this.#models.length) this.#showOutlook(this.#problems());
  }

  /** @returns {Recipe} */
  get recipe() {
    const pairs = FIELDS.map((name) => [
      name,
      name === "model" ? $(this, "model-field").value : $(this, `#${name}`).value,
    ]);
    const recipe = Object.fromEntries(pairs);
    if (!$(this, "#low_vram").checked) recipe.low_vram = "";
    if ($(this, "#quality-field").hidden) recipe.quality = "";
    return recipe;
  }

  /**
   * Fill in what is known of a recipe; the rest stays.
   * @param {Recipe} recipe
   */
  fill(recipe) {
    // Another version of this page may have kept something else.
    for (const name of FIELDS.filter((field) => typeof recipe[field] === "string")) {
      if (name === "model") $(this, "model-field").value = recipe.model;
      else if (name === "low_vram") $(this, "#low_vram").checked = recipe.low_vram === "true";
      else $(this, `#${name}`).value = recipe[name];
    }
    if ($(this, "#quality").selectedIndex < 0) $(this, "#quality").selectedIndex = 0;
    $(this, "length-field").reset();
    $(this, "seed-field").show();
    if (this.#models.length) this.#changed();
  }

  /**
   * Put a whole recipe in the place of what is there.
   * @param {Recipe} recipe
   * @param {File} [picture]
   */
  async replace(recipe, picture) {
    const model = this.#models.find((one) => one.id === recipe.model);
    // The numbers of a model that takes no picture are not for the one that does.
    const foreign = picture && model && !model.limits.accepts_image ? MODELS_OWN : [];
    const whole = FIELDS.map((name) => [name, foreign.includes(name) ? "" : (recipe[name] ?? "")]);
    this.fill(Object.fromEntries(whole));
    if (picture) await $(this, "picture-field").take(picture);
    else $(this, "picture-field").clear();
  }

  /** Bring the composer to the front, with the prompt ready to be typed. */
  focusPrompt() {
    $(this, "#prompt").focus();
    $(this, "#prompt").select();
  }

  /** @param {boolean} open on a phone: whether the settings are shown */
  unfold(open) {
    this.classList.toggle("unfolded", open);
    $(this, "#unfold").setAttribute("aria-expanded", String(open));
  }

  /** Begin the video; `made` tells that the server has taken it. */
  submit() {
    return this.#send(async () => {
      const recipe = this.recipe;
      const form = toForm(recipe, await $(this, "picture-field").blob());
      await videos.ask(() => api.create(form));
      this.dispatchEvent(new Event("made"));
    });
  }

  /** Begin four drafts; `drafted` tells their set. */
  draft() {
    return this.#send(async () => {
      const recipe = this.recipe;
      const [model] = candidates(this.#models, recipe, $(this, "picture-field").filled);
      const set = await drafts.begin(recipe, await $(this, "picture-field").blob(), model);
      this.dispatchEvent(new CustomEvent("drafted", { detail: set.id }));
    });
  }

  /** @param {() => Promise<void>} begin */
  async #send(begin) {
    if (this.#sending) return;
    this.#busy(true);
    setText($(this, "#form-error"), "");
    try {
      await this.#known();
      if (!this.#check()) return;
      await begin();
      $(this, "consent-field").settle();
      this.unfold(false);
    } catch (error) {
      this.#refuse(error);
    } finally {
      this.#busy(false);
    }
  }

  /** Who presses the button before the models are known waits for them. */
  async #known() {
    if (this.#models.length) return;
    setText($(this, "#outlook"), "Waiting for the service to say what it can make.");
    await new Promise((known) => this.addEventListener("known", known, { once: true }));
  }

  /** @returns {Map<string, string>} */
  #problems() {
    const unreadable = NUMBERS.filter((name) => $(this, `#${name}`).validity.badInput);
    return problems(this.#models, this.recipe, {
      hasPicture: $(this, "picture-field").filled,
      consent: $(this, "consent-field").given,
      unreadable,
    });
  }

  #changed() {
    if (!this.#models.length) return;
    const recipe = this.recipe;
    keep(STORE, recipe);
    this.#applyLimits(recipe);
    const found = this.#problems();
    this.#errors.refresh(found);
    setText($(this, "#form-error"), "");
    this.#showOutlook(found);
  }

  /** @param {Recipe} recipe */
  #applyLimits(recipe) {
    const hasPicture = $(this, "picture-field").filled;
    const able = candidates(this.#models, recipe, hasPicture);
    for (const name of NUMBERS.filter((one) => one !== "seed")) {
      const { minimum, maximum, multiple_of: step } = range(able, name);
      const own = DEFAULTED.includes(name) ? `, empty for ${able[0].defaults[name]}` : "";
      setText($(this, `#${name}-hint`), `${minimum} to ${maximum}${step ? ` by ${step}` : ""}${own}`);
      const input = $(this, `#${name}`);
      [input.min, input.max] = [minimum, maximum];
      if (step) input.step = step;
    }
    const [width, height, area] = ["width", "height"]
      .map((name) => range(able, name))
      .concat(able[0].videos.limits.area);
    $(this, "size-field").setLimits({ width, height, area });
    $(this, "length-field").setLimits(range(able, "num_frames").maximum);
    $(this, "seed-field").setLimits(range(able, "seed").maximum);
    $(this, "lora-field").setModels(
      this.#models.filter((model) => !recipe.model || model.id === recipe.model),
    );
    $(this, "picture-field").showCrop($(this, "size-field").size);
    $(this, "model-field").setReasons(
      new Map(this.#models.map((model) => [model.id, whyNot(model, recipe, hasPicture)])),
    );
    setText($(this, "#quality-hint"), meaning(able, recipe.quality || "exact"));
    setText($(this, "#prompt-count"), `${characters(recipe.prompt)} / ${range(able, "prompt").maximum}`);
  }

  /** What it would take, and why it cannot be sent. @param {Map<string, string>} found */
  #showOutlook(found) {
    const [first] = found;
    for (const id of ["#make", "#draft"])
      $(this, id).setAttribute("aria-disabled", String(first !== undefined));
    setText($(this, "#outlook"), first ? this.#named(...first) : "");
    if (first?.[0] === CONSENT) $(this, "consent-field").ask();
    // Whether somebody agreed, and to which words, makes no difference to the machine.
    const blocked = [...found.keys()].some((field) => field !== "prompt" && field !== CONSENT);
    if (blocked) $(this, "live-estimate").clear();
    else $(this, "live-estimate").ask(this.recipe, $(this, "picture-field").filled, this.#ahead);
  }

  /**
   * @param {string} field
   * @param {string} sentence
   */
  #named(field, sentence) {
    if (!NUMBERS.includes(field)) return field === CONSENT ? "Agree to lawful use first." : sentence;
    return `${$(this, `label[for="${field}"]`).textContent}: ${sentence}`;
  }

  /** Check everything; returns whether it may be sent, and moves to the first fault. */
  #check() {
    const found = this.#problems();
    for (const [field, sentence] of found) this.#errors.say(field, sentence);
    const [first] = found.keys();
    if (!first) return true;
    this.#goTo(first);
    return false;
  }

  /** @param {HTMLInputElement} input a field that was just left with something in it */
  #left(input) {
    const sentence = this.#models.length ? this.#problems().get(input.id) : undefined;
    if (sentence && input.value !== "") this.#errors.say(input.id, sentence);
  }

  /** @param {string} field */
  #goTo(field) {
    const input = $(this, `#${field}`);
    if ($(this, "#settings").contains(input)) this.unfold(true);
    if ($(this, "#more").contains(input)) $(this, "#more").open = true;
    input.focus();
  }

  /** @param {unknown} error */
  #refuse(error) {
    const { message, field: named } =
      error instanceof api.ApiError ? error : { message: String(error), field: "" };
    const field = SERVER_NAMES[named] ?? named;
    if (!this.#errors.has(field)) return setText($(this, "#form-error"), message);
    this.#errors.say(field, message.startsWith(`${named}: `) ? message.slice(named.length + 2) : message);
    this.#goTo(field);
  }

  /** @param {boolean} busy */
  #busy(busy) {
    this.#sending = busy;
    setText($(this, "#make"), busy ? "Sending …" : "Make video");
  }
}

customElements.define("video-composer", VideoComposer);
