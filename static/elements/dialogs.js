// The two small dialogs: the API key that the server asks for, and the keyboard shortcuts.

import * as api from "../api.js";
import { openDialog } from "../dialog.js";
import { h, keep, kept } from "../dom.js";

const SINGLE_KEYS = "studio.singleKeys";
/** Keys that are pressed together, in one way or another. @type {[string[][], string][]} */
const SHORTCUTS = [
  [
    [
      ["Ctrl", "Enter"],
      ["⌘", "Enter"],
    ],
    "Make the video",
  ],
  [[["N"]], "Write a new prompt"],
  [[["/"]], "Search the videos"],
  [[["←"], ["→"], ["↑"], ["↓"]], "Move on the wall; to the one before or after in the detail view"],
  [[["Home"], ["End"]], "To the first or the last on the wall"],
  [[["Enter"]], "Open the video"],
  [[["Space"]], "Play and pause"],
  [[[","], ["."]], "Previous frame, next frame"],
  [[["Delete"]], "Delete the focused video"],
  [[["Esc"]], "Close"],
  [[["?"]], "This list"],
];

/** Whether keys without Ctrl or ⌘ do something. */
export const singleKeys = () => kept(SINGLE_KEYS) !== false;

export function showShortcuts() {
  const rows = SHORTCUTS.flatMap(([ways, deed]) => {
    const keys = ways.map((together) => h("span", {}, ...together.map((key) => h("kbd", {}, key))));
    return [h("dt", {}, ...keys), h("dd", {}, deed)];
  });
  const box = h("input", {
    id: "single-keys",
    type: "checkbox",
    onchange: () => keep(SINGLE_KEYS, box.checked),
  });
  box.checked = singleKeys();
  const choice = h(
    "div",
    { class: "check" },
    box,
    h("label", { for: "single-keys" }, "Use single keys, without Ctrl or ⌘"),
  );
  const close = h("button", { class: "primary" }, "Close");
  open(
    "Keyboard shortcuts",
    h("form", { method: "dialog" }, h("dl", { class: "shortcuts" }, ...rows), choice, close),
  );
}

/** Ask for the API key until the server takes one. @param {() => void} done */
export function askForKey(done) {
  if (document.querySelector("#key")) return;
  const field = h("input", {
    id: "key",
    type: "password",
    autocomplete: "current-password",
    required: true,
    "aria-describedby": "key-error",
  });
  const error = h("p", { id: "key-error", class: "error", role: "alert" });
  const send = async (/** @type {Event} */ event) => {
    event.preventDefault();
    try {
      await api.signIn(field.value);
      dialog.close();
      done();
    } catch (refusal) {
      error.textContent = /** @type {Error} */ (refusal).message;
      field.select();
    }
  };
  const label = h("label", { for: "key" }, "API key");
  const why = h(
    "p",
    {},
    "This service needs an API key. The browser keeps it as a cookie that no script can read.",
  );
  const dialog = open(
    "Sign in",
    why,
    h(
      "form",
      { class: "field", onsubmit: send },
      label,
      field,
      error,
      h("button", { class: "primary" }, "Enter"),
    ),
  );
}

/**
 * @param {string} title
 * @param {...Node} children
 */
function open(title, ...children) {
  const dialog = h("dialog", { class: "small", "aria-label": title }, h("h2", {}, title), ...children);
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  openDialog(dialog);
  return dialog;
}
