// Small ways to reach into the page. Text goes in as text: nothing here parses HTML.

/**
 * The element with this id; a missing one is a fault in the page.
 * @param {string} id
 * @returns {any}
 */
export function element(id) {
  const found = document.getElementById(id);
  if (!found) throw new Error(`no element #${id}`);
  return found;
}

/**
 * @param {string} tag
 * @param {string} text
 */
export function made(tag, text) {
  const node = document.createElement(tag);
  node.textContent = text;
  return node;
}

/**
 * A time in words: "9 s", "1 min 20 s".
 * @param {number} seconds
 */
export function inWords(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  return whole < 60 ? `${whole} s` : `${Math.floor(whole / 60)} min ${whole % 60} s`;
}
