// The dialog over the wall, for whatever has an address of its own: one video, or two to compare.

import * as api from "./api.js";
import { bringMessages, openDialog } from "./dialog.js";
import { $, h } from "./dom.js";
import { icon } from "./icons.js";
import { videos } from "./store.js";

/** @typedef {import("./api.js").Video} Video */

const dialog = $(document, "#sheet");
/** What had the focus before, to be given it back. @type {HTMLElement | null} */
let before = null;
/** The address of what is shown. */
let shownAt = "";

/** @param {string} id */
async function known(id) {
  return videos.get(id) ?? videos.ask(() => api.video(id));
}

/**
 * @param {string} id
 * @param {() => string[]} wall the ids on the wall, as it is when one turns to the next
 */
export async function openVideo(id, wall) {
  await Promise.all([known(id), import("./elements/video-detail.js")]);
  if (!location.hash.includes(id)) return; // one has gone elsewhere meanwhile
  const video = await known(id); // it may have gone on meanwhile, or be gone
  const beside = (/** @type {number} */ step) => {
    const ids = wall();
    return ids.includes(id) ? (ids[ids.indexOf(id) + step] ?? "") : "";
  };
  const detail = h("video-detail");
  const turns = [
    turn("left", "The one before", () => beside(-1)),
    turn("right", "The one after", () => beside(1)),
  ];
  show(detail, turns);
  detail.show(video);
  $(dialog, "h2").focus();
}

/**
 * @param {string} one
 * @param {string} other
 */
export async function openPair(one, other) {
  await Promise.all([known(one), known(other), import("./elements/compare-view.js")]);
  if (!location.hash.includes(other)) return;
  const [left, right] = await Promise.all([known(one), known(other)]);
  const view = h("compare-view");
  show(view, []);
  view.show(left, right);
  $(dialog, "h2").focus();
}

/**
 * @param {string} name
 * @param {string} text
 * @param {() => string} beside the id to turn to, "" for none
 */
function turn(name, text, beside) {
  const act = () => beside() && (location.hash = `#/videos/${beside()}`);
  return h(
    "button",
    { type: "button", class: "tool", "data-turn": name, title: text, onclick: act },
    icon(name),
    h("span", { class: "unseen" }, text),
  );
}

/**
 * @param {HTMLElement} content
 * @param {HTMLElement[]} turns
 */
function show(content, turns) {
  const close = h(
    "button",
    { type: "button", class: "tool", onclick: () => dialog.close() },
    icon("close"),
    h("span", { class: "unseen" }, "Close"),
  );
  dialog.replaceChildren(h("div", { class: "sheet-top" }, ...turns, close), content);
  shownAt = location.hash;
  if (dialog.open) return bringMessages();
  before = /** @type {HTMLElement | null} */ (document.activeElement);
  openDialog(dialog);
}

/**
 * Close it, and give the focus back.
 * @param {boolean} [giveBack] false: the focus goes elsewhere
 */
export function closeSheet(giveBack = true) {
  if (!giveBack) before = null;
  if (dialog.open) dialog.close();
}

dialog.addEventListener("close", () => {
  // The event comes late: something else may be open by now.
  if (dialog.open) return;
  dialog.replaceChildren();
  bringMessages();
  if (before?.isConnected && before !== document.body) before.focus();
  else if (before) dialog.dispatchEvent(new Event("orphaned"));
  if (location.hash === shownAt) dialog.dispatchEvent(new Event("left"));
});

/** Whether the button went down beside the sheet: a selection may end there that began inside. */
let pressedBeside = false;
dialog.addEventListener("pointerdown", (/** @type {Event} */ event) => {
  pressedBeside = event.target === dialog;
});
dialog.addEventListener("click", (/** @type {Event} */ event) => {
  if (event.target === dialog && pressedBeside) dialog.close();
});
