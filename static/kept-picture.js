// The chosen picture over a reload: localStorage takes no files, the browser's database does.

const STORE = "pictures";
const KEY = "composer";

/** @typedef {{file: File, position: number}} KeptPicture */

/**
 * @template T
 * @param {IDBRequest<T>} request
 * @returns {Promise<T>}
 */
function answer(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

/** @param {IDBTransactionMode} mode */
async function store(mode) {
  const opening = indexedDB.open("studio", 1);
  opening.onupgradeneeded = () => opening.result.createObjectStore(STORE);
  return (await answer(opening)).transaction(STORE, mode).objectStore(STORE);
}

/**
 * Keep the picture and where its frame is, null for none. A browser that stores nothing forgets.
 * @param {KeptPicture | null} picture
 */
export async function keepPicture(picture) {
  try {
    const pictures = await store("readwrite");
    if (picture) await answer(pictures.put(picture, KEY));
    else await answer(pictures.delete(KEY));
  } catch {
    // Storage may be full or forbidden.
  }
}

/** @returns {Promise<KeptPicture | null>} */
export async function keptPicture() {
  try {
    const found = await answer((await store("readonly")).get(KEY));
    return found?.file instanceof File ? found : null;
  } catch {
    return null;
  }
}
