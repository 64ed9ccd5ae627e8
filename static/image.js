// The first picture: chosen by click or dropped anywhere on its field, shown as the model will see it, removable.

import { element } from "./dom.js";

const input = element("image");
const preview = element("image-preview");
const field = element("image-field");
let address = "";

/**
 * The file that would be sent, or null.
 * @returns {File | null}
 */
export const chosen = () => input.files[0] ?? null;

/** Show the part of the picture that fills a video of this size: the rest is cropped. */
export function showCrop() {
  const [width, height] = ["width", "height"].map((name) => Number(element(name).value));
  preview.style.aspectRatio = width > 0 && height > 0 ? `${width} / ${height}` : "";
}

function show() {
  const file = chosen();
  if (address) URL.revokeObjectURL(address);
  address = file ? URL.createObjectURL(file) : "";
  element("image-chosen").hidden = !file;
  preview.hidden = false;
  element("image-facts").textContent = "";
  if (!file) {
    preview.removeAttribute("src");
    return;
  }
  preview.alt = `The picture ${file.name}, as the video will begin`;
  preview.src = address;
  showCrop();
}

/** @param {FileList | File[]} files */
function choose(files) {
  const transfer = new DataTransfer();
  if (files.length) transfer.items.add(files[0]);
  input.files = transfer.files;
  input.dispatchEvent(new Event("input", { bubbles: true }));
}

preview.addEventListener("load", () => {
  const size = (chosen()?.size ?? 0) / 2 ** 20;
  const figures = `${preview.naturalWidth} × ${preview.naturalHeight}, ${size.toFixed(1)} MiB`;
  element("image-facts").textContent = `${figures}. The video begins like this.`;
});
preview.addEventListener("error", () => {
  preview.hidden = true;
  element("image-facts").textContent = "This browser cannot show it. It has to be a JPEG, PNG or WebP picture.";
});
input.addEventListener("input", show);
for (const name of ["width", "height"]) element(name).addEventListener("input", showCrop);
element("image-clear").addEventListener("click", () => {
  choose([]);
  input.focus();
});

// A file that misses the field would otherwise replace the page, and with it what was typed.
for (const type of ["dragover", "drop"]) {
  document.addEventListener(type, (event) => {
    const { dataTransfer } = /** @type {DragEvent} */ (event);
    if (!dataTransfer?.types.includes("Files")) return;
    event.preventDefault();
    const inside = !field.hidden && field.contains(/** @type {Node} */ (event.target));
    dataTransfer.dropEffect = inside ? "copy" : "none";
    element("image-drop").classList.toggle("over", type === "dragover" && inside);
    if (type === "drop" && inside) choose(dataTransfer.files);
  });
}
