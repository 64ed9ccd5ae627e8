// The length: seconds and frames say the same; the one that was entered last stays when the rate changes.

import { $ } from "../dom.js";

class LengthField extends HTMLElement {
  #leading = "num_frames";

  connectedCallback() {
    this.addEventListener("input", (event) => {
      const { id } = /** @type {HTMLInputElement} */ (event.target);
      if (id !== "fps") this.#leading = id;
      this.follow();
    });
  }

  /** Work out the one from the other. */
  follow() {
    const [seconds, frames, fps] = ["#seconds", "#num_frames", "#fps"].map((id) => $(this, id));
    const rate = Number(fps.value);
    if (!(rate > 0)) return;
    if (this.#leading === "seconds" && seconds.value !== "") {
      frames.value = String(Math.round(Number(seconds.value) * rate));
    } else if (this.#leading !== "seconds") {
      seconds.value =
        frames.value === "" ? "" : String(Math.round((Number(frames.value) / rate) * 100) / 100);
    }
  }

  /**
   * Say how long it may be.
   * @param {number} mostFrames
   */
  setLimits(mostFrames) {
    const rate = Number($(this, "#fps").value);
    $(this, "#seconds-hint").textContent =
      rate > 0 ? `up to ${Math.floor((mostFrames / rate) * 10) / 10}` : "";
    this.follow();
  }

  /** Frames lead again: they were filled in from elsewhere. */
  reset() {
    this.#leading = "num_frames";
    this.follow();
  }
}

customElements.define("length-field", LengthField);
