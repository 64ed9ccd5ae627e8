// A video's recipe: from the video to a form, and the same as a command to copy.

/**
 * @typedef {import("./api.js").Video} Video
 * @typedef {Record<string, string>} Recipe the fields of the form, as text; empty ones are left to
 *   the server
 */

/** Every field of a recipe, in the order in which people think of them. */
export const FIELDS = [
  "prompt",
  "negative_prompt",
  "model",
  "width",
  "height",
  "num_frames",
  "fps",
  "seed",
  "num_inference_steps",
  "guidance_scale",
  "quality",
  "loras",
  "low_vram",
];
const OPENAI = ["prompt", "model"];
const TEXTS = ["negative_prompt", "quality", "loras"];

/**
 * Whatever of the recipe the server tells; what is still left to the model is not in it.
 * @param {Video} video
 * @returns {Recipe}
 */
export function recipeOf(video) {
  /** @type {Record<string, any>} */
  const told = video;
  const known = FIELDS.filter((name) => told[name] !== undefined && told[name] !== null);
  const pairs = known.map((name) => [name, name === "loras" ? loraText(told.loras) : String(told[name])]);
  return Object.fromEntries(pairs);
}

/**
 * The text of the field `loras`.
 * @param {{name: string, strength: number}[]} loras
 */
export const loraText = (loras) => loras.map(({ name, strength }) => `${name}:${strength}`).join(", ");

/**
 * The same the other way.
 * @param {string} text
 */
export const lorasIn = (text) =>
  text
    .split(",")
    .map((one) => one.trim().split(":"))
    .filter(([name]) => name)
    .map(([name, strength]) => ({ name, strength: Number(strength ?? 1) }));

/** @param {Recipe} recipe */
const given = (recipe) =>
  FIELDS.map((name) => [name, recipe[name] ?? ""]).filter(
    ([name, value]) => value !== "" && !(name === "low_vram" && value === "false"),
  );

/**
 * @param {Recipe} recipe
 * @param {Blob | null} picture
 * @returns {FormData}
 */
export function toForm(recipe, picture) {
  const form = new FormData();
  for (const [name, value] of given(recipe)) form.append(name, value);
  form.append("lawful_use_consent", "true");
  if (picture) form.append("input_reference", picture, "picture.png");
  return form;
}

/** @param {string} text */
const shell = (text) => `'${text.replaceAll("'", "'\\''")}'`;

/** Where the commands look for the picture that a video begins with. */
const PICTURE = "picture.png";

/**
 * @param {Recipe} recipe
 * @param {boolean} withKey whether this server wants an API key
 * @param {boolean} withPicture whether it begins with one
 */
export function asCurl(recipe, withKey, withPicture) {
  const lines = [`curl ${shell(`${location.origin}/v1/videos`)}`];
  if (withKey) lines.push('-H "Authorization: Bearer $VIDEO_API_KEY"');
  // --form-string, not -F, which would read a value that begins with @ or < from a file.
  for (const [name, value] of given(recipe)) lines.push(`--form-string ${shell(`${name}=${value}`)}`);
  if (withPicture) lines.push(`-F input_reference=@${PICTURE}`);
  lines.push("--form-string 'lawful_use_consent=true'");
  return lines.join(" \\\n  ");
}

/**
 * A program for OpenAI's official client.
 * @param {Recipe} recipe
 * @param {boolean} withKey whether this server wants an API key
 * @param {boolean} withPicture whether it begins with one
 */
export function asPython(recipe, withKey, withPicture) {
  const pairs = given(recipe);
  const own = pairs.filter(([name]) => OPENAI.includes(name));
  const extra = pairs.filter(([name]) => !OPENAI.includes(name));
  return [
    ...(withKey ? ["import os"] : []),
    ...(withPicture ? ["from pathlib import Path"] : []),
    ...(withKey || withPicture ? [""] : []),
    "from openai import OpenAI",
    "",
    "client = OpenAI(",
    `    base_url=${JSON.stringify(`${location.origin}/v1`)},`,
    withKey ? '    api_key=os.environ["VIDEO_API_KEY"],' : '    api_key="unused",',
    '    default_headers={"X-Lawful-Use-Consent": "true"},',
    ")",
    "video = client.videos.create_and_poll(",
    ...own.map(([name, value]) => `    ${name}=${JSON.stringify(value)},`),
    ...(withPicture ? [`    input_reference=Path("${PICTURE}"),`] : []),
    "    extra_body={",
    ...extra.map(([name, value]) => `        ${JSON.stringify(name)}: ${literal(name, value)},`),
    "    },",
    ")",
    "print(video.status, video.error)",
    'client.videos.download_content(video.id).write_to_file("video.mp4")',
  ].join("\n");
}

/**
 * @param {string} name
 * @param {string} value
 */
function literal(name, value) {
  if (name === "low_vram") return value === "true" ? "True" : "False";
  return TEXTS.includes(name) ? JSON.stringify(value) : value;
}
