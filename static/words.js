// What stands in figures on the wire, in words.

import { loraText } from "./recipe.js";

/** @typedef {import("./api.js").Video} Video */

/** @type {Record<string, string>} */
const PHASES = {
  queued: "Waiting for a free model",
  loading: "Loading the model",
  text: "Reading the prompt",
  denoise: "Drawing",
  decode: "Turning the drawing into frames",
  encode: "Writing the video file",
  saved: "Done",
};

/**
 * A time in words: "9 s", "1 min 20 s", "2 h 5 min".
 * @param {number} seconds
 */
export function inWords(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
}

/**
 * How long ago, in words: "just now", "5 min ago", or the day.
 * @param {number} unix seconds
 */
export function ago(unix) {
  const seconds = Date.now() / 1000 - unix;
  if (seconds < 60) return "just now";
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 86_400) return `${Math.floor(seconds / 3600)} h ago`;
  return new Date(unix * 1000).toLocaleDateString(undefined, {
    day: "numeric",
    month: "short",
    year: "numeric",
  });
}

/**
 * The beginning of a text, for where it is only to be recognised.
 * @param {string} text
 * @param {number} most letters
 */
export function shortened(text, most) {
  const letters = [...text];
  return letters.length > most ? `${letters.slice(0, most).join("")}…` : text;
}

/** @param {Video} video */
export function phase(video) {
  if (video.status !== "queued" || !video.queue_position) return PHASES[video.phase] ?? video.phase;
  if (video.queue_position === 1) return "Next in the queue";
  return `Number ${video.queue_position} in the queue`;
}

/**
 * What is still to come: steps, time, and whether it is still alive.
 * @param {Video} video
 * @param {number} heardAt performance.now() of the last word about it
 */
export function outlook(video, heardAt) {
  const parts = [];
  if (video.step && video.num_steps) parts.push(`step ${video.step} of ${video.num_steps}`);
  if (video.stalled) {
    const silent = video.heartbeat_at ? ` for ${inWords(Date.now() / 1000 - video.heartbeat_at)}` : "";
    parts.push(`no sign of life${silent}`);
  } else if (typeof video.seconds_left === "number") {
    const left = video.seconds_left - (performance.now() - heardAt) / 1000;
    parts.push(left < 1 ? "nearly done" : `about ${inWords(left)} left`);
  }
  return parts.join(" · ");
}

/** @param {Video} video */
export function shortFacts(video) {
  return `${video.width} × ${video.height} · ${Number(video.seconds).toFixed(1)} s · ${video.model}`;
}

/** @param {Video} video */
export const failure = (video) =>
  video.error?.code === "cancelled" ? "Cancelled." : (video.error?.message ?? "It failed.");

/**
 * The whole recipe, as pairs of name and value.
 * @param {Video} video
 * @returns {[string, string][]}
 */
export function facts(video) {
  const { generated_width: width, generated_height: height } = video;
  const drawn = width && height ? `${width} × ${height}` : "";
  const scaled = drawn && (Number(width) < video.width || Number(height) < video.height);
  const pieces = (video.segments ?? 1) > 1 ? `, in ${video.segments} segments` : "";
  const ended = video.completed_at;
  /** @type {[string, string][]} */
  const all = [
    ["Not to show", video.negative_prompt],
    ["Seed", String(video.seed)],
    ["Size", `${video.width} × ${video.height}`],
    ["Drawn at", scaled ? `${drawn}, then scaled up` : ""],
    ["Length", `${video.seconds} s, ${video.num_frames} frames at ${video.fps} a second${pieces}`],
    ["Begins with", video.has_image ? "a picture" : ""],
    ["Steps", String(video.num_steps || video.num_inference_steps || "")],
    ["Guidance", String(video.guidance_scale ?? "")],
    ["Quality", video.quality],
    ["GPU memory", video.low_vram ? "as little as possible" : ""],
    ["LoRA", loraText(video.loras ?? [])],
    ["Model", video.checkpoint ? `${video.model} (${video.checkpoint})` : video.model],
    ["Why this model", video.routing],
    [
      "Made in",
      ended && video.status === "completed" ? inWords(ended - (video.started_at ?? video.created_at)) : "",
    ],
    ["Started", new Date(video.created_at * 1000).toLocaleString()],
    ["Attempts", video.attempts > 1 ? String(video.attempts) : ""],
    ["Kept until", video.expires_at ? new Date(video.expires_at * 1000).toLocaleString() : ""],
    ["ID", video.id],
  ];
  return all.filter(([, value]) => value);
}
