/** The order of a run, cancelling and failing, on graphs that are plain functions. */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { decoderInput, latentPreview, toByte } from "../src/decode.js";
import { Pipeline } from "../src/pipeline.js";

const FOLDER = new URL("../../../runtime/hummingbird_runtime/_bundles/shapes-v1/", import.meta.url);
const MANIFEST = JSON.parse(readFileSync(new URL("manifest.json", FOLDER)).toString());
const ROLES = ["text_encoder", "unet", "vae_decoder"];
/** @param {Uint8Array} model which graph the bytes are */
const roleOf = (model) => Object.keys(MANIFEST.graphs).find(
  (role) => MANIFEST.files[MANIFEST.graphs[role].path].bytes === model.byteLength);

/** An engine whose graphs halve their input, and a log of what it did.
 * @param {{spoil?: (role: string, values: Float32Array) => void, rename?: string}} [options] */
function engine({ spoil = () => {}, rename } = {}) {
  const log = [];
  class Tensor {
    constructor(type, data, dims) {
      assert.equal(data.length, dims.reduce((a, b) => a * b, 1));
      Object.assign(this, { type, data, dims });
    }
  }
  const metadata = (tensors) => tensors.map(({ name, dtype, dims }) => ({
    name: name === rename ? "other" : name, isTensor: true, type: dtype, shape: dims,
  }));
  const create = async (model) => {
    const role = roleOf(model), { inputs, outputs } = MANIFEST.graphs[role];
    return {
      inputMetadata: metadata(inputs), outputMetadata: metadata(outputs),
      release: async () => log.push(`close ${role}`),
      run: async (feeds, [name]) => {
        log.push(role);
        let values;
        if (role === "text_encoder") values = new Float32Array(24 * 96).fill(0.1);
        else if (role === "unet") values = feeds.sample.data.map((x) => x / 2);
        else if (role === "upscaler") {
          assert.ok(feeds.sample.data.every((x) => Math.abs(x) <= 1));
          values = new Float32Array(16 * feeds.sample.data.length).fill(feeds.sample.data[0]);
        }
        else values = new Float32Array(feeds.latent_sample.dims[0] * 3 * 64 * 64).fill(0.5);
        spoil(role, values);
        return { [name]: { getData: async () => values } };
      },
    };
  };
  return {
    log, ort: { Tensor, InferenceSession: { create } },
    provider: "wasm", threads: 1, device: "CPU", reason: "",
  };
}

const open = (fake) => Pipeline.fromPretrained(
  fake, async (path) => new Response(readFileSync(new URL(path, FOLDER))));
const small = { upscale: false };
const upscales = "upscaler" in MANIFEST.graphs;

async function collect(stream) {
  const events = [];
  for await (const event of stream) events.push(event);
  return events;
}

test("a run goes through its stages in order", async () => {
  const fake = engine();
  const pipe = await open(fake);
  const events = await collect(pipe.stream("a red cat", { ...small, seed: 1 }));
  assert.deepEqual(fake.log, ["text_encoder", "unet", "unet", "unet", "unet", "vae_decoder"]);
  assert.deepEqual(events.map(({ type }) => type), [
    "started", "tokens", "warning", "step", "step", "step", "step", "frames", "done"]);
  assert.match(events[2].text, /ignores: cat; try: a small red/);
  const { video } = events.at(-1);
  assert.deepEqual([video.count, video.height, video.width, video.fps], [26, 64, 64, 8]);
  assert.ok(video.frames.every((byte) => byte === 191)); // floor(0.75 * 255 + 0.5)
  assert.deepEqual(video.stages.map(({ name }) => name),
    ["text", "step", "step", "step", "step", "decode"]);
});

test("frames come four times larger where the bundle has an upscaler", { skip: !upscales }, async () => {
  const fake = engine({ spoil: (role, values) => { if (role === "vae_decoder") values.fill(3); } });
  const pipe = await open(fake);
  const events = await collect(pipe.stream("a red ball"));
  const { video } = events.at(-1);
  assert.deepEqual([video.count, video.height, video.width], [26, 256, 256]);
  assert.ok(video.frames.every((byte) => byte === 255)); // 3 is clipped to 1 before it is enlarged
  const pieces = events.filter(({ type }) => type === "frames");
  assert.deepEqual(pieces.map(({ start }) => start), [0, 4, 8, 12, 16, 20, 24]);
  assert.equal(pieces.at(-1).frames.length, 2 * 256 * 256 * 3);
  assert.deepEqual(video.stages.map(({ name }) => name).slice(5),
    ["decode", ...Array(7).fill("upscale")]);
});

test("a wish for larger frames that cannot be met is refused", async () => {
  const pipe = await open(engine());
  await assert.rejects(pipe.stream("a ball", { upscale: true, outputType: "latent" }).next(),
    { code: "request.upscale" });
  if (!upscales) {
    await assert.rejects(pipe.stream("a ball", { upscale: true }).next(),
      { code: "bundle.no_such_graph" });
  }
});

test("cancelling stops at the next step and the pipeline stays usable", async () => {
  const fake = engine();
  const pipe = await open(fake);
  const abort = new AbortController();
  const run = async () => {
    for await (const event of pipe.stream("a ball", { signal: abort.signal })) {
      if (event.type === "step" && event.i === 1) abort.abort();
    }
  };
  await assert.rejects(run(), { code: "runtime.cancelled" });
  assert.equal(fake.log.filter((role) => role === "unet").length, 2);
  assert.equal((await collect(pipe.stream("a ball", { outputType: "latent" }))).at(-1)
    .latents.length, 4 * 26 * 8 * 8);
});

test("a second run is refused while one is going on", async () => {
  const pipe = await open(engine());
  const first = pipe.stream("a ball");
  await first.next();
  await assert.rejects(pipe.stream("a ball").next(), { code: "runtime.busy" });
  await first.return();
  await collect(pipe.stream("a ball"));
  await pipe.close();
  await assert.rejects(pipe.stream("a ball").next(), { code: "runtime.closed" });
});

test("numbers that are not finite end the run and name the graph", async () => {
  for (const role of ROLES) {
    const spoil = (which, values) => { if (which === role) values[5] = NaN; };
    const pipe = await open(engine({ spoil }));
    await assert.rejects(collect(pipe.stream("a ball")), { code: "numeric.non_finite" });
  }
});

test("a graph with another signature than the manifest's is refused", async () => {
  await assert.rejects(open(engine({ rename: "timestep_cond" })),
    { code: "bundle.signature_mismatch" });
});

test("bytes, decoder input and preview by hand", () => {
  assert.deepEqual([-2, -1, -0.5, 0, 0.5, 1, 9].map(toByte), [0, 0, 64, 128, 191, 255, 255]);
  const latents = Float32Array.of(1, 2, 3, 10, 20, 30); // 2 channels, 3 frames, 1 cell
  assert.deepEqual([...decoderInput(latents, [2, 3, 1], 1, 3, 2)], [1, 10, 1.5, 15, 1.5, 15]);
  const rows = [[1, 0, 0], [0, 0.1, 0], [0, 0, 1]];
  assert.deepEqual([...latentPreview(latents, [2, 3, 1], rows)],
    [255, 255, 255, 255, 255, 255, 255, 255, 255]);
  assert.deepEqual([...latentPreview(latents, [2, 3, 1], [[0, 0, -1], [0, 0, 0], [-0.1, 0, 0]])],
    [0, 128, 115, 0, 128, 102, 0, 128, 89]);
});
