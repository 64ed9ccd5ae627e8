// The keys of the whole page. Keys of one view are in its element.

import { $ } from "./dom.js";
import { showShortcuts, singleKeys } from "./elements/dialogs.js";

/** @param {any} target whether keys are text there, or already mean something */
const takesText = (target) => target.matches("input, textarea, select, pre");

/** @param {KeyboardEvent} event */
function pressed(event) {
  const composer = $(document, "video-composer");
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    if (!document.querySelector("dialog[open]")) composer.submit();
    return;
  }
  const target = /** @type {Element} */ (event.target);
  if (event.ctrlKey || event.metaKey || event.altKey || takesText(target) || !singleKeys()) return;
  const act = document.querySelector("dialog[open]") ? inSheet(event.key, target) : onPage(event.key);
  if (!act) return;
  event.preventDefault();
  act();
}

/** @param {string} key */
function onPage(key) {
  /** @type {Record<string, () => void>} */
  const deeds = {
    "/": () => $(document, "#search").focus(),
    n: () => $(document, "video-composer").focusPrompt(),
    "?": showShortcuts,
  };
  return deeds[key];
}

/**
 * @param {string} key
 * @param {Element} target
 */
function inSheet(key, target) {
  const player = /** @type {any} */ (document.querySelector("#sheet video-player"));
  const turn = (/** @type {string} */ name) => () =>
    /** @type {HTMLElement | null} */ (document.querySelector(`[data-turn="${name}"]`))?.click();
  if (key === "ArrowLeft") return turn("left");
  if (key === "ArrowRight") return turn("right");
  if (!player) return undefined;
  if (key === ",") return () => player.step(-1);
  if (key === ".") return () => player.step(1);
  return key === " " && !target.matches("button, a, summary") ? () => player.toggle() : undefined;
}

document.addEventListener("keydown", pressed);
$(document, "#keys").addEventListener("click", showShortcuts);
