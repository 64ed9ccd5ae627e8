// Small ways to reach into the page. Text goes in as text: nothing here parses HTML.

/**
 * The element that fits `selector` inside `root`; a missing one is a fault in the page.
 * @param {ParentNode} root
 * @param {string} selector
 * @returns {any}
 */
export function $(root, selector) {
  const found = root.querySelector(selector);
  if (!found) throw new Error(`no element ${selector}`);
  return found;
}

/**
 * Make an element: `on…` are listeners, true and false set and leave out attributes.
 * @param {string} tag
 * @param {Record<string, any>} [given]
 * @param {...(Node | string | null)} children
 * @returns {any}
 */
export function h(tag, given = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(given)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value !== null) node.setAttribute(name, String(value));
  }
  node.append(...children.filter((child) => child !== null));
  return node;
}

/**
 * A fresh copy of the only element of the template `#id`.
 * @param {string} id
 * @returns {any}
 */
export function fromTemplate(id) {
  return document.importNode($(document, `#${id}`).content.firstElementChild, true);
}

/**
 * Set a text only when it changes, so that it is announced once and nothing is laid out in vain.
 * @param {Element} node
 * @param {string} text
 */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/**
 * Have a screen reader say a sentence.
 * @param {string} sentence
 */
export function announce(sentence) {
  $(document, "#announcer").textContent = sentence;
}

/**
 * What this browser has kept under `key`, or null.
 * @param {string} key
 * @returns {any}
 */
export function kept(key) {
  try {
    return JSON.parse(localStorage.getItem(key) ?? "null");
  } catch {
    return null;
  }
}

/**
 * Keep `value` in this browser. One that stores nothing forgets: the page works without.
 * @param {string} key
 * @param {unknown} value
 */
export function keep(key, value) {
  try {
    localStorage.setItem(key, JSON.stringify(value));
  } catch {
    // Storage may be full or forbidden.
  }
}

/** Forget all that this browser has kept. */
export function forget() {
  try {
    for (const key of Object.keys(localStorage)) if (key.startsWith("studio.")) localStorage.removeItem(key);
  } catch {
    // What is forbidden holds nothing.
  }
}

/**
 * @param {string} title
 * @param {...(Node | string)} children
 */
export const section = (title, ...children) => h("section", {}, h("h3", {}, title), ...children);

/**
 * Have `list` hold one child for each key, in this order. A child that stays is not made anew, so that
 * neither the focus nor a selection in it is lost.
 * @param {Element} list
 * @param {string[]} keys
 * @param {(key: string) => HTMLElement} make
 * @returns {HTMLElement[]} the children
 */
export function arrange(list, keys, make) {
  const focused = /** @type {HTMLElement | null} */ (document.activeElement);
  const there = new Map(
    [...list.children].map((child) => [/** @type {HTMLElement} */ (child).dataset.key, child]),
  );
  for (const [key, child] of there) if (!keys.includes(key ?? "")) child.remove();
  const children = keys.map((key, index) => {
    const child = /** @type {HTMLElement} */ (there.get(key) ?? make(key));
    child.dataset.key = key;
    if (list.children[index] !== child) list.insertBefore(child, list.children[index] ?? null);
    return child;
  });
  // Moving takes the focus away.
  if (focused !== document.activeElement && list.contains(focused)) focused?.focus();
  return children;
}
