// The picture of a video that is still in the making, where its frames will be.

import { h } from "./dom.js";
import { videos } from "./store.js";

/**
 * Show the newest preview of a video in its well, or nothing when there is none. The well keeps its
 * size: nothing moves.
 * @param {Element} well
 * @param {string} id
 */
export function showPreview(well, id) {
  const preview = videos.preview(id);
  let picture = /** @type {HTMLImageElement | null} */ (well.querySelector("img.preview"));
  if (!preview) return picture?.remove();
  if (!picture) {
    picture = /** @type {HTMLImageElement} */ (h("img", { class: "preview" }));
    well.prepend(picture);
  }
  // Set together: the words are about this picture.
  picture.alt = `Preview after step ${preview.step}`;
  picture.src = preview.picture;
}
