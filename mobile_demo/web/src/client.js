/**
 * Hummingbird for a page: the pipeline in a worker, as an object with `open` and `stream`. This is
 * the module that another page imports; it touches nothing of the document.
 */

import { HummingbirdError } from "./errors.js";

/** @typedef {import("./pipeline.js").Event} Event */
/** @typedef {import("./request.js").Options} Options */
/**
 * @typedef {object} OpenOptions
 * @property {string} [bundle] URL of the bundle's folder
 * @property {"auto" | "webgpu" | "wasm"} [provider] a named one that cannot run is an error
 * @property {number} [threads] of WebAssembly
 * @property {(done: number, total: number) => void} [onProgress] bytes fetched and verified
 *
 * @typedef {object} Info
 * @property {import("./manifest.js").Manifest} manifest
 * @property {string} digest SHA-256 of the manifest
 * @property {import("./schedule.js").SchedulerConfig} scheduler
 * @property {number} bytes of the whole bundle
 * @property {{provider: import("./engine.js").Provider, threads: number, device: string,
 *   reason: string, label: string, version: string,
 *   nodes: Record<string, Record<string, number>>}} engine nodes by role and execution provider,
 *   told on WebGPU
 *
 * @typedef {{resolve: (value: any) => void, reject: (error: unknown) => void,
 *   onEvent: (event: Event) => void}} Waiting
 */

const PATIENCE_MS = 1500;

export class Hummingbird {
  /** @type {Worker | null} */
  #worker = null;
  /** @type {Map<number, Waiting>} */
  #waiting = new Map();
  #next = 0;
  /** @type {OpenOptions} */
  #options;
  /** What was opened. */
  info = /** @type {Info} */ (/** @type {unknown} */ (null));

  /** @private @param {OpenOptions} options */
  constructor(options) {
    this.#options = options;
  }

  /**
   * Fetch and verify a bundle and open its graphs.
   * @param {OpenOptions} [options]
   * @returns {Promise<Hummingbird>}
   * @throws {HummingbirdError}
   */
  static async open(options = {}) {
    const client = new Hummingbird(options);
    await client.#start();
    return client;
  }

  /**
   * Draw one clip and report what happens; the last event is `done`.
   * @param {string} prompt @param {Options} [options] `signal` cancels
   * @returns {AsyncGenerator<Event>}
   * @throws {HummingbirdError}
   */
  async *stream(prompt, { signal, ...options } = {}) {
    if (!this.#worker) await this.#start();
    /** @type {Event[]} */
    const events = [];
    /** @type {() => void} */
    let wake = () => {};
    let over = false;
    const cancel = () => this.#cancel();
    signal?.addEventListener("abort", cancel);
    const end = this.#call("stream", { prompt, options }, (event) => {
      events.push(event);
      wake();
    }).finally(() => {
      over = true;
      wake();
    });
    end.catch(() => {}); // told below
    if (signal?.aborted) cancel();
    try {
      while (!over || events.length) {
        const event = events.shift();
        if (event) yield event;
        else await new Promise((resolve) => { wake = () => resolve(undefined); });
      }
      await end;
    } finally {
      signal?.removeEventListener("abort", cancel);
      if (!over) cancel();
    }
  }

  /** Draw one clip. @param {string} prompt @param {Options} [options] */
  async draw(prompt, options = {}) {
    for await (const event of this.stream(prompt, { ...options, outputType: "video" })) {
      if (event.type === "done" && event.video) return event.video;
    }
    throw new HummingbirdError("web.unexpected", "the run ended without a clip");
  }

  /** How the model reads a prompt. @param {string} prompt
   * @returns {Promise<import("./tokenizer.js").Tokens>} */
  async tokens(prompt) {
    if (!this.#worker) await this.#start();
    return this.#call("tokens", prompt);
  }

  /** A text file of the bundle. @param {string} path @returns {Promise<string>} */
  async text(path) {
    if (!this.#worker) await this.#start();
    return this.#call("text", path);
  }

  /** Free the model and its thread; a run that is going on is cancelled. */
  close() {
    this.#end(new HummingbirdError("runtime.cancelled", "cancelled by the caller"));
  }

  /** @param {HummingbirdError} error what the calls that are waiting get */
  #end(error) {
    this.#worker?.terminate();
    this.#worker = null;
    const waiting = [...this.#waiting.values()];
    this.#waiting.clear();
    for (const { reject } of waiting) reject(error);
  }

  async #start() {
    const { bundle = new URL("../bundle/", import.meta.url).href, provider = "auto", threads,
      onProgress } = this.#options;
    this.#worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
    this.#worker.onmessage = ({ data: { id, event, result, error, progress } }) => {
      if (progress) {
        onProgress?.(progress.done, progress.total);
        return;
      }
      const waiting = this.#waiting.get(id);
      if (event) {
        waiting?.onEvent(event);
        return;
      }
      this.#waiting.delete(id);
      if (error) waiting?.reject(new HummingbirdError(error.code, error.message, error.hint));
      else waiting?.resolve(result);
    };
    this.#worker.onerror = (event) => {
      event.preventDefault();
      this.#end(new HummingbirdError("web.worker",
        `the worker ended: ${event.message ?? "no reason"}`, "load the page again"));
    };
    try {
      const folder = new URL(bundle, document.baseURI).href;
      this.info = await this.#call("open", { bundle: folder, provider, threads });
    } catch (error) {
      this.close();
      throw error;
    }
  }

  /** The worker obeys between two runs of a graph; where that takes too long it is ended, and the
   * next call opens the bundle again. */
  #cancel() {
    this.#worker?.postMessage({ id: -1, call: "cancel" });
    const worker = this.#worker;
    const calls = [...this.#waiting.keys()];
    setTimeout(() => {
      if (this.#worker === worker && calls.some((id) => this.#waiting.has(id))) this.close();
    }, PATIENCE_MS);
  }

  /**
   * @param {string} call @param {unknown} argument @param {(event: Event) => void} [onEvent]
   * @returns {Promise<any>}
   */
  #call(call, argument, onEvent = () => {}) {
    const id = this.#next++;
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject, onEvent });
      this.#worker?.postMessage({ id, call, argument });
    });
  }
}
