// Wires the page: the form begins a job, the address holds its id, and the job is watched until it ends.

import * as api from "./api.js";
import { element, made } from "./dom.js";
import * as form from "./form.js";
import * as job from "./job.js";

const POLL_MS = 500;
const HEALTH_MS = 5000;
let timer = 0;

/** The job in the address: it survives a reload, and "back" returns to the one before. */
const currentId = () => /^#\/videos\/([\w-]+)$/.exec(location.hash)?.[1] ?? "";

async function submit() {
  if (element("submit").disabled || !form.check()) return;
  setBusy(true);
  element("job").scrollIntoView({ block: "nearest" }); // on a phone it lies below the form
  try {
    location.hash = `#/videos/${await api.generate(form.values())}`;
  } catch (error) {
    setBusy(false);
    showRefusal(error);
  }
}

/** @param {any} error */
function showRefusal(error) {
  const field = document.getElementById(error.field) ? error.field : "";
  form.showError(field, field ? error.message.slice(field.length + 2) : error.message);
  if (field) element(field).focus();
}

async function watch() {
  clearTimeout(timer);
  const id = currentId();
  if (!id) {
    job.showNothing();
    setBusy(false);
    return;
  }
  try {
    const video = await api.video(id);
    if (id !== currentId()) return;
    job.show(video);
    const running = video.status === "queued" || video.status === "in_progress";
    setBusy(running);
    if (!running) return;
  } catch (error) {
    if (error instanceof api.ApiError && error.status === 404) {
      history.replaceState(null, "", location.pathname);
      return watch();
    }
    job.showAway();
  }
  timer = setTimeout(watch, POLL_MS);
}

/** @param {boolean} busy */
function setBusy(busy) {
  element("submit").disabled = busy;
  element("submit").textContent = busy ? "Making your video …" : "Make the video";
}

async function cancel() {
  element("cancel").disabled = true;
  try {
    job.show(await api.cancel(currentId()));
  } catch {
    // The watch goes on and says how it stands.
  }
  element("cancel").disabled = false;
  element("submit").focus();
  await watch();
}

/** @param {api.Model[]} models */
function showDemo(models) {
  const demo = models.filter((model) => model.bundled);
  element("demo").hidden = demo.length === 0;
  if (!demo.length) return;
  const names = demo.map((model) => `${model.id} (${model.checkpoint})`).join(" and ");
  element("demo").replaceChildren(
    `The loaded checkpoint of ${names} is the small demo one that comes with the service. It knows only a drawn ` +
      "world of coloured balls, squares and triangles. On a GPU, ",
    made("code", `make weights MODEL=${demo[0].id}`),
    " fetches the published one.",
  );
}

async function watchHealth() {
  let message = "";
  try {
    const found = await api.health();
    if (found.status !== "healthy") message = `${found.message}.`;
  } catch {
    message = "The service does not answer. This page tries again by itself.";
  }
  if (element("health").textContent !== message) element("health").textContent = message;
  element("health").hidden = message === "";
  setTimeout(watchHealth, HEALTH_MS);
}

async function start() {
  try {
    const models = await api.models();
    form.setModels(models);
    showDemo(models);
  } catch {
    setTimeout(start, HEALTH_MS);
  }
}

element("composer").addEventListener("submit", (/** @type {Event} */ event) => {
  event.preventDefault();
  submit();
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) submit();
});
element("cancel").addEventListener("click", cancel);
element("again").addEventListener("click", () => form.useSeed(Number(element("again").dataset.seed)));
window.addEventListener("hashchange", watch);
start();
watchHealth();
watch();
