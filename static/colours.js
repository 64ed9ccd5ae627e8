// Light, dark, or as the system has it; theme.js applies the choice before the first paint.

import { $ } from "./dom.js";

/** @type {Record<string, string>} */
const SCHEMES = { auto: "as the system has them", light: "light", dark: "dark" };
const button = $(document, "#theme");
const root = document.documentElement;

function show() {
  if (!SCHEMES[root.dataset.theme ?? ""]) root.dataset.theme = "auto";
  const text = `Colours: ${SCHEMES[root.dataset.theme ?? ""]}`;
  $(button, "span").textContent = text;
  button.title = text;
}

button.addEventListener("click", () => {
  const names = Object.keys(SCHEMES);
  root.dataset.theme = names[(names.indexOf(root.dataset.theme ?? "") + 1) % names.length];
  try {
    localStorage.setItem("studio.theme", root.dataset.theme);
  } catch {
    // Then it holds until the page is left.
  }
  show();
});
show();
