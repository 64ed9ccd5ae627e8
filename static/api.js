// The only file that talks to the server. Every failure is an ApiError with a sentence for people.

/**
 * @typedef {{minimum: number, maximum: number, multiple_of: number | null}} Range
 * @typedef {Record<string, Range> & {accepts_image: boolean, draft: boolean, max_upload_mb: number,
 *   max_image_megapixels: number}} Limits
 * @typedef {{id: string, state: string, reason: string, checkpoint: string, bundled: boolean,
 *   limits: Limits, defaults: Record<string, number | string>, example_prompts: string[]}} Model
 * @typedef {{id: string, model: string, status: "queued" | "in_progress" | "completed" | "failed",
 *   phase: string, progress: number, step: number, num_steps: number, queue_position: number,
 *   created_at: number, completed_at: number | null, started_at: number | null, prompt: string,
 *   width: number, height: number, num_frames: number, fps: number, seconds: string, seed: number,
 *   checkpoint: string | null, generated_width: number | null, generated_height: number | null,
 *   segments: number | null, routing: string, notices: string[], video_url: string | null, error: {code: string, message: string} | null}} Video
 */

export class ApiError extends Error {
  /**
   * @param {string} message
   * @param {number} status 0 when the server did not answer at all
   */
  constructor(message, status) {
    super(message);
    this.status = status;
  }

  /** The field that the message names, or "". */
  get field() {
    return /^([a-z_]+): /.exec(this.message)?.[1] ?? "";
  }
}

/**
 * @param {string} path
 * @param {RequestInit} [options]
 * @returns {Promise<any>}
 */
async function call(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new ApiError("The service does not answer.", 0);
  }
  const body = await response.json().catch(() => null);
  if (response.ok || (path === "/health" && body?.status)) return body;
  const error = body?.error;
  const message = typeof error === "string" ? error : error?.message;
  throw new ApiError(message ?? `The service answered with an error (${response.status}).`, response.status);
}

/** @returns {Promise<{status: string, message: string}>} */
export const health = () => call("/health");

/** @returns {Promise<Model[]>} */
export const models = async () => (await call("/v1/models")).data;

/**
 * Begin a video; does not wait for it.
 * @param {FormData} form
 * @returns {Promise<string>} the job's id
 */
export async function generate(form) {
  const options = { method: "POST", body: form, headers: { Prefer: "respond-async" } };
  return (await call("/generate", options)).job_id;
}

/**
 * @param {string} id
 * @returns {Promise<Video>}
 */
export const video = (id) => call(`/v1/videos/${encodeURIComponent(id)}`);

/**
 * @param {string} id
 * @returns {Promise<Video>}
 */
export const cancel = (id) => call(`/v1/videos/${encodeURIComponent(id)}/cancel`, { method: "POST" });
