// The first picture: chosen, dropped or pasted; the frame on it shows exactly what the model will see.

import { $, announce, setText } from "../dom.js";
import { keepPicture, keptPicture } from "../kept-picture.js";
import { cropOf, fitted } from "../picture.js";

/** @typedef {{width: number, height: number}} Size */

const WRITABLE = "input, textarea";

class PictureField extends HTMLElement {
  /** @type {ImageBitmap | null} */
  #picture = null;
  /** What it was read from. @type {File | null} */
  #file = null;
  #address = "";
  /** @type {Size} */
  #video = { width: 1, height: 1 };
  #turn = 0;
  #grabbed = { at: 0, position: 0 };

  connectedCallback() {
    const input = $(this, "#picture");
    input.addEventListener("change", () => input.files[0] && this.take(input.files[0]));
    $(this, "#picture-clear").addEventListener("click", () => {
      this.clear();
      input.focus();
    });
    $(this, "#crop-position").addEventListener("input", () => this.showCrop(this.#video));
    $(this, "#crop-position").addEventListener("change", () => this.#keep());
    document.addEventListener("paste", (event) => {
      const file = [...(event.clipboardData?.files ?? [])].find((one) => one.type.startsWith("image/"));
      // Office programs put a picture of a text beside it.
      const writes = /** @type {Element} */ (event.target).matches?.(WRITABLE);
      const isText = writes && event.clipboardData?.types.includes("text/plain");
      if (file && !isText && !this.hidden && !document.querySelector("dialog[open]")) this.take(file);
    });
    // A file that misses the field would otherwise replace the page, and with it what was typed.
    for (const type of ["dragover", "drop"]) {
      document.addEventListener(type, (event) => this.#dragged(/** @type {DragEvent} */ (event)));
    }
    const frame = $(this, ".crop-frame");
    frame.addEventListener("pointerdown", (/** @type {PointerEvent} */ event) => this.#grab(event));
    frame.addEventListener("pointermove", (/** @type {PointerEvent} */ event) => this.#move(event));
    frame.addEventListener("pointerup", () => this.#keep());
    this.#restore();
  }

  /** What was chosen before a reload, unless there is something else by now. */
  async #restore() {
    const kept = await keptPicture();
    if (kept && this.#turn === 0) await this.take(kept.file, kept.position);
  }

  #keep() {
    keepPicture(this.#file && { file: this.#file, position: this.#position });
  }

  get filled() {
    return this.#picture !== null && !this.hidden;
  }

  /**
   * What the model will see, or null without a picture.
   * @returns {Promise<Blob | null>}
   */
  async blob() {
    return this.#picture && !this.hidden ? fitted(this.#picture, this.#video, this.#position) : null;
  }

  /**
   * @param {File} file
   * @param {number} [position] of the frame, as in `cropOf`
   */
  async take(file, position = 0.5) {
    const turn = (this.#turn += 1);
    let picture;
    try {
      picture = await createImageBitmap(file);
    } catch {
      setText(
        $(this, "#picture-error"),
        `${file.name} is no picture that this browser can read. Take a JPEG, PNG or WebP.`,
      );
      return;
    }
    if (turn !== this.#turn) return picture.close(); // another one was chosen meanwhile
    this.#drop();
    this.#picture = picture;
    this.#file = file;
    $(this, "#crop-position").value = String(Math.round(100 * position));
    this.#address = URL.createObjectURL(file);
    const image = $(this, "img");
    image.src = this.#address;
    image.alt = `The picture ${file.name}`;
    image.width = picture.width;
    image.height = picture.height;
    this.#changed();
    this.#keep();
    announce($(this, "#picture-facts").textContent);
  }

  clear() {
    this.#turn += 1;
    this.#drop();
    this.#changed();
    this.#keep();
  }

  #drop() {
    $(this, "#picture").value = "";
    setText($(this, "#picture-error"), "");
    $(this, "#crop-position").value = "50";
    if (this.#address) URL.revokeObjectURL(this.#address);
    $(this, "img").removeAttribute("src");
    this.#picture?.close();
    this.#picture = null;
    this.#file = null;
  }

  /** @param {Size} video */
  showCrop(video) {
    this.#video = video;
    const picture = this.#picture;
    if (!picture || !(video.width > 0 && video.height > 0)) return;
    const crop = cropOf(picture, video, this.#position);
    const per = (/** @type {number} */ part, /** @type {number} */ whole) => `${(100 * part) / whole}%`;
    const { style } = $(this, ".crop-frame");
    style.left = per(crop.x, picture.width);
    style.top = per(crop.y, picture.height);
    style.width = per(crop.width, picture.width);
    style.height = per(crop.height, picture.height);
    $(this, ".slide").hidden = crop.width > picture.width - 1 && crop.height > picture.height - 1;
    const shrunk = crop.width > video.width ? ` Sent as ${video.width} × ${video.height}.` : "";
    setText(
      $(this, "#picture-facts"),
      `${picture.width} × ${picture.height}. The video begins with what is in the frame.${shrunk}`,
    );
  }

  get #position() {
    return Number($(this, "#crop-position").value) / 100;
  }

  #changed() {
    $(this, ".drop").hidden = this.filled;
    $(this, ".chosen").hidden = !this.filled;
    this.showCrop(this.#video);
    this.dispatchEvent(new Event("input", { bubbles: true }));
  }

  /** @param {DragEvent} event */
  #dragged(event) {
    const transfer = event.dataTransfer;
    if (!transfer?.types.includes("Files")) return;
    event.preventDefault();
    const inside = !this.hidden && this.contains(/** @type {Node} */ (event.target));
    transfer.dropEffect = inside ? "copy" : "none";
    $(this, ".drop").classList.toggle("over", event.type === "dragover" && inside);
    if (event.type === "drop" && inside && transfer.files.length) this.take(transfer.files[0]);
  }

  /** @param {PointerEvent} event */
  #grab(event) {
    /** @type {Element} */ (event.currentTarget).setPointerCapture(event.pointerId);
    const { upright } = this.#room();
    this.#grabbed = { at: upright ? event.clientY : event.clientX, position: this.#position };
  }

  /** @param {PointerEvent} event */
  #move(event) {
    if (!(event.buttons & 1)) return;
    const { upright, free } = this.#room();
    const moved = (upright ? event.clientY : event.clientX) - this.#grabbed.at;
    const position = this.#grabbed.position + moved / Math.max(1, free);
    $(this, "#crop-position").value = String(Math.round(100 * Math.min(1, Math.max(0, position))));
    this.showCrop(this.#video);
  }

  /** Which way the frame can move, and how many pixels of the screen. */
  #room() {
    const [whole, frame] = [
      $(this, ".crop").getBoundingClientRect(),
      $(this, ".crop-frame").getBoundingClientRect(),
    ];
    const [wide, high] = [whole.width - frame.width, whole.height - frame.height];
    return { upright: high > wide, free: Math.max(wide, high) };
  }
}

customElements.define("picture-field", PictureField);
