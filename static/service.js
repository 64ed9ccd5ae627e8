// The service behind the page: how it is, the models it has, and the stream of what happens to its videos.

import * as api from "./api.js";
import { complain } from "./deeds.js";
import { $, setText } from "./dom.js";
import { learn } from "./models.js";
import { fetchLater, goAnew, goOn } from "./places.js";
import { videos } from "./store.js";
import { askForKey } from "./elements/dialogs.js";

const HEALTH_MS = 5000;
const AWAY_MS = 2000;
// The service counts its queue once a second.
const SOON_MS = 1200;
const LATER_MS = 4000;
const LISTENER = "studio.listener";
const composer = $(document, "video-composer");
const wall = $(document, "video-wall");
const feed = new api.Feed();
let away = false;
/** Whether the service asks for a key, and has none yet. */
let shut = false;
let healthTimer = 0;
let soon = 0;
let states = "";
/** The wait to be the hidden tab that listens. @type {AbortController | null} */
let waiting = null;
/** Ends being that one. @type {(() => void) | null} */
let handOver = null;

/** Begin, or begin again when there is a key. */
export async function begin() {
  states = "";
  shut = false;
  look();
  goAnew();
  // The stream goes on from where the wall ends: opened beside it, it could miss what happens
  // between the two. Without a wall everything is made good when the stream is there.
  const upTo = await wall.reload();
  if (shut) return;
  away = upTo === "";
  feed.open(upTo);
  tend();
}

// --- how it is ---------------------------------------------------------------------------

async function look() {
  clearTimeout(healthTimer);
  if (document.hidden) return; // it is looked at again when it is seen
  let message = "";
  try {
    const health = await api.health();
    if (health.status !== "healthy") message = `${health.message}.`;
    composer.setQueue(health.jobs_queued + health.jobs_running);
    const now = JSON.stringify(health.models);
    if (now !== states && !shut) {
      await learnModels();
      states = now;
    }
    fetchInAWhile();
  } catch (error) {
    const refused = error instanceof api.ApiError && error.status === 401;
    if (!refused) message = "The service does not answer. This page goes on by itself when it is back.";
  }
  if (!message && away) message = "No live news from the service. This page tries again by itself.";
  note(message);
  healthTimer = window.setTimeout(look, away ? AWAY_MS : HEALTH_MS);
}

/** Without a key nothing else matters. @param {string} message */
function note(message) {
  const told = shut ? "This service needs an API key." : message;
  setText($(document, "#status"), told);
  $(document, "#note").hidden = told === "";
  $(document, "#enter-key").hidden = !shut;
}

/** Ask which models there are, and what they can. */
export async function learnModels() {
  const models = await api.models();
  learn(models);
  composer.setModels(models);
  wall.setModels(models);
}

function lookSoon() {
  clearTimeout(soon);
  soon = window.setTimeout(look, SOON_MS);
}

let fetching = false;
/** Not before the service answers: some browsers keep in mind that a module did not come. */
function fetchInAWhile() {
  if (!fetching) setTimeout(fetchLater, LATER_MS);
  fetching = true;
}

api.door.addEventListener("needed", () => {
  // Whoever closed the dialog is not asked again by what the page does of itself.
  if (shut) return;
  shut = true;
  feed.close();
  note("");
  askForKey(begin);
});
$(document, "#enter-key").addEventListener("click", () => askForKey(begin));

// --- what happens to its videos ------------------------------------------------------------

/** What ended while nobody could tell. */
async function catchUp() {
  try {
    await wall.catchUp();
    for (const { id } of videos.unfinished) await refresh(id);
    await goOn();
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
  if (video.status === before?.status) return;
  lookSoon();
  if (document.hidden) tend();
});

/**
 * Browsers open six connections to a host: of the tabs that nobody sees one listens at most, and
 * only while there is something to wait for.
 */
function tend() {
  const waits = videos.unfinished.length > 0;
  if (!document.hidden || !waits) {
    waiting?.abort();
    handOver?.();
    waiting = handOver = null;
  }
  if (!document.hidden) listen();
  else if (!waits) feed.close();
  else if (!navigator.locks) listen(); // they are there over HTTPS and at localhost only
  else if (!waiting) listenAlone();
  else if (!handOver) feed.close();
}

function listen() {
  if (shut || !feed.closed) return;
  feed.open();
  catchUp();
}

function listenAlone() {
  waiting = new AbortController();
  const { signal } = waiting;
  feed.close();
  const myTurn = () => {
    if (signal.aborted) return undefined;
    listen();
    return new Promise((done) => (handOver = () => done(null)));
  };
  // It is called off when somebody sees the tab again.
  navigator.locks.request(LISTENER, { signal }, myTurn).catch(() => {});
}

addEventListener("pagehide", () => videos.flush());
document.addEventListener("visibilitychange", () => {
  tend();
  look();
});
