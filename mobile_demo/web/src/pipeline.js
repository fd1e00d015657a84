/**
 * From a sentence to a clip in the browser: tokens, context, noise, loop, frames, in the order and
 * with the arithmetic of the Python runtime. Draws nothing on the page; see app.js.
 */

import { Bundle } from "./bundle.js";
import { decoderInput, latentPreview, toFrames } from "./decode.js";
import { HummingbirdError } from "./errors.js";
import { Graph } from "./graph.js";
import { classifierFreeMix, guidanceEmbedding } from "./guidance.js";
import { DECODERS, UPSCALER } from "./manifest.js";
import { noise } from "./noise.js";
import { checkRequest } from "./request.js";
import { sample } from "./sampler.js";
import { UPSCALE, upscale } from "./upscale.js";

/** @typedef {import("./engine.js").Engine} Engine */
/** @typedef {import("./request.js").Options} Options */
/** @typedef {import("./request.js").Request} Request */
/**
 * @typedef {object} Video
 * @property {Uint8Array} frames [F, H, W, 3], RGB
 * @property {number} count F @property {number} height H @property {number} width W
 * @property {number} fps playback rate
 * @property {string} prompt @property {string} seed decimal digits @property {string} bundleId
 * @property {{name: string, index: number, start: number, seconds: number}[]} stages seconds; start
 *   counts from the beginning of the run, index steps and chunks, of upscaling first frames
 *
 * @typedef {{type: "started", request: Request, bundleId: string}
 *   | {type: "warning", code: string, text: string}
 *   | {type: "tokens", ids: BigInt64Array, truncated: boolean, unknown: string[]}
 *   | {type: "step", i: number, n: number, t: number, seconds: number, preview: Uint8Array,
 *      height: number, width: number}
 *   | {type: "frames", start: number, frames: Uint8Array}
 *   | {type: "done", video?: Video, latents?: Float32Array}} Event
 */

const ALWAYS = ["text_encoder", "unet"];

export class Pipeline {
  /** @type {Map<string, Graph>} */
  #open = new Map();
  #busy = false;
  #closed = false;

  /** @private @param {Engine} engine @param {Bundle} bundle */
  constructor(engine, bundle) {
    this.engine = engine;
    this.bundle = bundle;
  }

  /**
   * Verify a bundle, then open the graphs that every run needs (large bundles: stage by stage).
   * @param {Engine} engine
   * @param {string | import("./bundle.js").Fetch} source URL of the bundle's folder
   * @param {{onProgress?: (done: number, total: number) => void}} [options]
   * @returns {Promise<Pipeline>}
   */
  static async fromPretrained(engine, source, options) {
    const pipe = new Pipeline(engine, await Bundle.open(source, options));
    if (pipe.bundle.small) {
      const { graphs } = pipe.bundle.manifest;
      const decoders = Object.values(DECODERS).filter((role) => role in graphs);
      const frames = [...(decoders.length === 1 ? decoders : []), UPSCALER];
      for (const role of [...ALWAYS, ...frames.filter((role) => role in graphs)]) {
        await pipe.#graph(role);
      }
    }
    return pipe;
  }

