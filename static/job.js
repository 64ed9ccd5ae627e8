// One video on its way: its progress in words, then the video itself.

import { element, inWords, made } from "./dom.js";

/** @typedef {import("./api.js").Video} Video */

/** @type {Record<string, string>} */
const PHASES = {
  queued: "Waiting for its turn",
  loading: "Loading the model",
  text: "Reading the prompt",
  denoise: "Drawing",
  decode: "Turning the drawing into frames",
  encode: "Writing the video file",
  saved: "Done",
};

/** Show that nothing is there yet. */
export function showNothing() {
  element("invitation").hidden = false;
  element("progress").hidden = true;
  element("result").hidden = true;
  element("outcome").hidden = true;
}

/**
 * Show how the job stands.
 * @param {Video} video
 */
export function show(video) {
  const running = video.status === "queued" || video.status === "in_progress";
  element("invitation").hidden = true;
  element("progress").hidden = !running;
  element("result").hidden = video.status !== "completed";
  element("outcome").hidden = video.status !== "failed";
  if (running) showProgress(video);
  if (video.status === "failed") showFailure(video);
  if (video.status === "completed") showResult(video);
}

/** Say that the server is away; the rest stays as it is. */
export function showAway() {
  setText("phase", "The service does not answer. Trying again …");
}

/** @param {Video} video */
function showProgress(video) {
  const place = video.queue_position;
  const waiting = video.status === "queued" && place > 0;
  setText("phase", waiting ? `${PHASES.queued}: number ${place} in the queue` : (PHASES[video.phase] ?? video.phase));
  element("bar").value = video.progress;
  setText("steps", video.num_steps && video.step ? `step ${video.step} of ${video.num_steps}` : "");
  setText("elapsed", `${inWords(Date.now() / 1000 - video.created_at)} so far`);
  document.title = `${video.progress} % – Video service`;
}

/** @param {Video} video */
function showFailure(video) {
  const cancelled = video.error?.code === "cancelled";
  setText("outcome", cancelled ? "Cancelled." : (video.error?.message ?? "It failed."));
  document.title = "Video service";
}

/** @param {Video} video */
function showResult(video) {
  const player = element("video");
  if (player.getAttribute("src") === video.video_url) return;
  // The numbers reserve the room before the first byte is there.
  player.width = video.width;
  player.height = video.height;
  player.src = video.video_url;
  player.setAttribute("aria-label", video.prompt);
  // A browser may refuse to start by itself, and stops a one-frame clip: the controls are there.
  player.play().catch(() => {});
  element("download").href = video.video_url;
  element("again").dataset.seed = String(video.seed);
  element("facts").replaceChildren(...facts(video).flatMap(([name, text]) => [made("dt", name), made("dd", text)]));
  element("notices").replaceChildren(...video.notices.map((notice) => made("li", notice)));
  document.title = "Done – Video service";
}

/**
 * @param {Video} video
 * @returns {[string, string][]}
 */
function facts(video) {
  const { generated_width: width, generated_height: height } = video;
  const scaled = width && height && (width < video.width || height < video.height);
  /** @type {[string, string][]} */
  const list = [
    ["Prompt", video.prompt],
    ["Seed", String(video.seed)],
    ["Size", `${video.width} × ${video.height}`],
    ["Length", `${video.num_frames} frames, ${video.seconds} s at ${video.fps} a second`],
    ["Model", `${video.model} (${video.checkpoint})`],
    ["Chosen for", video.routing],
    ["Made in", inWords((video.completed_at ?? 0) - video.created_at)],
  ];
  if ((video.segments ?? 1) > 1) list[3][1] += `, in ${video.segments} segments`;
  if (scaled) list.splice(3, 0, ["Drawn at", `${width} × ${height}, then scaled up`]);
  return list;
}

/**
 * Set a text only when it changes, so that it is announced once.
 * @param {string} id
 * @param {string} text
 */
function setText(id, text) {
  if (element(id).textContent !== text) element(id).textContent = text;
}
