// The keys of the whole page. Keys of one view are in its element.

import { $ } from "./dom.js";
import { showShortcuts, singleKeys } from "./elements/dialogs.js";

const ARROWS = ["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown"];
/** Where every key is text, or a choice. */
const TEXT = "input:not([type=range], [type=radio], [type=checkbox], [type=file]), textarea, select, pre";
/** The keys that other controls need for themselves. @type {[string, string[]][]} */
const OWN = [
  ["[type=range]", ARROWS],
  ["[type=radio]", [" ", ...ARROWS]],
  ["[type=checkbox], [type=file], button, summary, a", [" ", "Enter"]],
];
/** Those that go on as long as they are held. */
const REPEATED = [",", "."];

/**
 * @param {Element} target
 * @param {string} key
 */
const isTaken = (target, key) =>
  target.matches(TEXT) || OWN.some(([control, keys]) => target.matches(control) && keys.includes(key));

/** @param {KeyboardEvent} event */
function pressed(event) {
  const { key } = event;
  const target = /** @type {Element} */ (event.target);
  const sheet = document.querySelector("dialog[open]");
  if (key === "Enter" && (event.ctrlKey || event.metaKey)) {
    if (sheet) return;
    // By itself Enter would send the form too, or press the button that has the focus.
    event.preventDefault();
    if (!event.repeat) $(document, "video-composer").submit();
    return;
  }
  if (event.ctrlKey || event.metaKey || event.altKey || isTaken(target, key) || !singleKeys()) return;
  const act = sheet ? inSheet(key) : onPage(key);
  if (!act) return;
  event.preventDefault();
  if (!event.repeat || REPEATED.includes(key)) act();
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

/** @param {string} key */
function inSheet(key) {
  const player = /** @type {any} */ (document.querySelector("#sheet video-player"));
  const turn = (/** @type {string} */ name) => () =>
    /** @type {HTMLElement | null} */ (document.querySelector(`[data-turn="${name}"]`))?.click();
  if (key === "ArrowLeft") return turn("left");
  if (key === "ArrowRight") return turn("right");
  if (!player) return undefined;
  if (key === ",") return () => player.step(-1);
  if (key === ".") return () => player.step(1);
  return key === " " ? () => player.toggle() : undefined;
}

document.addEventListener("keydown", pressed);
$(document, "#keys").addEventListener("click", showShortcuts);
