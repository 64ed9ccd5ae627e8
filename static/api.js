// The only file that talks to the server. Every failure is an ApiError with a sentence for people.

import { keep, kept } from "./dom.js";

/**
 * @typedef {{minimum: number, maximum: number, multiple_of: number | null}} Range
 * @typedef {{id: string, state: string, reason: string, checkpoint: string, bundled: boolean,
 *   licence: string, limits: Record<string, any>, defaults: Record<string, any>,
 *   videos: {limits: Record<string, Range>}, example_prompts: string[],
 *   loras: {name: string, problem: string}[]}} Model
 * @typedef {"queued" | "in_progress" | "completed" | "failed"} Status
 * @typedef {{id: string, model: string, status: Status, phase: string, progress: number,
 *   step: number, num_steps: number, queue_position: number, created_at: number,
 *   started_at: number | null, completed_at: number | null, expires_at: number | null,
 *   prompt: string, width: number, height: number, num_frames: number, fps: number,
 *   seconds: string, seed: number, checkpoint: string | null, generated_width: number | null,
 *   generated_height: number | null, segments: number | null, routing: string,
 *   remixed_from_video_id: string | null, attempts: number, notices: string[],
 *   negative_prompt: string, num_inference_steps: number | null, guidance_scale: number | null,
 *   quality: string, low_vram: boolean, has_image: boolean,
 *   loras: {name: string, strength: number}[],
 *   error: {code: string, message: string} | null, seconds_left?: number | null,
 *   stalled?: boolean, heartbeat_at?: number | null, pinned?: boolean}} Video
 * @typedef {{id: string, step: number, picture: string}} Preview `picture` is a data URL
 * @typedef {{data: Video[], last_id: string | null, has_more: boolean, last_event_id: string}} Page
 * @typedef {{models: {state: string}[], seconds_until_start: number | null,
 *   seconds_to_make: number | null, peak_gb: number | null, available_gb: number | null,
 *   fits: boolean | null, nearest: {low_vram: boolean, num_frames: number | null,
 *   size: {width: number, height: number} | null, message: string} | null}} Estimate
 * @typedef {{status: string, message: string, jobs_queued: number, jobs_running: number,
 *   models: Record<string, {state: string}>}} Health
 */

const KEYED = "studio.keyed";
const PATIENCE_MS = 20_000;
/** How long the same request is taken for a repetition of one that was not answered. */
const REPEAT_MS = 300_000;
const RETRY_FIRST_MS = 1000;
const RETRY_LAST_MS = 10_000;

export class ApiError extends Error {
  /**
   * @param {string} message
   * @param {number} status 0 when the server did not answer at all
   * @param {string} field the field that it is about, or ""
   */
  constructor(message, status, field = "") {
    super(message);
    this.status = status;
    this.field = field;
  }
}

/** Tells, as `needed`, that the server wants an API key. */
export const door = new EventTarget();
/** When the key was taken: a request that was sent before lacked it. */
let signedInAt = 0;

/**
 * @param {string} path
 * @param {RequestInit} [options]
 * @returns {Promise<any>}
 */
async function call(path, options) {
  const sentAt = performance.now();
  let response, body;
  try {
    // A picture may take long on its way; a question does not.
    response = await fetch(path, options ?? { signal: AbortSignal.timeout(PATIENCE_MS) });
    if (response.ok && response.headers.get("Content-Type") === "image/png") return await response.blob();
    body = await response.text();
  } catch {
    throw new ApiError("The service does not answer.", 0);
  }
  if (response.status === 204) return null;
  body = parsed(body);
  if (response.ok && body === null) throw new ApiError("Something else answers in place of the service.", 0);
  if (response.ok || (path === "/health" && body?.status)) return body;
  const isLocked = response.status === 401 && path !== "/session" && sentAt >= signedInAt;
  if (isLocked) door.dispatchEvent(new Event("needed"));
  const error = body?.error;
  const message = typeof error === "string" ? error : error?.message;
  const said = message ?? `The service answered with an error (${response.status}).`;
  throw new ApiError(said, response.status, error?.param ?? "");
}

/**
 * @param {string} text
 * @returns {any} null where it is no JSON
 */
function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

/** @param {unknown} body */
const json = (body) => ({
  body: JSON.stringify(body),
  headers: { "Content-Type": "application/json" },
});

/** @param {string} id */
const address = (id) => `/v1/videos/${encodeURIComponent(id)}`;

/** @returns {Promise<Health>} */
export const health = () => call("/health");

/** @returns {Promise<any>} */
export const systemInfo = () => call("/system-info");

/** @returns {Promise<Model[]>} */
export const models = async () => (await call("/v1/models")).data;

/**
 * @param {Record<string, string | number>} query empty values are left out
 * @returns {Promise<Page>}
 */
export function list(query) {
  const given = Object.entries(query).filter(([, value]) => value !== "");
  return call(`/v1/videos?${new URLSearchParams(given.map(([name, value]) => [name, String(value)]))}`);
}

/**
 * @param {string} id
 * @returns {Promise<Video>}
 */
export const video = (id) => call(address(id));

/**
 * Keys of requests whose answer has not come: what was asked for, to its key and when it was made.
 * @type {Map<string, {key: string, at: number}>}
 */
const unanswered = new Map();

