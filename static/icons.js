// The icons, drawn as strokes on a grid of 24 by 24. They stand beside text or inside a named control.

const SVG = "http://www.w3.org/2000/svg";

/** @type {Record<string, string>} */
const STROKES = {
  play: "M7 4.5v15l12-7.5z",
  pause: "M8 5v14M16 5v14",
  back: "M18 5.5v13L9 12zM6 5v14",
  forth: "M6 5.5v13l9-6.5zM18 5v14",
  left: "M14.5 5.5L8 12l6.5 6.5",
  right: "M9.5 5.5L16 12l-6.5 6.5",
  loop: "M17 2.5l3 3-3 3M20 5.5H8a4 4 0 0 0-4 4V11M7 21.5l-3-3 3-3M4 18.5h12a4 4 0 0 0 4-4V13",
  download: "M12 4v11M7 10.5l5 5 5-5M5 20h14",
  pin: "M8.5 3.5h7l-1 6.5 3 3.5h-11l3-3.5zM12 13.5V21",
  trash: "M4.5 6.5h15M9 6.5V4h6v2.5M6.5 6.5l1 13.5h9l1-13.5M10.2 10v6.5M13.8 10v6.5",
  compare: "M3.5 5h7v14h-7zM13.5 5h7v14h-7z",
  dice: "M4.5 4.5h15v15h-15zM9 9v.01M15 9v.01M12 12v.01M9 15v.01M15 15v.01",
  lock: "M5.5 11h13v9.5h-13zM8.5 11V7.5a3.5 3.5 0 0 1 7 0V11",
  unlock: "M5.5 11h13v9.5h-13zM8.5 11V6.5a3.5 3.5 0 0 1 6.8-1.2",
  close: "M6 6l12 12M18 6L6 18",
  search: "M10.5 4a6.5 6.5 0 1 1 0 13 6.5 6.5 0 0 1 0-13zM15.5 15.5L20.5 20.5",
  picture: "M3.5 5h17v14h-17zM4 16.5l5-5 4 4 2.5-2.5 4.5 4.5M15.8 9v.01",
  sliders: "M4 7.5h9M17 7.5h3M4 16.5h3M11 16.5h9M15 5.2v4.6M9 14.2v4.6",
  theme: "M12 3.5a8.5 8.5 0 1 1 0 17zM12 3.5a8.5 8.5 0 0 0 0 17",
  keys: "M2.5 6h19v12h-19zM6.5 10v.01M10.2 10v.01M13.8 10v.01M17.5 10v.01M7.5 14.2h9",
  bell: "M6 16.5V11a6 6 0 0 1 12 0v5.5l1.5 1.5h-15zM10 20.5h4",
  frame: "M9 4H4v5M15 4h5v5M9 20H4v-5M15 20h5v-5",
  copy: "M8.5 8.5h11v12h-11zM5.5 15.5h-1v-12h11v1",
  again: "M19.5 12a7.5 7.5 0 1 1-2.2-5.3L20 9.5M20 4.5v5h-5",
};

/**
 * @param {string} name
 * @returns {SVGSVGElement}
 */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", STROKES[name]);
  svg.append(path);
  return svg;
}

/**
 * Put icons where the markup asks for them with `data-icon`.
 * @param {ParentNode} root
 */
export function drawIcons(root) {
  for (const place of root.querySelectorAll("[data-icon]")) {
    place.prepend(icon(/** @type {HTMLElement} */ (place).dataset.icon ?? ""));
    place.removeAttribute("data-icon");
  }
}