  /**
   * Draw one clip.
   * @param {string} prompt @param {Options} [options]
   * @returns {AsyncGenerator<Event>} the last event is `done`
   * @throws {HummingbirdError} `runtime.busy`, `runtime.cancelled`, and what the stages raise
   */
  async *stream(prompt, options = {}) {
    if (this.#closed) throw new HummingbirdError("runtime.closed", "the pipeline is closed");
    if (this.#busy) {
      throw new HummingbirdError("runtime.busy", "the pipeline is drawing another clip",
        "wait for it or cancel it");
    }
    this.#busy = true;
    try {
      yield* this.#run(prompt, options);
    } finally {
      this.#busy = false;
      if (!this.bundle.small) await this.#closeAll();
    }
  }

  /** Nodes by execution provider of the graphs that are open, by role; empty on WebAssembly. */
  get nodes() {
    return Object.fromEntries([...this.#open].map(([role, graph]) => [role, graph.nodes]));
  }

  /** Free every graph. */
  async close() {
    this.#closed = true;
    await this.#closeAll();
  }

  /** @param {string} prompt @param {Options} options @returns {AsyncGenerator<Event>} */
  async *#run(prompt, options) {
    const { manifest, scheduler, tokenizer } = this.bundle;
    const facts = manifest.model;
    const { request, warnings } = checkRequest(manifest, scheduler, prompt, options);
    const stage = stopwatch();
    yield { type: "started", request, bundleId: manifest.bundle_id };
    for (const warning of warnings) yield { type: "warning", ...warning };

    const twice = facts.guidance.kind === "cfg";
    const texts = [request.prompt, ...(twice ? [request.negativePrompt] : [])];
    const tokens = texts.map((text) => tokenizer.encode(text));
    yield { type: "tokens", ...tokens[0] };
    for (const warning of tokenWarnings(tokens[0], facts.vocabulary_examples)) {
      yield { type: "warning", ...warning };
    }
    stage.restart();
    const encoder = await this.#graph("text_encoder");
    const contexts = [];
    for (const { ids } of tokens) {
      const data = await encoder.run({ input_ids: { data: ids, dims: [1, ids.length] } });
      contexts.push({ data, dims: [1, ids.length, data.length / ids.length] });
    }
    stage.lap("text", 0);
    await this.#done("text_encoder", options.signal);

    stage.restart();
    const size = latentSize(request, facts);
    const unet = await this.#graph("unet");
    const denoise = denoiser(unet, request, facts, contexts, size);
    /** @param {number} stream */
    const noiseOf = (stream) => noise(
      request.seed, stream, request.numFrames, facts.latent_channels, size.height, size.width);
    let latents = noiseOf(0);
    const steps = sample(
      denoise, latents, scheduler, request.numInferenceSteps, (i) => noiseOf(1 + i));
    for await (const state of steps) {
      latents = state.denoised;
      const seconds = stage.lap("step", state.index);
      const preview = latentPreview(latents, size.planes, facts.latent_rgb);
      yield {
        type: "step", i: state.index, n: state.count, t: state.timestep, seconds, preview,
        height: size.height, width: size.width,
      };
      throwIfAborted(options.signal);
      stage.restart();
    }
    await this.#done("unet", options.signal);
    if (request.outputType === "latent") {
      yield { type: "done", latents };
      return;
    }

    stage.restart();
    const decoder = await this.#graph(request.decoder);
    const larger = request.upscale ? await this.#graph(UPSCALER) : null;
    const pixels = request.height * request.width, scale = larger ? UPSCALE : 1;
    const shown = scale ** 2 * pixels; // pixels of a frame of the clip
    const frames = new Uint8Array(request.numFrames * shown * 3);
    const chunk = facts.decode_chunk, fixed = decoder.fixedFirstSize("latent_sample") !== null;
    for (let start = 0, index = 0; start < request.numFrames; start += chunk, index++) {
      const count = Math.min(chunk, request.numFrames - start), fed = fixed ? chunk : count;
      const decoded = await decoder.run({
        latent_sample: {
          data: decoderInput(latents, size.planes, start, fed, facts.scaling_factor),
          dims: [fed, facts.latent_channels, size.height, size.width],
        },
      });
      if (decoded.length !== fed * 3 * pixels) {
        throw new HummingbirdError("runtime.decoder_shape",
          `decoded frames, got ${decoded.length} numbers, expected ${fed * 3 * pixels}`,
          "the bundle's decoder does not fit its vae_scale_factor; export it again");
      }
      const whole = [{ start: 0, count, pixels: decoded }];
      stage.lap("decode", index);
      for await (const piece of larger ? upscale(larger, decoded, count, request) : whole) {
        const part = toFrames(piece.pixels, piece.count, shown);
        frames.set(part, (start + piece.start) * shown * 3);
        if (larger) stage.lap("upscale", start + piece.start);
        yield { type: "frames", start: start + piece.start, frames: part };
        throwIfAborted(options.signal);
        stage.restart();
      }
    }
    await this.#done(request.decoder, options.signal);
    if (larger) await this.#done(UPSCALER, options.signal);
    yield {
      type: "done",
      video: {
        frames, count: request.numFrames,
        height: scale * request.height, width: scale * request.width,
        fps: facts.playback_fps, prompt: request.prompt, seed: String(request.seed),
        bundleId: manifest.bundle_id, stages: stage.laps,
      },
    };
  }

  /** @param {string} role @returns {Promise<Graph>} */
  async #graph(role) {
    let graph = this.#open.get(role);
    if (!graph) {
      const files = await this.bundle.graph(role);
      graph = await Graph.open(this.engine, role, this.bundle.manifest.graphs[role], files);
      this.#open.set(role, graph);
    }
    return graph;
  }

  /** The end of a stage: a large bundle's graph is closed, a waiting cancellation is obeyed.
   * @param {string} role @param {AbortSignal | undefined} signal */
  async #done(role, signal) {
    if (!this.bundle.small) {
      await this.#open.get(role)?.close();
      this.#open.delete(role);
    }
    throwIfAborted(signal);
  }

