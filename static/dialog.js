// Dialogs lie over everything else, and only what is inside is heard and can be pressed: messages go with them.

import { $ } from "./dom.js";

/** The dialog on top, else the page. */
const top = () => [...document.querySelectorAll("dialog[open]")].at(-1) ?? document.body;

const messages = [$(document, "#toasts"), $(document, "#announcer")];

/** Have short messages appear, and be read out, where one is. */
export function bringMessages() {
  top().append(...messages);
}

/** @param {HTMLDialogElement} dialog */
export function openDialog(dialog) {
  dialog.showModal();
  bringMessages();
}

// The event does not bubble; caught on its way down, it comes before a dialog takes itself away.
document.addEventListener("close", bringMessages, true);
