// Short messages at the lower edge, some with a way back.

import { $, h } from "./dom.js";

const SHOWN_MS = 10_000;

/**
 * @param {string} sentence
 * @param {{label: string, act: () => void} | null} [way]
 */
export function toast(sentence, way = null) {
  const place = $(document, "#toasts");
  const close = () => {
    clearTimeout(timer);
    node.remove();
  };
  const act = () => {
    way?.act();
    close();
  };
  const node = h(
    "div",
    { class: "toast" },
    h("span", {}, sentence),
    way && h("button", { type: "button", onclick: act }, way.label),
  );
  // Over an open dialog, which covers everything beside it.
  (document.querySelector("dialog[open]") ?? document.body).append(place);
  place.append(node);
  const timer = setTimeout(close, SHOWN_MS);
}
