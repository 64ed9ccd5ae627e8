// What the window says while one looks elsewhere: its title, and a notification for those who asked.

import { $, keep, kept } from "./dom.js";
import { videos } from "./store.js";
import { toast } from "./toasts.js";
import { failure } from "./words.js";

/** @typedef {import("./api.js").Video} Video */

const NAME = "Video studio";
const STORE = "studio.notify";
const button = $(document, "#notify");
/** How many ended while nobody looked. */
let unseen = 0;

const wanted = () => kept(STORE) === true && window.Notification?.permission === "granted";

function show() {
  const making = videos.unfinished;
  const running = making.find((video) => video.status === "in_progress");
  const progress = running ? `${running.progress} % ` : "";
  const others = making.length > 1 ? `(${making.length}) ` : "";
  document.title =
    unseen && document.hidden
      ? `Done (${unseen}) – ${NAME}`
      : `${others}${progress}${progress || others ? "– " : ""}${NAME}`;
}

/** A video has ended while the page was open. @param {Video} video */
export function tell(video) {
  if (!document.hidden) return;
  unseen += 1;
  show();
  if (!wanted()) return;
  const title = video.status === "completed" ? "Your video is done" : failure(video);
  const note = new Notification(title, { body: video.prompt, tag: video.id });
  note.onclick = () => {
    window.focus();
    location.hash = `#/videos/${video.id}`;
  };
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
  if (!document.hidden) unseen = 0;
  show();
});
for (const type of ["change", "gone"]) videos.addEventListener(type, show);
button.hidden = !("Notification" in window);
button.setAttribute("aria-pressed", String(wanted()));
button.addEventListener("click", ask);
