// The machine: memory, load, models and the queue. Asked for only while it is looked at.

import * as api from "../api.js";
import { $, h } from "../dom.js";
import { videos } from "../store.js";
import { phase } from "../words.js";

/** @typedef {import("../api.js").Model} Model */

const EVERY_MS = 3000;
const DASHBOARD_PORT = 8265;

class SystemView extends HTMLElement {
  #timer = 0;

  async show() {
    clearTimeout(this.#timer);
    if (this.hidden) return;
    try {
      const [info, health, models] = await Promise.all([api.systemInfo(), api.health(), api.models()]);
      this.#draw(info, health, models);
    } catch (error) {
      if (!this.firstChild) this.append(h("p", { class: "note" }, /** @type {Error} */ (error).message));
    }
    this.#timer = window.setTimeout(() => this.show(), EVERY_MS);
  }

  /**
   * @param {any} info
   * @param {api.Health} health
   * @param {Model[]} models
   */
  #draw(info, health, models) {
    // The links keep their place, so that the focus does not get lost every few seconds.
    if (!this.firstChild) {
      const links = h("p", { class: "links" }, ...elsewhere());
      const where = "Ray's dashboard is open on the service's own machine only, and asks for the token that ";
      const token = h("p", { class: "hint" }, where, h("code", {}, "ray get-auth-token"), " prints there.");
      this.append(
        h("div", { class: "heading" }, h("h2", {}, "System")),
        h("div", { class: "live" }),
        section("Elsewhere", links, token),
      );
      if (api.hasKey())
        this.append(
          section(
            "API key",
            h("p", {}, h("button", { type: "button", onclick: forgetKey }, "Forget the key")),
          ),
        );
    }
    const busy =
      health.jobs_queued + health.jobs_running
        ? `${health.jobs_running} in the making, ${health.jobs_queued} waiting.`
        : "Nothing to do.";
    $(this, ".live").replaceChildren(
      h("p", { class: `health ${health.status}` }, `${health.message}.`),
      section("Machine", h("div", { class: "meters" }, ...meters(info))),
      section("Models", ...models.map((model) => described(model, info.replicas))),
      section("Queue", h("p", {}, busy), h("ol", { class: "queue" }, ...videos.unfinished.map(waiting))),
    );
  }
}

/** @param {any} info */
function meters(info) {
  const used = info.ram_total_gb - info.ram_available_gb;
  const gpus = info.gpus.flatMap((/** @type {any} */ gpu) => [
    meter(`GPU ${gpu.index}: ${gpu.name}`, gpu.used_vram_gb, gpu.total_vram_gb, "GB"),
    ...(gpu.load_percent === null ? [] : [meter(`GPU ${gpu.index}, load`, gpu.load_percent, 100, "%")]),
  ]);
  return [
    ...(gpus.length ? gpus : [h("p", { class: "hint" }, "No GPU: the models run on the CPU.")]),
    meter("Memory", used, info.ram_total_gb, "GB"),
    meter("CPU", info.cpu_percent, 100, "%"),
  ];
}

/**
 * @param {string} name
 * @param {number} value
 * @param {number} most
 * @param {string} unit
 */
function meter(name, value, most, unit) {
  const figures =
    unit === "%" ? `${Math.round(value)} %` : `${value.toFixed(1)} of ${most.toFixed(1)} ${unit}`;
  const bar = h("meter", { min: 0, max: most, value, "aria-label": `${name}: ${figures}` });
  return h("div", { class: "meter" }, h("span", {}, name), h("span", { class: "figures" }, figures), bar);
}

/**
 * @param {Model} model
 * @param {any[]} replicas
 */
function described(model, replicas) {
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
  return h(
    "article",
    { class: model.state },
    h("h4", {}, model.id),
    h("dl", {}, ...told.flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)])),
  );
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

/** @param {api.Video} video */
const waiting = (video) =>
  h(
    "li",
    {},
    h("a", { href: `#/videos/${video.id}` }, video.prompt),
    h("span", { class: "hint" }, `${phase(video)}, ${video.progress} %`),
  );

/**
 * @param {string} title
 * @param {...Node} children
 */
const section = (title, ...children) => h("section", {}, h("h3", {}, title), ...children);

async function forgetKey() {
  await api.signOut();
  location.reload();
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