  async #closeAll() {
    const graphs = [...this.#open.values()];
    this.#open.clear();
    for (const graph of graphs) await graph.close();
  }
}

/** Sizes of a request's latent. @param {Request} request
 * @param {import("./manifest.js").ModelFacts} facts */
function latentSize(request, facts) {
  const height = request.height / facts.vae_scale_factor;
  const width = request.width / facts.vae_scale_factor;
  return {
    height, width,
    dims: [1, facts.latent_channels, request.numFrames, height, width],
    planes: /** @type {[number, number, number]} */ (
      [facts.latent_channels, request.numFrames, height * width]),
  };
}

/**
 * The function (x_t, t) -> network output that the solvers call.
 * @param {Graph} unet @param {Request} request
 * @param {import("./manifest.js").ModelFacts} facts
 * @param {import("./graph.js").Feed[]} contexts [1, L, D]: the prompt's and, for classifier-free
 *   guidance, the negative prompt's
 * @param {{dims: number[]}} size
 */
function denoiser(unet, request, facts, contexts, size) {
  /** @type {Record<string, import("./graph.js").Feed>} */
  const fixed = { fps: { data: BigInt64Array.of(BigInt(request.fpsCondition)), dims: [1] } };
  if (facts.timestep_cond_dim !== null) {
    fixed.timestep_cond = {
      data: guidanceEmbedding(request.guidanceScale, facts.timestep_cond_dim),
      dims: [1, facts.timestep_cond_dim],
    };
  }
  return async (/** @type {Float32Array} */ x, /** @type {number} */ t) => {
    const outputs = [];
    for (const context of contexts) {
      outputs.push(await unet.run({
        ...fixed,
        sample: { data: x, dims: size.dims },
        timestep: { data: BigInt64Array.of(BigInt(t)), dims: [] },
        encoder_hidden_states: context,
      }));
    }
    const [conditional, unconditional] = outputs;
    return unconditional
      ? classifierFreeMix(unconditional, conditional, request.guidanceScale) : conditional;
  };
}

/** @param {import("./tokenizer.js").Tokens} tokens @param {string[]} examples */
function* tokenWarnings({ truncated, numTokens, ids, unknown }, examples) {
  if (truncated) {
    yield {
      code: "prompt.truncated",
      text: `the prompt has ${numTokens} tokens, the model reads ${ids.length}: the end is cut off`,
    };
  }
  if (unknown.length) {
    const example = examples.length ? `; try: ${examples[0]}` : "";
    yield {
      code: "prompt.unknown_words",
      text: `the prompt has words the model ignores: ${unknown.join(", ")}${example}`,
    };
  }
}

/** Seconds by stage; only time between `restart` and `lap` counts. */
function stopwatch() {
  const begin = performance.now();
  let mark = begin;
  /** @type {Video["stages"]} */
  const laps = [];
  return {
    laps,
    restart() { mark = performance.now(); },
    /** @param {string} name @param {number} index @returns {number} */
    lap(name, index) {
      const seconds = (performance.now() - mark) / 1000;
      laps.push({ name, index, start: (mark - begin) / 1000, seconds });
      mark = performance.now();
      return seconds;
    },
  };
}

/** @param {AbortSignal | undefined} signal */
function throwIfAborted(signal) {
  if (signal?.aborted) {
    throw new HummingbirdError("runtime.cancelled", "cancelled by the caller");
  }
}
