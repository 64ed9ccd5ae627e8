// Wires the page: addresses to views, the stream of events to the store, the service's state to words.

import * as api from "./api.js";
import { complain } from "./deeds.js";
import { $ } from "./dom.js";
import { drawIcons } from "./icons.js";
import { videos } from "./store.js";
import { askForKey } from "./elements/dialogs.js";
import "./elements/consent-field.js";
import "./elements/length-field.js";
import "./elements/live-estimate.js";
import "./elements/lora-field.js";
import "./elements/model-field.js";
import "./elements/picture-field.js";
import "./elements/seed-field.js";
import "./elements/size-field.js";
import "./elements/video-composer.js";
import "./elements/video-wall.js";
import "./keyboard.js";
import { closeSheet, openPair, openVideo } from "./sheet.js";
import * as news from "./news.js";

const HEALTH_MS = 5000;
const AWAY_MS = 2000;
// The service counts its queue once a second.
const SOON_MS = 1200;
const composer = $(document, "video-composer");
const wall = $(document, "video-wall");
const feed = new api.Feed();
let away = false;
/** Whether the service asks for a key, and has none yet. */
let shut = false;
let healthTimer = 0;
let states = "";

// --- addresses ---------------------------------------------------------------------------

async function go() {
  const [view = "", first = "", second = ""] = location.hash.replace(/^#\/?/, "").split("/");
  const base = view === "drafts" || view === "system" ? view : "wall";
  for (const link of document.querySelectorAll("nav [data-view]")) {
    if (/** @type {HTMLElement} */ (link).dataset.view === base) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  const places = { wall, drafts: $(document, "draft-board"), system: $(document, "system-view") };
  for (const [name, place] of Object.entries(places)) place.hidden = name !== base;
  try {
    if (view === "videos" && first) await openVideo(first, () => wall.ids);
    else if (view === "compare" && second) await openPair(first, second);
    else closeSheet();
    if (base === "drafts") await import("./elements/draft-board.js").then(() => places.drafts.show(first));
    if (base === "system") await import("./elements/system-view.js").then(() => places.system.show());
  } catch (error) {
    complain(error);
    location.hash = "#/";
  }
}

// --- the service -------------------------------------------------------------------------

async function look() {
  clearTimeout(healthTimer);
  let message = "";
  try {
    const health = await api.health();
    if (health.status !== "healthy") message = `${health.message}.`;
    composer.setQueue(health.jobs_queued + health.jobs_running);
    const now = JSON.stringify(health.models);
    if (now !== states) await learn();
    states = now;
  } catch (error) {
    const refused = error instanceof api.ApiError && error.status === 401;
    if (!refused) message = "The service does not answer. This page goes on by itself when it is back.";
  }
  if (!message && away) message = "No live news from the service. This page tries again by itself.";
  const note = $(document, "#status");
  if (note.textContent !== message) note.textContent = message;
  note.hidden = message === "";
  healthTimer = window.setTimeout(look, away ? AWAY_MS : HEALTH_MS);
}

async function learn() {
  const models = await api.models();
  composer.setModels(models);
  wall.setModels(models);
}

/** What ended while nobody could tell. */
async function catchUp() {
  try {
    await wall.catchUp();
    for (const { id } of videos.unfinished) await refresh(id);
  } catch (error) {
    complain(error);
  }
}

/** @param {string} id */
async function refresh(id) {
  try {
    await videos.ask(() => api.video(id));
  } catch (error) {
    if (!(error instanceof api.ApiError && error.status === 404)) throw error;
    videos.drop(id);
  }
}

let soon = 0;
function lookSoon() {
  clearTimeout(soon);
  soon = window.setTimeout(look, SOON_MS);
}

feed.addEventListener("video", (event) => videos.put(/** @type {CustomEvent} */ (event).detail));
feed.addEventListener("deleted", (event) => videos.drop(/** @type {CustomEvent} */ (event).detail));
feed.addEventListener("preview", (event) => videos.foresee(/** @type {CustomEvent} */ (event).detail));
feed.addEventListener("state", (event) => {
  const lost = /** @type {CustomEvent} */ (event).detail === "away";
  if (lost !== away) lookSoon();
  const back = away && !lost;
  away = lost;
  if (back) catchUp();
});
videos.addEventListener("change", (event) => {
  const { video, before } = /** @type {CustomEvent} */ (event).detail;
  if (video.status !== before?.status) lookSoon();
});
api.door.addEventListener("needed", () => {
  shut = true;
  feed.close();
  askForKey(begin);
});

// --- what the views ask for --------------------------------------------------------------

composer.addEventListener("made", () => {
  if (location.hash !== "#/") location.hash = "#/";
  scrollTo({ top: 0 });
});
composer.addEventListener("drafted", (/** @type {CustomEvent} */ event) => {
  location.hash = `#/drafts/${event.detail}`;
});
wall.addEventListener("example", (/** @type {CustomEvent} */ event) => {
  composer.fill({ prompt: event.detail });
  composer.focusPrompt();
});
wall.addEventListener("ended", (/** @type {CustomEvent} */ event) => news.tell(event.detail));
$(document, "#sheet").addEventListener("settings", async (/** @type {CustomEvent} */ event) => {
  location.hash = "#/";
  composer.fill(event.detail.recipe);
  if (event.detail.picture) await composer.takePicture(event.detail.picture);
  composer.focusPrompt();
});
$(document, "#sheet").addEventListener("compare", (/** @type {CustomEvent} */ event) => {
  location.hash = "#/";
  wall.dispatchEvent(new CustomEvent("pair", { detail: event.detail }));
});

// --- colours, beginning and end ----------------------------------------------------------

const SCHEMES = { auto: "as the system has them", light: "light", dark: "dark" };
function showScheme() {
  const scheme = /** @type {keyof typeof SCHEMES} */ (document.documentElement.dataset.theme ?? "auto");
  $(document, "#theme span").textContent = `Colours: ${SCHEMES[scheme]}`;
  $(document, "#theme").title = `Colours: ${SCHEMES[scheme]}`;
}
$(document, "#theme").addEventListener("click", () => {
  const names = Object.keys(SCHEMES);
  const next = names[(names.indexOf(document.documentElement.dataset.theme ?? "auto") + 1) % names.length];
  document.documentElement.dataset.theme = next;
  localStorage.setItem("studio.theme", next);
  showScheme();
});

async function begin() {
  states = "";
  shut = false;
  look();
  go();
  // The stream goes on from where the wall ends: opened beside it, it could miss what happens
  // between the two. Without a wall everything is made good when the stream is there.
  const upTo = await wall.reload();
  if (shut) return;
  away = upTo === "";
  feed.open(upTo);
}

addEventListener("hashchange", () => {
  composer.unfold(false);
  go();
});
addEventListener("pagehide", () => videos.flush());
document.addEventListener("visibilitychange", () => {
  // Browsers open six connections to a host: a tab that nobody sees and that waits for nothing
  // gives its own back.
  if (document.hidden && !videos.unfinished.length) feed.close();
  if (document.hidden || shut || !feed.closed) return;
  feed.open();
  catchUp();
});
drawIcons(document);
showScheme();
begin();
