/**
 * How fast this device draws, as the document `hummingbird-device/1` that `hummingbird bench
 * devices` merges: one clip with opening the model, the first after it, then steady ones.
 */

import { sha256 } from "./bundle.js";
import { Hummingbird } from "./client.js";
import { HummingbirdError } from "./errors.js";
import { VERSION } from "./version.js";

/** @typedef {import("./client.js").OpenOptions} OpenOptions */

const SEED = 7;
const STEADY = 3;

/**
 * @param {OpenOptions & {onClip?: (done: number, total: number) => void, signal?: AbortSignal}}
 *   [options] the model is opened anew, so close other clients of it first
 * @returns {Promise<Record<string, any>>}
 * @throws {HummingbirdError}
 */
export async function measureDevice({ onClip = () => {}, signal, ...open } = {}) {
  const total = 2 + STEADY;
  const samples = [];
  const begin = performance.now();
  const client = await Hummingbird.open(open);
  try {
    const { manifest, engine } = client.info;
    const facts = manifest.model;
    const prompt = facts.vocabulary_examples[0] ?? "a ball moving to the left";
    /** @type {import("./pipeline.js").Video | undefined} */
    let video;
    for (let i = 0; i < total; i++) {
      onClip(i, total);
      const start = i === 0 ? begin : performance.now();
      for await (const event of client.stream(prompt, { seed: SEED, signal, upscale: false })) {
        if (event.type === "done") video = event.video;
      }
      const wall = (performance.now() - start) / 1000;
      samples.push(clipTime(["cold", "first"][i] ?? "steady", wall, video));
    }
    let latents;
    for await (const event of client.stream(prompt, { seed: SEED, signal, outputType: "latent" })) {
      if (event.type === "done") latents = event.latents;
    }
    if (!video || !latents) throw new HummingbirdError("web.unexpected", "a run gave no clip");
    onClip(total, total);
    return {
      schema: "hummingbird-device/1",
      measured_at: new Date().toISOString().replace(/\.\d+Z$/, "Z"),
      device: await describeDevice(),
      software: {
        program: "hummingbird-web", version: VERSION,
        engine: `onnxruntime-web ${engine.version}`.trim(),
        provider: engine.provider === "webgpu" ? `WebGPU (${engine.device})` : "WebAssembly",
      },
      bundle: { id: manifest.bundle_id, name: manifest.name },
      clip: {
        prompt, seed: SEED, frames: video.count, height: video.height, width: video.width,
        steps: facts.num_inference_steps.default,
        guidance: facts.guidance.kind === "none" ? null : facts.guidance.default,
        decoder: "vae_decoder" in manifest.graphs ? "full" : "tiny",
        precision: manifest.graphs.unet.precision ?? "fp32",
        threads: engine.provider === "wasm" ? engine.threads : null,
      },
      samples,
      latents_sha256: await sha256(/** @type {BufferSource} */ (latents)),
    };
  } finally {
    client.close();
  }
}

/** @param {string} phase @param {number} wall_s
 * @param {import("./pipeline.js").Video | undefined} video */
function clipTime(phase, wall_s, video) {
  /** @param {string} name */
  const seconds = (name) =>
    (video?.stages ?? []).filter((stage) => stage.name === name).map((stage) => stage.seconds);
  /** @param {number[]} values */
  const sum = (values) => values.reduce((a, b) => a + b, 0);
  return {
    phase, wall_s, text_s: sum(seconds("text")), steps_s: seconds("step"),
    decode_s: sum(seconds("decode")), peak_memory_bytes: null,
  };
}

/** What the browser tells of its device. */
async function describeDevice() {
  const data = /** @type {any} */ (navigator).userAgentData;
  const hints = await data?.getHighEntropyValues?.(["model", "platformVersion", "fullVersionList"])
    .catch(() => undefined);
  /** @type {{brand: string, version: string}[]} */
  const brands = hints?.fullVersionList ?? data?.brands ?? [];
  const brand = brands.find((entry) => !/^not|chromium/i.test(entry.brand.replace(/\W/g, "")))
    ?? brands.find((entry) => entry.brand === "Chromium");
  const browser = brand ? `${brand.brand} ${brand.version}`
    : /(Firefox|Version|Chrome)\/[\d.]+/.exec(navigator.userAgent)?.[0] ?? "browser";
  const platform = [data?.platform ?? navigator.platform, hints?.platformVersion]
    .filter(Boolean).join(" ");
  return {
    name: hints?.model || platform || "browser", kind: "browser",
    system: `${browser}, ${platform || "unknown system"}`, processor: "",
    cores: navigator.hardwareConcurrency || null, memory_bytes: null,
  };
}
