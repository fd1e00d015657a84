/**
 * The manifest of a bundle, checked field by field before anything else of the bundle is touched.
 * The schema is that of the Python runtime (docs/bundle.md); unknown and missing keys are refused.
 */

import { HummingbirdError, invalid } from "./errors.js";
import { checkOperators } from "./operators.js";

export const SCHEMA_VERSION = 1;
export const UPSCALER = "upscaler";
export const DECODERS = { full: "vae_decoder", tiny: "vae_decoder_tiny" };
const ROLES = [
  "text_encoder", "unet", "vae_decoder", "vae_decoder_tiny", "vae_encoder", "upscaler",
];
const USED_FILES = [
  "scheduler/scheduler_config.json", "tokenizer/vocab.json", "tokenizer/merges.txt",
  "tokenizer/tokenizer_config.json",
];
const MAX_FILES = 1024;
const SAFE_PATH =
  /^(?:[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}\/){0,6}[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}$/;

/**
 * @typedef {{sha256: string, bytes: number}} FileEntry
 * @typedef {{name: string, dtype: string, dims: (number | string)[]}} TensorEntry
 * @typedef {{path: string, opset: number, inputs: TensorEntry[], outputs: TensorEntry[],
 *   ops: string[], precision: string, session?: Record<string, any>}} GraphEntry
 * @typedef {{trained: number, default: number, multiple_of: number,
 *   allowed: [number, number]}} Side
 * @typedef {{default: number, trained: number[], allowed: [number, number]}} Choice
 * @typedef {object} ModelFacts
 * @property {number} latent_channels
 * @property {number} vae_scale_factor pixels per latent cell along one side
 * @property {{trained: number, default: number, allowed: [number, number]}} frames
 * @property {Side} height
 * @property {Side} width
 * @property {Choice} fps_condition
 * @property {number} playback_fps
 * @property {{kind: "embedded" | "cfg" | "none", default: number, trained: [number, number],
 *   allowed: [number, number]}} guidance
 * @property {number | null} timestep_cond_dim
 * @property {Choice} num_inference_steps
 * @property {number} scaling_factor
 * @property {number[][]} latent_rgb 3 rows of latent_channels weights and one bias
 * @property {string[]} vocabulary_examples
 * @property {string} grammar
 * @property {number} decode_chunk
 *
 * @typedef {object} Manifest
 * @property {string} bundle_id
 * @property {string} name
 * @property {Record<string, FileEntry>} files
 * @property {Record<string, GraphEntry>} graphs
 * @property {ModelFacts} model
 * @property {{name: string, file: string}} licence
 * @property {string} target
 */

/** @typedef {(value: any, where: string) => void} Check */

/** @param {(value: any) => boolean} test @param {string} expected @returns {Check} */
const that = (test, expected) => (value, where) => {
  if (!test(value)) invalid(where, `got ${shown(value)}, expected ${expected}`);
};
const text = that((v) => typeof v === "string", "text");
const number = that((v) => typeof v === "number", "a number");
const whole = that((v) => Number.isSafeInteger(v) && v >= 0, "a whole number");
const positive = that((v) => Number.isSafeInteger(v) && v >= 1, "a whole number above 0");
const anything = that(() => true, "anything");
/** @param {...unknown} choices @returns {Check} */
const oneOf = (...choices) => that((v) => choices.includes(v), `one of ${choices.join(", ")}`);
/** @param {Check} item @param {number} [length] @returns {Check} */
const list = (item, length) => (value, where) => {
  that((v) => Array.isArray(v) && (length === undefined || v.length === length), "a list")(
    value, where);
  value.forEach((/** @type {any} */ v, /** @type {number} */ i) => item(v, `${where}[${i}]`));
};
/** @param {Check} item @returns {Check} */
const table = (item) => (value, where) => {
  that(isObject, "an object")(value, where);
  for (const [key, v] of Object.entries(value)) item(v, `${where}.${key}`);
};
/** @param {Record<string, Check>} needed @param {Record<string, Check>} [optional]
 * @returns {Check} */
const record = (needed, optional = {}) => (value, where) => {
  that(isObject, "an object")(value, where);
  const known = { ...needed, ...optional };
  const unknown = Object.keys(value).filter((key) => !(key in known));
  const missing = Object.keys(needed).filter((key) => !(key in value));
  if (unknown.length || missing.length) {
    invalid(where, `unknown keys [${unknown.slice(0, 5)}], missing keys [${missing.slice(0, 5)}]`);
  }
  for (const [key, v] of Object.entries(value)) known[key](v, `${where}.${key}`);
};

const range = list(number, 2);
const side = record(
  { trained: positive, default: positive, multiple_of: positive, allowed: range });
