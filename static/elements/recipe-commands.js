// A video's recipe as a command, for the shell and for Python, to be copied.

import * as api from "../api.js";
import { h } from "../dom.js";
import { icon } from "../icons.js";
import { asCurl, asPython, recipeOf } from "../recipe.js";

/** @typedef {import("../api.js").Video} Video */

class RecipeCommands extends HTMLElement {
  /** @param {Video} video */
  show(video) {
    const recipe = recipeOf(video);
    const { has_image: withPicture } = video;
    const withKey = api.hasKey();
    const text = h("pre", { tabindex: 0, "aria-label": "The command" });
    const copy = h("button", { type: "button", onclick: () => copied(text, copy) }, icon("copy"), "Copy");
    const tab = (/** @type {string} */ name, /** @type {() => string} */ command) => {
      const show = () => {
        text.textContent = command();
        for (const one of tabs) one.setAttribute("aria-pressed", String(one === button));
      };
      const button = h("button", { type: "button", class: "quiet", onclick: show }, name);
      return button;
    };
    const tabs = [
      tab("curl", () => asCurl(recipe, withKey, withPicture)),
      tab("Python", () => asPython(recipe, withKey, withPicture)),
    ];
    this.replaceChildren(
      h(
        "details",
        { class: "commands" },
        h("summary", {}, "As a command"),
        h("div", { class: "buttons" }, ...tabs, copy),
        text,
      ),
    );
    tabs[0].click();
  }
}

/**
 * @param {HTMLElement} text
 * @param {HTMLElement} button
 */
async function copied(text, button) {
  try {
    await navigator.clipboard.writeText(text.textContent ?? "");
    button.lastChild?.replaceWith("Copied");
  } catch {
    // Away from localhost browsers keep the clipboard to themselves: the text is selected instead.
    getSelection()?.selectAllChildren(text);
    button.lastChild?.replaceWith("Selected, ready to be copied");
  }
}

customElements.define("recipe-commands", RecipeCommands);
