// What an empty wall says: what this is, what the checkpoints know, and something to begin with.

import { h } from "../dom.js";

/**
 * @param {string[]} examples
 * @param {boolean} demo
 * @param {(prompt: string) => void} offer
 */
export function invitation(examples, demo, offer) {
  const buttons = examples.map((prompt) =>
    h("button", { type: "button", onclick: () => offer(prompt) }, prompt),
  );
  const known =
    "The loaded checkpoints are the small demo ones: they know a drawn world of balls, squares and triangles. ";
  const more = h("a", { href: "#/system" }, "How to get the published ones");
  return [
    h("p", { class: "lead" }, "Describe a scene, press Make, and watch it appear here."),
    ...(demo ? [h("p", { class: "hint" }, known, more)] : []),
    ...(buttons.length
      ? [
          h("p", { class: "hint" }, "To begin, take one of these:"),
          h("div", { class: "examples" }, ...buttons),
        ]
      : []),
  ];
}
