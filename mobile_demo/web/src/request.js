/**
 * A request: every argument of a call checked against what the bundle allows, defaults filled in.
 * Above what the model was trained on but allowed is a warning; beyond what is allowed an error.
 */

import { HummingbirdError } from "./errors.js";
import { DECODERS, UPSCALER } from "./manifest.js";
import { parseSeed } from "./noise.js";
import { maxSteps, within } from "./schedule.js";

/**
 * @typedef {object} Options as in the Python runtime's `pipe(prompt, ...)`, in camel case
 * @property {number} [numFrames]
 * @property {number} [height] pixels
 * @property {number} [width] pixels
 * @property {number} [numInferenceSteps]
 * @property {number} [guidanceScale]
 * @property {string} [negativePrompt] only for models with classifier-free guidance
 * @property {bigint | number | string} [seed] 0..2^64-1; equal seeds, equal noise everywhere
 * @property {number} [fpsCondition]
 * @property {"full" | "tiny"} [decoder] full where the bundle has both
 * @property {boolean} [upscale] frames four times larger; true where the bundle can
 * @property {"video" | "latent"} [outputType]
 * @property {AbortSignal} [signal] cancels between two runs of a graph
 *
 * @typedef {object} Request
 * @property {string} prompt @property {string} negativePrompt @property {number} numFrames
 * @property {number} height @property {number} width @property {number} numInferenceSteps
 * @property {number} guidanceScale @property {bigint} seed @property {number} fpsCondition
 * @property {string} decoder role of the graph @property {boolean} upscale
 * @property {"video" | "latent"} outputType
 *
 * @typedef {{code: string, text: string}} Warning
 */

export const MAX_PROMPT_BYTES = 1 << 16;
const FPS_LIMIT = 999;

/**
 * @param {import("./manifest.js").Manifest} manifest
 * @param {import("./schedule.js").SchedulerConfig} scheduler
 * @param {string} prompt @param {Options} options
 * @returns {{request: Request, warnings: Warning[]}}
 * @throws {HummingbirdError} `prompt.*`, `request.*`, `bundle.no_such_graph`
 */
export function checkRequest(manifest, scheduler, prompt, options) {
  const { model: facts, graphs } = manifest;
  /** @type {Warning[]} */
  const warnings = [];
  /** @param {string} name @param {unknown} got @param {unknown} trained */
  const untrained = (name, got, trained) => warnings.push({
    code: "request.untrained",
    text: `${name} ${got}: the model was trained on ${trained}, the clip may look worse`,
  });
  /** @param {string} code @param {string} name @param {number} value
   * @param {readonly [number, number]} allowed @param {boolean} [whole] */
  const inRange = (code, name, value, [low, high], whole = true) => {
    if (!within(value, low, high, whole)) {
      throw new HummingbirdError(code, `${name}, got ${value}, expected ${low} to ${high}`,
        "ask for a value inside the range");
    }
    return value;
  };
  /** @param {string} name @param {number | undefined} value
   * @param {import("./manifest.js").Side} side */
  const sideLength = (name, value, side) => {
    const length = value ?? side.default, [low, high] = side.allowed;
    if (!within(length, low, high, true) || length % side.multiple_of) {
      throw new HummingbirdError("request.size", `${name}, got ${length}, expected a multiple of `
        + `${side.multiple_of} from ${low} to ${high}`, "ask for a size inside the range");
    }
    if (length !== side.trained) untrained(name, length, side.trained);
    return length;
  };
  /** @param {string} code @param {string} name @param {number | undefined} value
   * @param {import("./manifest.js").Choice} choice @param {number} cap */
  const listed = (code, name, value, choice, cap) => {
    const [low, high] = choice.allowed;
    const got = inRange(code, name, value ?? choice.default, [low, Math.min(high, cap)]);
    if (!choice.trained.includes(got)) untrained(name, got, choice.trained.join(" or "));
    return got;
  };

  const numFrames = inRange(
    "request.frames", "numFrames", options.numFrames ?? facts.frames.default, facts.frames.allowed);
  if (numFrames > facts.frames.trained) untrained("numFrames", numFrames, facts.frames.trained);
  const { guidance } = facts;
  const guidanceScale = options.guidanceScale ?? guidance.default;
  if (options.guidanceScale !== undefined && guidance.kind === "none") {
    throw new HummingbirdError("request.guidance", `guidanceScale, got ${guidanceScale}, expected `
      + "none: this model takes no guidance", "leave it out");
  }
  inRange("request.guidance", "guidanceScale", guidanceScale, guidance.allowed, false);
  if (!within(guidanceScale, ...guidance.trained)) {
    untrained("guidanceScale", guidanceScale, guidance.trained.join(" to "));
  }
  if (options.negativePrompt !== undefined && guidance.kind !== "cfg") {
    throw new HummingbirdError("request.negative_prompt",
      `negativePrompt, got a text, expected none: guidance is '${guidance.kind}'`, "leave it out");
  }
  const decoders = Object.entries(DECODERS).filter(([, role]) => role in graphs);
  const decoder = options.decoder ?? decoders[0][0];
  const role = decoders.find(([name]) => name === decoder)?.[1];
  if (!role) {
    throw new HummingbirdError("bundle.no_such_graph", `decoder, got '${decoder}', expected what `
      + `this bundle has: ${decoders.map(([name]) => name)}`, "leave it out");
  }
  const request = {
    prompt: promptText("prompt", prompt),
    negativePrompt: promptText("negativePrompt", options.negativePrompt ?? ""),
    numFrames,
    height: sideLength("height", options.height, facts.height),
    width: sideLength("width", options.width, facts.width),
    numInferenceSteps: listed("request.steps", "numInferenceSteps", options.numInferenceSteps,
      facts.num_inference_steps, maxSteps(scheduler)),
    guidanceScale,
    seed: parseSeed(options.seed ?? 0n),
    fpsCondition: listed("request.fps_condition", "fpsCondition", options.fpsCondition,
      facts.fps_condition, FPS_LIMIT),
    decoder: role,
    upscale: upscaling(options, graphs),
    outputType: options.outputType ?? "video",
  };
  return { request, warnings };
}

/** Whether frames go through the upscaler. @param {Options} options
 * @param {Record<string, unknown>} graphs */
function upscaling({ upscale, outputType }, graphs) {
  if (upscale && outputType === "latent") {
    throw new HummingbirdError("request.upscale",
      "upscale, got true with outputType 'latent', expected frames to upscale", "leave it out");
  }
  if (upscale && !(UPSCALER in graphs)) {
    throw new HummingbirdError("bundle.no_such_graph",
      "upscale, got true, expected false: this bundle has no upscaler", "leave it out");
  }
  return (upscale ?? UPSCALER in graphs) && outputType !== "latent";
}

/** @param {string} name @param {unknown} value @returns {string} */
function promptText(name, value) {
  if (typeof value !== "string") {
    throw new HummingbirdError("prompt.type", `${name}, got ${typeof value}, expected a text`);
  }
  if (value.length > MAX_PROMPT_BYTES
      || new TextEncoder().encode(value).length > MAX_PROMPT_BYTES) {
    throw new HummingbirdError("prompt.too_long",
      `${name}, got more than ${MAX_PROMPT_BYTES} bytes of text`,
      "describe the clip in one or two sentences");
  }
  return value;
}
