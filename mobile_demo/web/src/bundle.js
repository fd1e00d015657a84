/**
 * A bundle fetched from its folder on the server and verified before a session exists: the manifest
 * against manifest.sha256, every listed file against its size and SHA-256 (WebCrypto).
 */

import { HummingbirdError } from "./errors.js";
import { readManifest } from "./manifest.js";
import { readScheduler } from "./schedule.js";
import { Tokenizer } from "./tokenizer.js";

/** @typedef {import("./manifest.js").Manifest} Manifest */
/** @typedef {(path: string) => Promise<Response>} Fetch */

/** Bytes of a bundle up to which its files are kept, and all its graphs stay open together. */
export const KEPT_TOGETHER = 2 ** 29;
const MAX_MANIFEST = 1 << 20;

export class Bundle {
  /** @type {Map<string, ArrayBuffer>} */
  #kept = new Map();
  /** @type {Fetch} */
  #fetch;

  /** @private @param {Fetch} fetchFile @param {Manifest} manifest @param {string} digest */
  constructor(fetchFile, manifest, digest) {
    this.#fetch = fetchFile;
    this.manifest = manifest;
    this.digest = digest;
    /** @type {number} */
    this.bytes = Object.values(manifest.files).reduce((sum, entry) => sum + entry.bytes, 0);
    this.small = this.bytes <= KEPT_TOGETHER;
    /** @type {import("./schedule.js").SchedulerConfig} */
    this.scheduler;
    /** @type {Tokenizer} */
    this.tokenizer;
  }

  /**
   * Fetch and verify a bundle; starts no session.
   * @param {string | Fetch} source URL of the folder, or a function of a relative path
   * @param {{onProgress?: (done: number, total: number) => void}} [options] in bytes
   * @returns {Promise<Bundle>}
   * @throws {HummingbirdError} `bundle.*`, `scheduler.invalid`, `tokenizer.invalid`
   */
  static async open(source, { onProgress = () => {} } = {}) {
    if (!globalThis.crypto?.subtle) {
      throw new HummingbirdError("web.insecure_context",
        "this page, got an address without WebCrypto, expected https:// or localhost",
        "serve the page over https");
    }
    const fetchFile = typeof source === "function" ? source
      : (/** @type {string} */ path) => fetch(source.replace(/\/*$/, "/") + path);
    const recorded = decode(await read(fetchFile, "manifest.sha256", 80));
    const text = await read(fetchFile, "manifest.json", MAX_MANIFEST);
    const digest = await sha256(text);
    if (recorded !== `${digest}\n`) {
      throw mismatch("manifest.json", `SHA-256 ${digest.slice(0, 12)}..`,
        `${recorded.slice(0, 12)}..`);
    }
    const bundle = new Bundle(fetchFile, readManifest(decode(text)), digest);
    let done = 0;
    for (const [path, entry] of Object.entries(bundle.manifest.files)) {
      const before = done;
      const data = await bundle.#verified(
        path, (count) => onProgress(before + count, bundle.bytes));
      done += entry.bytes;
      const used = /\.(json|txt)$/.test(path) || bundle.small;
      if (used) bundle.#kept.set(path, data);
    }
    const scheduler = JSON.parse(await bundle.text("scheduler/scheduler_config.json"));
    bundle.scheduler = readScheduler(scheduler);
    bundle.tokenizer = Tokenizer.fromFiles({
      vocab: await bundle.text("tokenizer/vocab.json"),
      merges: await bundle.text("tokenizer/merges.txt"),
      config: await bundle.text("tokenizer/tokenizer_config.json"),
    });
    return bundle;
  }

  /**
   * A graph's file and its external data, verified; given away, so ask once per opening.
   * @param {string} role
   * @returns {Promise<{model: Uint8Array, external: {path: string, data: Uint8Array}[]}>}
   */
  async graph(role) {
    const { path } = this.manifest.graphs[role];
    const folder = path.slice(0, path.lastIndexOf("/") + 1);
    const beside = Object.keys(this.manifest.files).filter(
      (name) => name.startsWith(folder) && name !== path && !/\.(json|md|txt)$/.test(name));
    const external = [];
    for (const name of beside) {
      external.push({ path: name.slice(folder.length), data: await this.#take(name) });
    }
    return { model: await this.#take(path), external };
  }

  /** @param {string} path @returns {Promise<string>} a listed text file */
  async text(path) {
    return decode(this.#kept.get(path) ?? await this.#verified(path));
  }

  /** @param {string} path */
  async #take(path) {
    const data = this.#kept.get(path) ?? await this.#verified(path);
    this.#kept.delete(path);
    return new Uint8Array(data);
  }

  /** @param {string} path @param {(bytes: number) => void} [onProgress] */
  async #verified(path, onProgress = () => {}) {
    const { sha256: expected, bytes } = this.manifest.files[path];
    const data = await read(this.#fetch, path, bytes, onProgress);
    if (data.byteLength !== bytes) throw wrongSize(path, data.byteLength, bytes);
    const got = await sha256(data);
    if (got !== expected) {
      throw mismatch(path, `SHA-256 ${got.slice(0, 12)}..`, `${expected.slice(0, 12)}..`);
    }
    return data;
  }
}

/** @param {BufferSource} data @returns {Promise<string>} lower-case hex digits */
export async function sha256(data) {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", data));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/**
 * A file of at most `limit` bytes.
 * @param {Fetch} fetchFile @param {string} path @param {number} limit
 * @param {(bytes: number) => void} [onProgress]
 * @returns {Promise<ArrayBuffer>}
 */
async function read(fetchFile, path, limit, onProgress = () => {}) {
  /** @param {unknown} error */
  const unreadable = (error) => new HummingbirdError("bundle.unreadable",
    `bundle file ${path}: ${error instanceof Error ? error.message : error}, expected a file`,
    "check the connection and load the page again");
  const response = await fetchFile(path).catch((error) => { throw unreadable(error); });
  if (!response.ok || !response.body) {
    if (response.status !== 404) throw unreadable(`got status ${response.status}`);
    throw new HummingbirdError("bundle.missing_file", `bundle file ${path}: the server has none`,
      "copy the whole bundle to the server");
  }
  const whole = new Uint8Array(limit);
  const reader = response.body.getReader();
  let size = 0;
  for (;;) {
    const { done, value } = await reader.read().catch((error) => { throw unreadable(error); });
    if (done) break;
    if (size + value.length > limit) {
      await reader.cancel();
      throw wrongSize(path, `more than ${limit}`, limit);
    }
    whole.set(value, size);
    size += value.length;
    onProgress(size);
  }
  return size === limit ? whole.buffer : whole.buffer.slice(0, size);
}

/** @param {string} path @param {number | string} got @param {number} expected */
function wrongSize(path, got, expected) {
  return new HummingbirdError("bundle.size_mismatch",
    `bundle file ${path}: got ${got} bytes, expected ${expected}`,
    "copy or export the bundle again");
}

/** @param {ArrayBuffer} data */
function decode(data) {
  return new TextDecoder("utf-8", { fatal: true }).decode(data);
}

/** @param {string} path @param {string} got @param {string} expected */
function mismatch(path, got, expected) {
  return new HummingbirdError("bundle.hash_mismatch",
    `bundle file ${path}: got ${got}, expected ${expected}`,
    "the file is damaged or was changed; copy or export the bundle again");
}
