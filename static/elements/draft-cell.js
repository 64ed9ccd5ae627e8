// One draft of a set: how far it is, and how far its video in full.

import { $, h, setText } from "../dom.js";
import { showPreview } from "../preview.js";
import { videos } from "../store.js";
import { failure, phase } from "../words.js";

/**
 * @typedef {import("../api.js").Video} Video
 * @typedef {import("../drafts.js").DraftSet} DraftSet
 * @typedef {import("../drafts.js").Draft} Draft
 */

export const GONE = "No longer there";

/**
 * @param {DraftSet} set
 * @param {string} seed
 * @param {(button: HTMLButtonElement) => void} pick
 * @returns {HTMLElement}
 */
export function makeCell(set, seed, pick) {
  const state = h("span", { class: "state" });
  const well = h("a", { class: "well" }, h("span", { class: "unseen" }, `Draft with seed ${seed}`), state);
  well.style.aspectRatio = `${set.recipe.width} / ${set.recipe.height}`;
  const button = h("button", { type: "button", class: "pick", onclick: () => pick(button) }, "Make in full");
  return h(
    "li",
    { "data-seed": seed },
    well,
    h("p", { class: "hint" }, `Seed ${seed}`),
    h("div", { class: "buttons" }, button, h("a", { class: "full" })),
    h("p", { class: "hint why" }),
  );
}

/**
 * @param {Element} cell
 * @param {Draft} draft
 * @param {Map<string, string>} absent why videos are not known: id to a sentence
 */
export function showCell(cell, draft, absent) {
  const video = videos.get(draft.draft);
  const well = $(cell, ".well");
  well.href = `#/videos/${draft.draft}`;
  showPreview(well, draft.draft);
  const done = video?.status === "completed";
  if (!done) setText($(well, ".state"), video ? stateOf(video) : (absent.get(draft.draft) ?? ""));
  const why = whyNotFull(draft, absent);
  const [pick, full] = [$(cell, ".pick"), $(cell, ".full")];
  const held = [pick, full].includes(document.activeElement);
  full.hidden = draft.full === "" || why !== "";
  pick.hidden = !full.hidden || !done;
  full.href = `#/videos/${draft.full}`;
  setText(full, fullText(videos.get(draft.full)));
  setText($(cell, ".why"), why);
  cell.classList.toggle("chosen", !full.hidden);
  // One takes the place of the other, and the focus with it.
  if (held) [pick, full, well].find((one) => !one.hidden).focus();
}

/** @param {Video} video */
function stateOf(video) {
  if (video.status === "failed") return failure(video);
  return video.status === "queued" ? phase(video) : `${video.progress} %`;
}

/**
 * Why the draft that was chosen is not to be had in full any more; else "".
 * @param {Draft} draft
 * @param {Map<string, string>} absent
 */
function whyNotFull({ full }, absent) {
  const made = videos.get(full);
  if (made?.status === "failed") return `Not made in full: ${failure(made)}`;
  return absent.get(full) === GONE ? "The full video is no longer there." : "";
}

/** @param {Video | undefined} video as far as it is known */
function fullText(video) {
  if (!video) return "In full";
  return video.status === "completed" ? "Watch it in full" : `In full: ${stateOf(video)}`;
}