const choice = record({ default: positive, trained: list(positive), allowed: range });
const tensor = record({
  name: text,
  dtype: oneOf("float32", "float16", "int64", "int32", "uint8", "int8", "bool"),
  dims: list(that((v) => typeof v === "string" || Number.isSafeInteger(v), "a size or a name")),
});
const graph = record(
  { path: text, opset: positive, inputs: list(tensor), outputs: list(tensor), ops: list(text) },
  {
    precision: text, parity: table(number), quality: table(number),
    session: record({}, {
      memory_reuse: oneOf(true, false, null), memory_pattern: oneOf(true, false, null),
      cpu_arena: oneOf(true, false, null), prepacking: oneOf(true, false, null),
      optimization: oneOf("disabled", "basic", "extended", "layout", "all", null),
      disabled_optimizers: list(oneOf("ConstantFolding")),
    }),
  });
const model = record({
  latent_channels: positive, vae_scale_factor: positive,
  frames: record({ trained: positive, default: positive, allowed: range }),
  height: side, width: side, fps_condition: choice, playback_fps: positive,
  guidance: record({
    kind: oneOf("embedded", "cfg", "none"), default: number, trained: range, allowed: range,
  }),
  timestep_cond_dim: that((v) => v === null || (Number.isSafeInteger(v) && v >= 2), "a width"),
  num_inference_steps: choice, scaling_factor: that((v) => v > 0, "more than 0"),
  latent_rgb: list(list(number), 3), vocabulary_examples: list(text), grammar: text,
  decode_chunk: positive,
});
const manifest = record(
  {
    bundle_id: that((v) => /^[0-9a-f-]{36}$/i.test(v), "a UUID"), name: text,
    files: table(record({
      sha256: that((v) => /^[0-9a-f]{64}$/.test(v), "64 hex digits"), bytes: whole,
    })),
    graphs: table(graph), model, licence: record({ name: text, file: text }),
    schema_version: oneOf(SCHEMA_VERSION),
  },
  { target: text, adapters: table(anything), provenance: table(anything) });

/**
 * Parse and check manifest.json.
 * @param {string} source its text
 * @returns {Manifest}
 * @throws {HummingbirdError} `bundle.version`, `bundle.manifest_invalid`, `bundle.unsafe_path`,
 *   `bundle.op_not_allowed`, `bundle.unsupported_opset`
 */
export function readManifest(source) {
  let value;
  try {
    value = JSON.parse(source);
  } catch (error) {
    invalid("manifest.json", `not JSON: ${/** @type {Error} */ (error).message}`);
  }
  if (isObject(value) && value.schema_version !== SCHEMA_VERSION) {
    throw new HummingbirdError("bundle.version",
      `manifest.json: got schema_version ${shown(value.schema_version)}, this page reads `
      + SCHEMA_VERSION, "update the page or export the bundle again");
  }
  manifest(value, "manifest");
  const { files, graphs, licence, model: facts } = /** @type {Manifest} */ (value);
  const paths = Object.keys(files);
  for (const path of [...paths, ...Object.values(graphs).map((entry) => entry.path)]) {
    if (!SAFE_PATH.test(path) || path.split("/").some((part) => part.endsWith("."))) {
      throw new HummingbirdError("bundle.unsafe_path",
        `manifest: got path ${shown(path)}, expected plain names inside the bundle`,
        "do not use this bundle");
    }
  }
  const folded = new Set(paths.map((path) => path.toLowerCase()));
  if (paths.length > MAX_FILES || folded.size !== paths.length
      || folded.has("manifest.json") || folded.has("manifest.sha256")) {
    invalid("files", `got ${paths.length} names, expected at most ${MAX_FILES}, all different`);
  }
  const needed = [...USED_FILES, licence.file, ...Object.values(graphs).map((g) => g.path)];
  const absent = needed.filter((path) => !(path in files));
  if (absent.length) invalid("files", `lacks ${absent}, expected every used file to be listed`);
  const unknown = Object.keys(graphs).filter((role) => !ROLES.includes(role));
  const decoder = Object.values(DECODERS).some((role) => role in graphs);
  if (unknown.length || !graphs.text_encoder || !graphs.unet || !decoder) {
    invalid("graphs", `got ${Object.keys(graphs)}, expected text_encoder, unet and a decoder`);
  }
  if (facts.latent_rgb.some((row) => row.length !== facts.latent_channels + 1)) {
    invalid("model.latent_rgb", `expected 3 rows of ${facts.latent_channels + 1} numbers`);
  }
  if ((facts.guidance.kind === "embedded") !== (facts.timestep_cond_dim !== null)) {
    invalid("model.timestep_cond_dim", "expected a width exactly when guidance is embedded");
  }
  for (const entry of Object.values(graphs)) checkOperators(entry);
  return value;
}

/** @param {unknown} value @returns {value is Record<string, any>} */
function isObject(value) {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** @param {unknown} value */
function shown(value) {
  return String(JSON.stringify(value)).slice(0, 60);
}
