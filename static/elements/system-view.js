// The machine: memory, load, models and the queue. Asked for only while it is looked at.

import * as api from "../api.js";
import { complain } from "../deeds.js";
import { $, arrange, forget, h, section, setText } from "../dom.js";
import { keepPicture } from "../kept-picture.js";
import { videos } from "../store.js";
import { inWords, phase } from "../words.js";

/**
 * @typedef {import("../api.js").Model} Model
 * @typedef {{name: string, value: number, most: number, unit: string}} Figure
 */

const EVERY_MS = 3000;
const DASHBOARD_PORT = 8265;

class SystemView extends HTMLElement {
  #timer = 0;
  #turn = 0;
  /** When the figures came that are shown; 0 before the first. */
  #asOf = 0;

  connectedCallback() {
    document.addEventListener("visibilitychange", () => this.show());
    const where = "Ray's dashboard is open on the service's own machine only, and asks for the token that ";
    const token = h("p", { class: "hint" }, where, h("code", {}, "ray get-auth-token"), " prints there.");
    const forget = h("button", { type: "button", onclick: forgetKey }, "Forget the key");
    const key = section("API key", h("p", {}, forget));
    key.classList.add("key");
    key.hidden = true;
    this.append(
      h("div", { class: "heading" }, h("h2", {}, "System")),
      h("p", { class: "note", hidden: true }),
      h(
        "div",
        { class: "live", hidden: true },
        h("p", { class: "health" }),
        section("Machine", h("p", { class: "hint no-gpu" }), h("div", { class: "meters" })),
        section("Models", h("div", { class: "models" })),
        section("Queue", h("p", { class: "busy" }), h("ol", { class: "queue" })),
      ),
      section("Elsewhere", h("p", { class: "links" }, ...elsewhere()), token),
      key,
    );
  }

