// Short messages at the lower edge, some with a way back for as long as they are there.

import { $, h } from "./dom.js";

const SHOWN_MS = 10_000;

/**
 * Time stands still while one points at the message, or is at its button.
 * @param {string} sentence
 * @param {{label: string, act: () => void, lapse?: () => void} | null} [way] `lapse`: nobody took it
 */
export function toast(sentence, way = null) {
  let timer = 0;
  const close = (/** @type {(() => void) | undefined} */ then) => {
    clearTimeout(timer);
    const hadFocus = node.contains(document.activeElement);
    node.remove();
    then?.();
    if (hadFocus) (document.querySelector("dialog[open] h2") ?? $(document, "video-wall")).focus();
  };
  const wait = () => {
    if (!node.isConnected) return;
    clearTimeout(timer);
    timer = window.setTimeout(() => close(way?.lapse), SHOWN_MS);
  };
  const hold = () => clearTimeout(timer);
  const node = h(
    "div",
    { class: "toast", onpointerenter: hold, onfocusin: hold, onpointerleave: wait, onfocusout: wait },
    h("span", {}, sentence),
    way && h("button", { type: "button", onclick: () => close(way.act) }, way.label),
  );
  $(document, "#toasts").append(node);
  wait();
}
