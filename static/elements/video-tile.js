// One finished or failed video on the wall: poster, moving picture on hover, and what can be done with it.

import * as api from "../api.js";
import { letGo, movingClip, still } from "../clip.js";
import * as deeds from "../deeds.js";
import { $, fromTemplate, setText } from "../dom.js";
import { drawIcons } from "../icons.js";
import { videos } from "../store.js";
import { failure, shortFacts } from "../words.js";

/** @typedef {import("../api.js").Video} Video */

// Beyond these the picture gets bars, so that a row stays a row.
const NARROWEST = 0.7;
const WIDEST = 2.2;
const FAILED = 4 / 3;

/**
 * @param {Video} video
 * @returns {HTMLElement}
 */
export function makeTile(video) {
  const tile = fromTemplate("tile");
  drawIcons(tile);
  tile.dataset.id = video.id;
  const link = $(tile, "a");
  link.href = `#/videos/${video.id}`;
  const now = () => videos.get(video.id) ?? video;
  $(tile, ".pin").addEventListener("click", () => deeds.pin(now()));
  $(tile, ".delete").addEventListener("click", () => deeds.remove(now()));
  $(tile, ".retry").addEventListener("click", () => deeds.anew(now()));
  $(tile, ".pair").addEventListener("click", () => {
    tile.dispatchEvent(new CustomEvent("pair", { bubbles: true, detail: video.id }));
  });
  tile.addEventListener("pointerenter", (/** @type {PointerEvent} */ event) => {
    // A finger that taps counts as hovering for the styles: the buttons would come under it.
    tile.classList.toggle("pointed", event.pointerType !== "touch");
    if (event.pointerType === "mouse" && !still.matches) play(tile);
  });
  tile.addEventListener("pointerleave", () => {
    tile.classList.remove("pointed");
    stop(tile);
  });
  link.addEventListener("blur", () => stop(tile));
  // Without a poster the room stays, empty.
  $(tile, "img").addEventListener("error", () => ($(tile, "img").hidden = true));
  showTile(tile, video);
  return tile;
}

/**
 * @param {HTMLElement} tile
 * @param {Video} video
 */
export function showTile(tile, video) {
  const done = video.status === "completed";
  const poster = $(tile, "img");
  const source = done ? api.contentUrl(video.id, "thumbnail") : "";
  if (poster.getAttribute("src") !== source) {
    poster.src = source;
    poster.hidden = !done;
  }
  tile.classList.toggle("failed", !done);
  const shape = done ? video.width / video.height : FAILED;
  tile.style.setProperty("--ratio", String(Math.min(WIDEST, Math.max(NARROWEST, shape))));
  tile.classList.toggle("pinned", video.pinned === true);
  setText($(tile, ".reason"), done ? "" : failure(video));
  setText($(tile, ".text"), video.prompt);
  setText($(tile, ".hint"), shortFacts(video));
  $(tile, ".pin").hidden = video.pinned === undefined || !done;
  $(tile, ".pin").setAttribute("aria-pressed", String(video.pinned === true));
  $(tile, ".pair").hidden = !done;
  $(tile, ".retry").hidden = done;
}

/** Let the picture move, muted and in a loop. @param {HTMLElement} tile */
export function play(tile) {
  if (tile.classList.contains("failed") || tile.querySelector("video")) return;
  const clip = movingClip({ id: tile.dataset.id ?? "" });
  $(tile, ".well").append(clip);
  clip.play().catch(() => {});
}

/** @param {HTMLElement} tile */
export function stop(tile) {
  const clip = tile.querySelector("video");
  if (!clip) return;
  clip.remove();
  letGo(clip);
}
