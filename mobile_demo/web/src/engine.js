/**
 * What runs the graphs: ONNX Runtime Web on WebGPU, or on WebAssembly with SIMD and threads. The
 * choice is made once, before a graph is opened, and is told; a provider that was asked for by name
 * and cannot run is an error, never another provider.
 */

import { HummingbirdError } from "./errors.js";
import { listenToEngine } from "./placement.js";

/** @typedef {typeof import("onnxruntime-web")} Ort */
/** @typedef {"webgpu" | "wasm"} Provider */
/**
 * @typedef {object} Engine
 * @property {Ort} ort
 * @property {Provider} provider
 * @property {number} threads of WebAssembly; 1 on WebGPU
 * @property {string} device the adapter's name, or "CPU"
 * @property {string} reason why this one, one sentence for people
 */

const FILES = {
  webgpu: { module: "ort.webgpu.min.mjs", binary: "ort-wasm-simd-threaded.asyncify" },
  wasm: { module: "ort.wasm.min.mjs", binary: "ort-wasm-simd-threaded" },
};
const MOST_THREADS = 8;

/**
 * Choose and load an engine.
 * @param {object} [options]
 * @param {"auto" | Provider} [options.provider]
 * @param {number} [options.threads] of WebAssembly; every core up to 8 by default
 * @param {string} [options.vendor] URL of the folder with ONNX Runtime Web's files
 * @returns {Promise<Engine>}
 * @throws {HummingbirdError} `provider.unavailable`, `session.threads`
 */
export async function loadEngine({ provider = "auto", threads, vendor } = {}) {
  const gpu = provider === "wasm" ? { problem: "WebAssembly was asked for" } : await findGpu();
  if (provider === "webgpu" && gpu.problem) {
    throw new HummingbirdError("provider.unavailable",
      `provider webgpu, got ${gpu.problem}, expected a graphics adapter`, "choose WebAssembly");
  }
  const software = provider === "auto" && gpu.software;
  const chosen = gpu.problem || software ? "wasm" : "webgpu";
  if (chosen === "webgpu") listenToEngine();
  const folder = vendor ?? new URL("../vendor/", import.meta.url).href;
  const { module, binary } = FILES[chosen];
  const ort = /** @type {Ort} */ (await import(`${folder}${module}`));
  ort.env.wasm.wasmPaths = {
    mjs: `${folder}${binary}.mjs`, wasm: `${folder}${binary}.wasm`,
  };
  ort.env.logLevel = "error";
  const isolated = globalThis.crossOriginIsolated === true;
  const most = isolated && chosen === "wasm"
    ? Math.min(navigator.hardwareConcurrency, MOST_THREADS) : 1;
  if (threads !== undefined && !(Number.isInteger(threads) && threads >= 1 && threads <= most)) {
    throw new HummingbirdError("session.threads", `threads, got ${threads}, expected 1 to ${most}`,
      isolated ? "ask for fewer" : "serve the page cross-origin isolated for more than one thread");
  }
  ort.env.wasm.numThreads = threads ?? most;
  const alone = isolated ? "" : "; one thread, because the page is not cross-origin isolated";
  return {
    ort,
    provider: chosen,
    threads: ort.env.wasm.numThreads,
    device: chosen === "webgpu" ? gpu.name ?? "GPU" : "CPU",
    reason: chosen === "webgpu" ? `WebGPU on ${gpu.name}`
      : `WebAssembly: ${software ? `${gpu.name} is a software adapter` : gpu.problem}${alone}`,
  };
}

/** The files of an engine, for the cache. @param {Provider} provider @returns {string[]} URLs */
export function engineFiles(provider) {
  const { module, binary } = FILES[provider];
  return [module, `${binary}.mjs`, `${binary}.wasm`].map(
    (name) => new URL(`../vendor/${name}`, import.meta.url).href);
}

/** What an engine is called on the page. @param {Engine} engine */
export function engineLabel({ provider, threads, device }) {
  if (provider === "webgpu") return `WebGPU, ${device}`;
  return `WebAssembly, ${threads} thread${threads === 1 ? "" : "s"}`;
}

/** @returns {Promise<{problem?: string, name?: string, software?: boolean}>} */
async function findGpu() {
  const gpu = /** @type {any} */ (globalThis.navigator)?.gpu;
  if (!gpu) return { problem: "no WebGPU in this browser" };
  const adapter = await gpu.requestAdapter({ powerPreference: "high-performance" })
    .catch(() => null);
  if (!adapter) return { problem: "no WebGPU adapter on this device" };
  const info = adapter.info ?? {};
  const name = [info.vendor, info.architecture, info.description].filter(Boolean).join(" ")
    || "GPU";
  const software = adapter.isFallbackAdapter === true || info.isFallbackAdapter === true
    || /swiftshader|llvmpipe|software/i.test(name);
  return { name, software };
}
