// Pictures on their way to the model: decoded, cropped and shrunk in the browser, never scaled up.

import { letGo } from "./clip.js";

const PATIENCE_MS = 15_000;

/**
 * The largest part of a picture that has the video's shape. `position` slides it along the longer
 * way: 0 is left or top, 1 right or bottom.
 * @param {{width: number, height: number}} picture
 * @param {{width: number, height: number}} video
 * @param {number} position
 */
export function cropOf(picture, video, position) {
  const scale = Math.min(picture.width / video.width, picture.height / video.height);
  const width = Math.min(picture.width, video.width * scale);
  const height = Math.min(picture.height, video.height * scale);
  return { x: (picture.width - width) * position, y: (picture.height - height) * position, width, height };
}

/**
 * What the model will see: the crop, at the size of the video or below.
 * @param {ImageBitmap} picture
 * @param {{width: number, height: number}} video
 * @param {number} position
 * @returns {Promise<Blob>}
 */
export function fitted(picture, video, position) {
  const crop = cropOf(picture, video, position);
  const shrink = Math.min(1, video.width / crop.width);
  const width = Math.max(1, Math.round(crop.width * shrink));
  const height = Math.max(1, Math.round(crop.height * shrink));
  return drawn(width, height, (context) => {
    context.drawImage(picture, crop.x, crop.y, crop.width, crop.height, 0, 0, width, height);
  });
}

/**
 * The last frame of a video of this server.
 * @param {string} url
 * @returns {Promise<File>}
 */
export async function lastFrameOf(url) {
  const video = document.createElement("video");
  video.muted = true;
  video.playsInline = true;
  video.preload = "auto";
  video.src = url;
  try {
    await goToEnd(video);
    const { videoWidth, videoHeight } = video;
    const blob = await drawn(videoWidth, videoHeight, (context) => context.drawImage(video, 0, 0));
    return new File([blob], "last-frame.png", { type: "image/png" });
  } finally {
    letGo(video);
  }
}

/** @param {HTMLVideoElement} video */
async function goToEnd(video) {
  const loaded = once(video, "loadeddata");
  // On an iPhone no picture comes before a video plays. Where it may not, others send one anyway.
  video.play().catch(() => {});
  await loaded;
  video.pause();
  video.currentTime = Math.max(0, video.duration - 0.001);
  if (video.seeking) await once(video, "seeked");
}

/**
 * @param {HTMLVideoElement} video
 * @param {string} event
 * @returns {Promise<void>}
 */
function once(video, event) {
  return new Promise((resolve, reject) => {
    const fail = (/** @type {string} */ sentence) => () => reject(new Error(sentence));
    video.addEventListener(event, () => resolve(), { once: true });
    video.addEventListener("error", fail("This browser cannot play the video."), { once: true });
    setTimeout(fail("The last frame does not come. Try again, or in another browser."), PATIENCE_MS);
  });
}

/**
 * @param {number} width
 * @param {number} height
 * @param {(context: CanvasRenderingContext2D) => void} draw
 * @returns {Promise<Blob>}
 */
function drawn(width, height, draw) {
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  context.imageSmoothingQuality = "high";
  draw(context);
  return new Promise((resolve, reject) => {
    canvas.toBlob(
      (blob) => (blob ? resolve(blob) : reject(new Error("The picture is too large."))),
      "image/png",
    );
  });
}
