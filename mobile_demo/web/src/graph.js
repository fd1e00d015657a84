/**
 * One open graph of a bundle, seen as a function of typed arrays. Opening compares the file's own
 * inputs and outputs with the manifest; running refuses NaN and infinities.
 */

import { HummingbirdError } from "./errors.js";
import { countNodes } from "./placement.js";

/** @typedef {import("./engine.js").Engine} Engine */
/** @typedef {import("./manifest.js").GraphEntry} GraphEntry */
/** @typedef {{data: Float32Array | BigInt64Array, dims: readonly number[]}} Feed */

const WEBGPU = "WebGpuExecutionProvider";

export class Graph {
  #session;
  #ort;
  #entry;
  #role;

  /** @private @param {Engine["ort"]} ort @param {any} session @param {GraphEntry} entry
   * @param {string} role @param {Record<string, number>} nodes */
  constructor(ort, session, entry, role, nodes) {
    /** Nodes by execution provider; empty on WebAssembly, which runs them all. */
    this.nodes = nodes;
    this.#ort = ort;
    this.#session = session;
    this.#entry = entry;
    this.#role = role;
  }

  /**
   * Open a graph's verified bytes.
   * @param {Engine} engine @param {string} role @param {GraphEntry} entry
   * @param {{model: Uint8Array, external: {path: string, data: Uint8Array}[]}} files
   * @returns {Promise<Graph>}
   * @throws {HummingbirdError} `runtime.load_failed`, `bundle.signature_mismatch`,
   *   `provider.unsupported_nodes` where WebGPU took no node at all
   */
  static async open(engine, role, entry, { model, external }) {
    const create = (options = {}) => engine.ort.InferenceSession.create(model, {
      ...sessionOptions(entry.session ?? {}),
      ...options,
      executionProviders: [engine.provider],
      externalData: external,
    });
    let nodes, session;
    try {
      nodes = await countNodes(create);
      session = await create();
    } catch (error) {
      throw failure("runtime.load_failed", role, engine, error);
    }
    const graph = new Graph(engine.ort, session, entry, role, nodes);
    try {
      checkSignature(session, entry, role);
      if (engine.provider === "webgpu" && !nodes[WEBGPU]) {
        throw new HummingbirdError("provider.unsupported_nodes",
          `graph ${role}: got nodes on ${JSON.stringify(nodes)}, expected some on ${WEBGPU}`,
          "choose WebAssembly");
      }
    } catch (error) {
      await graph.close();
      throw error;
    }
    return graph;
  }

  /**
   * The graph's one output as float32.
   * @param {Record<string, Feed>} feeds by input name; whole numbers are narrowed where the graph
   *   takes int32
   * @returns {Promise<Float32Array>}
   * @throws {HummingbirdError} `runtime.run_failed`, `numeric.non_finite`
   */
  async run(feeds) {
    /** @type {Record<string, any>} */
    const tensors = {};
    for (const { name, dtype } of this.#entry.inputs) {
      const { data, dims } = feeds[name];
      const typed = dtype === "int32" ? Int32Array.from(data, Number) : data;
      tensors[name] = new this.#ort.Tensor(/** @type {any} */ (dtype), typed, dims);
    }
    const name = this.#entry.outputs[0].name;
    let values;
    try {
      const outputs = await this.#session.run(tensors, [name]);
      values = /** @type {Float32Array} */ (await outputs[name].getData(true));
    } catch (error) {
      throw failure("runtime.run_failed", this.#role, null, error);
    }
    if (!values.every(Number.isFinite)) {
      throw new HummingbirdError("numeric.non_finite",
        `output of ${this.#role}: got NaN or infinities, expected finite numbers`,
        "use a bundle with float32 weights and a guidance scale inside the trained range");
    }
    return values;
  }

  /** The one length that an input takes along its first axis; null where it is free.
   * @param {string} input */
  fixedFirstSize(input) {
    const first = this.#entry.inputs.find(({ name }) => name === input)?.dims[0];
    return typeof first === "number" ? first : null;
  }

  async close() {
    await this.#session.release();
  }
}

/** How the bundle asks for a graph to be opened, in ONNX Runtime Web's terms.
 * @param {Record<string, any>} settings */
export function sessionOptions(settings) {
  /** @type {Record<string, any>} */
  const options = { logSeverityLevel: 3 }; // errors alone
  if (settings.optimization) options.graphOptimizationLevel = settings.optimization;
  if (settings.cpu_arena != null) options.enableCpuMemArena = settings.cpu_arena;
  if (settings.memory_pattern != null) options.enableMemPattern = settings.memory_pattern;
  if (settings.prepacking != null) {
    options.extra = { session: { disable_prepacking: settings.prepacking ? "0" : "1" } };
  }
  return options;
}

/** @param {any} session @param {GraphEntry} entry @param {string} role */
function checkSignature(session, entry, role) {
  for (const [side, metadata, expected] of [
    ["input", session.inputMetadata, entry.inputs],
    ["output", session.outputMetadata, entry.outputs],
  ]) {
    const names = metadata.map((/** @type {any} */ t) => t.name).sort();
    const wanted = expected.map((/** @type {any} */ t) => t.name).sort();
    if (names.join() !== wanted.join()) throw differs(role, `${side}s`, names, wanted);
    for (const tensor of expected) {
      const found = metadata.find((/** @type {any} */ t) => t.name === tensor.name);
      const fits = found.isTensor && found.type === tensor.dtype
        && found.shape.length === tensor.dims.length
        && found.shape.every((/** @type {any} */ size, /** @type {number} */ i) => {
          const both = typeof size === "number" && typeof tensor.dims[i] === "number";
          if (both) return size === tensor.dims[i];
          return side === "output" || typeof size === typeof tensor.dims[i];
        });
      if (!fits) {
        throw differs(role, `${side} ${tensor.name}`, `${found.type} [${found.shape}]`,
          `${tensor.dtype} [${tensor.dims}]`);
      }
    }
  }
}

/** @param {string} role @param {string} what @param {unknown} got @param {unknown} expected */
function differs(role, what, got, expected) {
  return new HummingbirdError("bundle.signature_mismatch",
    `graph ${role}: ${what} got ${got}, the manifest says ${expected}`,
    "the graph belongs to another bundle; export or copy the bundle again");
}

/** @param {string} code @param {string} role @param {Engine | null} engine
 * @param {unknown} error */
function failure(code, role, engine, error) {
  const text = String(error instanceof Error ? error.message : error).split("\n")[0].slice(0, 300);
  const where = engine ? ` on ${engine.provider}` : "";
  return new HummingbirdError(code, `graph ${role}${where}: ${text}`,
    "close other pages to free memory, or choose WebAssembly");
}
