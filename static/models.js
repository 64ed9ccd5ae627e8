// The models as the service tells of them, for those who want to know what one can.

/** @typedef {import("./api.js").Model} Model */

/** @type {Model[]} */
let known = [];

/** Tells, as `change`, that something new is known of them. */
export const changes = new EventTarget();

/** @param {Model[]} models */
export function learn(models) {
  known = models;
  changes.dispatchEvent(new Event("change"));
}

/** Those of this name, else all; none before they are known. @param {string} name */
export function modelsOf(name) {
  const named = known.filter((model) => model.id === name);
  return named.length ? named : known;
}

/** Whether any of them begins with a picture; before they are known, one may. */
export const takePictures = () => !known.length || known.some((model) => model.limits.accepts_image);