  async show() {
    clearTimeout(this.#timer);
    if (this.hidden || document.hidden) return;
    const turn = (this.#turn += 1);
    const all = Promise.all([api.systemInfo(), api.health(), api.models()]);
    const [answer] = await Promise.allSettled([all]);
    // It was shown again meanwhile: that one goes on.
    if (turn !== this.#turn) return;
    this.#timer = window.setTimeout(() => this.show(), EVERY_MS);
    $(this, ".key").hidden = !api.hasKey();
    if (answer.status === "fulfilled") this.#draw(...answer.value);
    this.#tell(answer.status === "rejected" ? answer.reason : null);
  }

  /** @param {unknown} error why there are no new figures; null when there are */
  #tell(error) {
    // A key that is missing is asked for by a dialog of its own.
    const problem = error instanceof api.ApiError && error.status !== 401 ? error.message : "";
    const age = inWords((performance.now() - this.#asOf) / 1000);
    const note = $(this, ".note");
    setText(note, problem && this.#asOf ? `${problem} These figures are from ${age} ago.` : problem);
    note.hidden = problem === "";
  }

  /**
   * @param {any} info
   * @param {api.Health} health
   * @param {Model[]} models
   */
  #draw(info, health, models) {
    $(this, ".health").className = `health ${health.status}`;
    setText($(this, ".health"), `${health.message}.`);
    setText($(this, ".no-gpu"), info.gpus.length ? "" : "No GPU: the models run on the CPU.");
    const figures = figuresOf(info);
    // Two machines may each have a “GPU 0”: its place tells a meter from another.
    const places = figures.map((_, place) => String(place));
    arrange($(this, ".meters"), places, meter).forEach((one, place) => showFigure(one, figures[place]));
    const names = models.map((model) => model.id);
    arrange($(this, ".models"), names, article).forEach((one, place) =>
      showModel(one, models[place], info.replicas),
    );
    const busy = health.jobs_queued + health.jobs_running;
    const count = `${health.jobs_running} in progress, ${health.jobs_queued} waiting.`;
    setText($(this, ".busy"), busy ? count : "Nothing to do.");
    const queue = videos.unfinished;
    const ids = queue.map((video) => video.id);
    arrange($(this, ".queue"), ids, entry).forEach((one, place) => showEntry(one, queue[place]));
    $(this, ".live").hidden = false;
    this.#asOf = performance.now();
  }
}

/**
 * @param {any} info
 * @returns {Figure[]}
 */
function figuresOf(info) {
  const gpus = info.gpus.flatMap((/** @type {any} */ gpu) => {
    const name = `GPU ${gpu.index}`;
    const memory = figure(`${name}: ${gpu.name}`, gpu.used_vram_gb, gpu.total_vram_gb, "GB");
    if (gpu.load_percent === null) return [memory];
    return [memory, figure(`${name}, load`, gpu.load_percent, 100, "%")];
  });
  const used = info.ram_total_gb - info.ram_available_gb;
  return [
    ...gpus,
    figure("Memory", used, info.ram_total_gb, "GB"),
    figure("CPU", info.cpu_percent, 100, "%"),
  ];
}

/**
 * @param {string} name
 * @param {number} value
 * @param {number} most
 * @param {string} unit
 * @returns {Figure}
 */
const figure = (name, value, most, unit) => ({ name, value, most, unit });

const meter = () =>
  h(
    "div",
    { class: "meter" },
    h("span", { class: "name" }),
    h("span", { class: "figures" }),
    h("meter", { min: 0 }),
  );

/**
 * @param {Element} place
 * @param {Figure} figure
 */
function showFigure(place, { name, value, most, unit }) {
  const figures =
    unit === "%" ? `${Math.round(value)} %` : `${value.toFixed(1)} of ${most.toFixed(1)} ${unit}`;
  setText($(place, ".name"), name);
  setText($(place, ".figures"), figures);
  const bar = $(place, "meter");
  bar.max = most;
  bar.value = value;
  bar.setAttribute("aria-label", `${name}: ${figures}`);
}

/** @param {string} name */
const article = (name) => h("article", {}, h("h4", {}, name), h("dl"));

/**
 * @param {Element} place
 * @param {Model} model
 * @param {any[]} replicas
 */
function showModel(place, model, replicas) {
  place.className = model.state;
  const told = facts(model, replicas);
  // Whoever selects a line of it is not disturbed while nothing is new.
  if (!$(place, "dl").isEqualNode(told)) $(place, "dl").replaceWith(told);
}

/**
 * @param {Model} model
 * @param {any[]} replicas
 */
function facts(model, replicas) {
  const mine = replicas.filter((replica) => replica.model === model.id);
  const copies = mine
    .map((replica) => `${replica.device} on ${replica.node}${replica.busy ? ", at work" : ""}`)
    .join("; ");
  const { limits, defaults } = model;
  /** @type {[string, Node | string][]} */
  const pairs = [
    ["State", model.reason && model.state !== "ready" ? `${model.state}: ${model.reason}` : model.state],
    ["Checkpoint", checkpoint(model)],
    ["Runs on", copies],
    [
      "Makes",
      `${limits.accepts_image ? "videos from text or a picture" : "videos from text"}, up to ${limits.num_frames.maximum} frames, ${defaults.num_inference_steps} steps`,
    ],
    ["Licence", model.licence],
  ];
  const told = pairs.filter(([, value]) => value);
  return h("dl", {}, ...told.flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));
}

/** @param {Model} model */
function checkpoint(model) {
  if (!model.bundled) return model.checkpoint;
  const how = h("code", {}, `make weights MODEL=${model.id}`);
  return h(
    "span",
    {},
    `${model.checkpoint}: the small demo one that comes with the service. It knows only a drawn world of balls, squares and triangles. On a GPU, `,
    how,
    " fetches the published one.",
  );
}

/** @param {string} id */
const entry = (id) =>
  h("li", {}, h("a", { class: "text", href: `#/videos/${id}` }), h("span", { class: "hint" }));

/**
 * @param {Element} place
 * @param {api.Video} video
 */
function showEntry(place, video) {
  setText($(place, "a"), video.prompt);
  setText($(place, ".hint"), `${phase(video)}, ${video.progress} %`);
}

/** And what the browser keeps of whoever had it: the next one may be somebody else. */
async function forgetKey() {
  try {
    await videos.flush();
    await api.signOut();
    await keepPicture(null);
    forget();
    location.reload();
  } catch (error) {
    complain(error);
  }
}

function elsewhere() {
  const dashboard = new URL(location.origin);
  dashboard.protocol = "http:"; // Ray speaks nothing else, whatever stands before this service
  dashboard.port = String(DASHBOARD_PORT);
  return [
    h("a", { href: "/docs" }, "API, to try out"),
    h("a", { href: "/redoc" }, "API reference"),
    h("a", { href: dashboard.href, rel: "noreferrer" }, "Ray dashboard"),
  ];
}

customElements.define("system-view", SystemView);