/**
 * Ask for a video once: the same request, repeated before it was answered or because the answer was
 * lost, is the same video.
 * @param {string} path
 * @param {string} wanted what is asked for, as text
 * @param {RequestInit} options
 * @returns {Promise<Video>}
 */
async function begin(path, wanted, options) {
  const request = `${path} ${wanted}`;
  const before = unanswered.get(request);
  const isRepeat = before && performance.now() - before.at < REPEAT_MS;
  const key = isRepeat ? before.key : crypto.getRandomValues(new Uint32Array(4)).join("-");
  unanswered.set(request, { key, at: performance.now() });
  const headers = { ...options.headers, "Idempotency-Key": key };
  try {
    const made = await call(path, { ...options, method: "POST", headers });
    unanswered.delete(request);
    return made;
  } catch (error) {
    // What a proxy says for the service, which may have taken it, is no answer.
    const isAnswer = error instanceof ApiError && error.status >= 400 && error.status < 500;
    if (isAnswer) unanswered.delete(request);
    throw error;
  }
}

/**
 * Begin a video; does not wait for it.
 * @param {FormData} form
 * @returns {Promise<Video>}
 */
export function create(form) {
  const fields = [...form].map(([name, value]) => [name, value instanceof Blob ? value.size : value]);
  return begin("/v1/videos", JSON.stringify(fields), { body: form });
}

/**
 * What such a video would take; nothing is made.
 * @param {FormData} form
 * @returns {Promise<Estimate>}
 */
export const estimate = (form) => call("/v1/videos/estimate", { method: "POST", body: form });

/**
 * Make a finished video again with another prompt, or with its own.
 * @param {string} id
 * @param {string} prompt
 * @returns {Promise<Video>}
 */
export const remix = (id, prompt) =>
  begin(`${address(id)}/remix`, prompt, json({ prompt, lawful_use_consent: true }));

/**
 * Also sent when the page is being left.
 * @param {string} id
 * @returns {Promise<Video>}
 */
export const cancel = (id) => call(`${address(id)}/cancel`, { method: "POST", keepalive: true });

/**
 * Remove a video with its files. Also sent when the page is being left.
 * @param {string} id
 */
export const remove = (id) => call(address(id), { method: "DELETE", keepalive: true });

/**
 * @param {string} id
 * @param {boolean} pinned
 */
export const pin = (id, pinned) => call(`${address(id)}/pin`, { method: pinned ? "PUT" : "DELETE" });

/**
 * Exchange a key for a session cookie.
 * @param {string} key
 */
export async function signIn(key) {
  await call("/session", { method: "POST", ...json({ key }) });
  signedInAt = performance.now();
  keep(KEYED, true);
}

/** Have the browser forget the cookie. */
export async function signOut() {
  await call("/session", { method: "DELETE" });
  keep(KEYED, false);
}

/** Whether this browser has given a key. */
export const hasKey = () => kept(KEYED) === true;

/**
 * @param {string} id
 * @param {"video" | "thumbnail" | "picture"} variant
 */
export const contentUrl = (id, variant) => `${address(id)}/content?variant=${variant}`;

/**
 * The picture that a finished video began with.
 * @param {string} id
 * @returns {Promise<File>}
 */
export async function picture(id) {
  return new File([await call(contentUrl(id, "picture"), {})], "picture.png", { type: "image/png" });
}

/**
 * The one stream of what happens to videos. Fires `video` (detail: the video), `deleted` (detail:
 * its id), `preview` (detail: the preview) and `state` (detail: "open" or "away"). Comes back by
 * itself, and from where it was.
 */
export class Feed extends EventTarget {
  /** @type {EventSource | null} */
  #source = null;
  #last = "";
  #tries = 0;

  /** @param {string} [after] go on from there, as a list says; else from where it was */
  open(after) {
    this.#last = after || this.#last;
    this.#source?.close();
    const from = this.#last && `?after=${encodeURIComponent(this.#last)}`;
    const source = new EventSource(`/v1/events${from}`);
    this.#source = source;
    source.addEventListener("open", () => {
      this.#tries = 0;
      this.#tell("state", "open");
    });
    for (const type of /** @type {const} */ (["video", "deleted", "preview"]))
      source.addEventListener(type, (event) => this.#take(type, event));
    source.addEventListener("error", () => this.#lost(source));
  }

  get closed() {
    return this.#source === null;
  }

  close() {
    this.#source?.close();
    this.#source = null;
  }

  /**
   * @param {"video" | "deleted" | "preview"} type
   * @param {MessageEvent} event
   */
  #take(type, event) {
    this.#last = event.lastEventId || this.#last;
    const data = JSON.parse(event.data);
    this.#tell(type, type === "deleted" ? data.id : data);
  }

  /** @param {EventSource} source */
  #lost(source) {
    this.#tell("state", "away");
    // A broken connection the browser mends itself; an answer other than a stream ends it.
    if (source.readyState !== EventSource.CLOSED) return;
    const pause = Math.min(RETRY_FIRST_MS * 2 ** this.#tries, RETRY_LAST_MS);
    this.#tries += 1;
    setTimeout(() => this.#reopen(source), pause);
  }

  /**
   * A stream does not say why it was refused; where a key is wanted, a list does.
   * @param {EventSource} source
   */
  async #reopen(source) {
    if (source === this.#source) await list({ limit: 1 }).catch(() => {});
    if (source === this.#source) this.open();
  }

  /**
   * @param {string} type
   * @param {unknown} detail
   */
  #tell(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}
