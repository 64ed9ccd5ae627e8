// What the window says while one looks elsewhere: its title, and a notification for those who asked.

import { $, keep, kept } from "./dom.js";
import { videos } from "./store.js";
import { toast } from "./toasts.js";
import { failure, shortened } from "./words.js";

/** @typedef {import("./api.js").Video} Video */

const NAME = "Video studio";
const STORE = "studio.notify";
/** How much of a prompt the title takes. */
const LETTERS = 60;
const VIEWS = new Map([
  ["drafts", "Drafts"],
  ["system", "System"],
  ["compare", "Compare"],
]);
const button = $(document, "#notify");
/** What ended while nobody looked. @type {Video[]} */
let unseen = [];

const wanted = () => kept(STORE) === true && window.Notification?.permission === "granted";

/** What the view at this address is called; "" for the wall. */
function place() {
  const [view = "", id = ""] = location.hash.replace(/^#\/?/, "").split("/");
  if (view !== "videos") return VIEWS.get(view) ?? "";
  return shortened(videos.get(id)?.prompt ?? "", LETTERS);
}

/** What has ended meanwhile, or how far the video in the making is; "" for neither. */
function told() {
  if (unseen.length && document.hidden) {
    const done = unseen.every((video) => video.status === "completed");
    return `${done ? "Done" : "Ended"} (${unseen.length})`;
  }
  const making = videos.unfinished;
  const running = making.find((video) => video.status === "in_progress");
  const others = making.length > 1 ? `(${making.length})` : "";
  return [others, running ? `${running.progress} %` : ""].filter(Boolean).join(" ");
}

function show() {
  document.title = [told(), place(), NAME].filter(Boolean).join(" – ");
}

/** A video has ended while the page was open. @param {Video} video */
export function tell(video) {
  if (!document.hidden) return;
  unseen.push(video);
  show();
  if (!wanted()) return;
  const title = video.status === "completed" ? "Your video is done" : failure(video);
  try {
    const note = new Notification(title, { body: video.prompt, tag: video.id });
    note.onclick = () => {
      window.focus();
      location.hash = `#/videos/${video.id}`;
    };
  } catch {
    giveUp();
  }
}

/** Browsers on Android have notifications, but none for a page: that shows at the first one only. */
function giveUp() {
  keep(STORE, false);
  button.hidden = true;
  const say = () => toast("This browser has no notifications for a page. Notify me is off.");
  document.addEventListener("visibilitychange", say, { once: true });
}

async function ask() {
  const on = !wanted();
  if (on && (await Notification.requestPermission()) !== "granted") {
    toast("This browser does not allow notifications from here.");
  }
  keep(STORE, on && Notification.permission === "granted");
  button.setAttribute("aria-pressed", String(wanted()));
}

document.addEventListener("visibilitychange", () => {
  if (!document.hidden) unseen = [];
  show();
});
addEventListener("hashchange", show);
for (const type of ["change", "gone"]) videos.addEventListener(type, show);
button.hidden = !("Notification" in window);
button.setAttribute("aria-pressed", String(wanted()));
button.addEventListener("click", ask);
show();
