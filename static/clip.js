// Videos that move by themselves, without sound; and how a video is let go.

import * as api from "./api.js";
import { h } from "./dom.js";

/** Whether one has asked that nothing moves by itself. */
export const still = matchMedia("(prefers-reduced-motion: reduce)");

/**
 * The moving picture of a video: muted, in a loop, and passed over by keys and screen readers.
 * @param {{id: string}} video
 * @param {string} [poster] the address of what it shows before it moves
 * @returns {HTMLVideoElement}
 */
export function movingClip(video, poster) {
  const clip = h("video", {
    src: api.contentUrl(video.id, "video"),
    poster: poster ?? null,
    loop: true,
    playsinline: true,
    "aria-hidden": "true",
    tabindex: "-1",
  });
  clip.muted = true;
  return clip;
}

/**
 * Take away its source: a browser may go on with the download after the element is gone.
 * @param {HTMLVideoElement} clip
 */
export function letGo(clip) {
  clip.removeAttribute("src");
  clip.load();
}
