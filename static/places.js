// From the address to what is shown: a place of the page, and the sheet that may lie over it.

import * as api from "./api.js";
import { complain } from "./deeds.js";
import { $ } from "./dom.js";
import { closeSheet, openPair, openVideo } from "./sheet.js";
import { toast } from "./toasts.js";

/** What is fetched when it is opened, or when there is nothing else to do. */
const LATER = ["video-detail", "compare-view", "draft-board", "system-view"];
const sheet = $(document, "#sheet");
const wall = $(document, "video-wall");
/** @type {Record<string, HTMLElement>} */
const places = { wall, drafts: $(document, "draft-board"), system: $(document, "system-view") };
/** The address of the place under the sheet. */
let under = "#/";
/** The address of the place that is shown. */
let shown = "";
/** Whether the service was away, or wanted a key, when it was asked for what the address names. */
let missing = false;

/** Show what the address names. */
export async function go() {
  const here = location.hash || "#/";
  const [view = "", first = "", second = ""] = here.replace(/^#\/?/, "").split("/");
  const isSheet = (view === "videos" && first !== "") || (view === "compare" && second !== "");
  if (!isSheet) under = here;
  missing = false;
  try {
    await showPlace();
    if (!isSheet) closeSheet();
    else if (view === "videos") await openVideo(first, () => wall.ids);
    else await openPair(first, second);
  } catch (error) {
    if ((location.hash || "#/") !== here) return;
    shown = "";
    missing = !(error instanceof api.ApiError && error.status === 404);
    if (missing) return sayMissing(error);
    complain(error);
    location.replace(under);
  }
}

/** @param {unknown} error */
function sayMissing(error) {
  if (!(error instanceof api.ApiError))
    toast("A part of this page did not come.", { label: "Reload the page", act: () => location.reload() });
  else if (error.status !== 401) toast(error.message, { label: "Try again", act: go });
}

/** Show what the address names, and ask again for all of it. */
export function goAnew() {
  shown = "";
  return go();
}

/** Try again what could not be shown, in part or at all: the service is back. */
export function goOn() {
  if (missing) return goAnew();
  shown = "";
  return showPlace();
}

/** Fetch what is opened later, so that it opens at once, and also while the service is away. */
export function fetchLater() {
  for (const name of LATER) import(`./elements/${name}.js`).catch(() => {});
}

async function showPlace() {
  const [view = "", which = ""] = under.replace(/^#\/?/, "").split("/");
  const name = Object.hasOwn(places, view) ? view : "wall";
  for (const link of document.querySelectorAll("nav [data-view]")) {
    if (/** @type {HTMLElement} */ (link).dataset.view === name) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  for (const [other, place] of Object.entries(places)) place.hidden = other !== name;
  if (shown === under) return;
  shown = under;
  const place = /** @type {any} */ (places[name]);
  if (name === "drafts") await import("./elements/draft-board.js").then(() => place.show(which));
  if (name === "system") await import("./elements/system-view.js").then(() => place.show());
}

// The entry of what is closed becomes that of the place under it: the back button does not open it again.
sheet.addEventListener("left", () => location.replace(under));
sheet.addEventListener("orphaned", () => wall.focus());
addEventListener("hashchange", go);
