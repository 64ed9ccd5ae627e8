// Wires the page: what one view asks of another.

import { $, announce } from "./dom.js";
import { drawIcons } from "./icons.js";
import "./colours.js";
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
import * as news from "./news.js";
import { complain } from "./deeds.js";
import { begin, learnModels } from "./service.js";
import { closeSheet } from "./sheet.js";

const composer = $(document, "video-composer");
const wall = $(document, "video-wall");
const sheet = $(document, "#sheet");

composer.addEventListener("made", () => {
  announce("Started.");
  if (location.hash !== "#/") location.hash = "#/";
  scrollTo({ top: 0 });
});
composer.addEventListener("drafted", (/** @type {CustomEvent} */ event) => {
  location.hash = `#/drafts/${event.detail}`;
});
// A LoRA file may have come into its folder.
$(composer, "#more").addEventListener("toggle", () => {
  if ($(composer, "#more").open) learnModels().catch(complain);
});
wall.addEventListener("example", (/** @type {CustomEvent} */ event) => {
  composer.fill({ prompt: event.detail });
  composer.focusPrompt();
});
wall.addEventListener("ended", (/** @type {CustomEvent} */ event) => news.tell(event.detail));
sheet.addEventListener("settings", async (/** @type {CustomEvent} */ event) => {
  location.hash = "#/";
  // What lies under an open sheet takes no focus.
  closeSheet(false);
  await composer.replace(event.detail.recipe, event.detail.picture);
  composer.focusPrompt();
});
sheet.addEventListener("compare", (/** @type {CustomEvent} */ event) => {
  if (!wall.choosing) location.hash = "#/";
  wall.dispatchEvent(new CustomEvent("pair", { detail: event.detail }));
});
addEventListener("hashchange", () => composer.unfold(false));
drawIcons(document);
begin();
