/** What the page refuses: every way in which a bundle can be damaged, each with its code. */

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFileSync, readdirSync } from "node:fs";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

import { Bundle } from "../src/bundle.js";
import { readManifest } from "../src/manifest.js";
import { checkRequest } from "../src/request.js";

const FOLDER = fileURLToPath(
  new URL("../../../runtime/hummingbird_runtime/_bundles/shapes-v1/", import.meta.url));
const FILES = new Map(readdirSync(FOLDER, { recursive: true, withFileTypes: true })
  .filter((entry) => entry.isFile())
  .map((entry) => `${entry.parentPath ?? entry.path}/${entry.name}`.replace(/\/+/g, "/"))
  .map((path) => [path.slice(FOLDER.length), readFileSync(path)]));
const MANIFEST = JSON.parse(FILES.get("manifest.json").toString());

/** A server of the built-in bundle with some files replaced; null removes one.
 * @param {Record<string, Uint8Array | string | null>} [changes] */
const serve = (changes = {}) => async (/** @type {string} */ path) => {
  const data = path in changes ? changes[path] : FILES.get(path);
  return data == null ? new Response("", { status: 404 }) : new Response(data);
};

/** The same with another manifest, sealed again. @param {(manifest: any) => void} edit */
function resealed(edit) {
  const manifest = structuredClone(MANIFEST);
  edit(manifest);
  const text = JSON.stringify(manifest);
  const digest = createHash("sha256").update(text).digest("hex");
  return serve({ "manifest.json": text, "manifest.sha256": `${digest}\n` });
}

/** @param {Promise<unknown>} promise @param {string} code */
const refused = (promise, code) => assert.rejects(promise, (/** @type {any} */ error) => {
  assert.equal(error.code, code, error.message);
  assert.ok(error.hint);
  return true;
});

test("the built-in bundle opens and reports its progress", async () => {
  /** @type {number[]} */
  const seen = [];
  const bundle = await Bundle.open(
    serve(), { onProgress: (done, total) => seen.push(done / total) });
  assert.equal(bundle.manifest.name, "shapes-v1");
  assert.equal(bundle.scheduler.sampler, "lcm");
  assert.equal(seen.at(-1), 1);
  assert.deepEqual(seen, [...seen].sort((a, b) => a - b));
});

test("a flipped bit is found in every single file", async () => {
  for (const [path, data] of FILES) {
    const flipped = Uint8Array.from(data);
    flipped[flipped.length >> 1] ^= 1;
    await refused(Bundle.open(serve({ [path]: flipped })), "bundle.hash_mismatch");
  }
});

test("a short, long or missing file is named", async () => {
  const path = "tokenizer/vocab.json", data = FILES.get(path);
  await refused(Bundle.open(serve({ [path]: data.subarray(1) })), "bundle.size_mismatch");
  await refused(
    Bundle.open(serve({ [path]: Buffer.concat([data, data]) })), "bundle.size_mismatch");
  await refused(Bundle.open(serve({ [path]: null })), "bundle.missing_file");
  await refused(Bundle.open(serve({ "manifest.sha256": null })), "bundle.missing_file");
  await refused(Bundle.open(() => Promise.reject(new Error("gone"))), "bundle.unreadable");
});

test("a manifest that says what it may not say is refused", async () => {
  const cases = {
    "bundle.version": (m) => { m.schema_version = 2; },
    "bundle.unsafe_path": (m) => { m.files["../x"] = m.files.LICENSE; },
    "bundle.op_not_allowed": (m) => { m.graphs.unet.ops.push("ai.onnx:Loop"); },
    "bundle.unsupported_opset": (m) => { m.graphs.unet.opset = 99; },
    "bundle.manifest_invalid": (m) => { m.extra = 1; },
  };
  for (const [code, edit] of Object.entries(cases)) {
    await refused(Bundle.open(resealed(edit)), code);
  }
  for (const edit of [
    (m) => { delete m.model.scaling_factor; },
    (m) => { m.model.frames.default = "26"; },
    (m) => { m.model.latent_rgb[0].pop(); },
    (m) => { delete m.graphs.unet; },
    (m) => { delete m.files["tokenizer/vocab.json"]; },
    (m) => { m.files.license = m.files.LICENSE; },
    (m) => { m.graphs.unet.session = { prepacking: "no" }; },
    (m) => { m.model.timestep_cond_dim = null; },
  ]) {
    await refused(Bundle.open(resealed(edit)), "bundle.manifest_invalid");
  }
  assert.throws(() => readManifest("{"), { code: "bundle.manifest_invalid" });
});

test("requests are held to what the bundle allows", async () => {
  const { manifest, scheduler } = await Bundle.open(serve());
  const check = (options, prompt = "a red ball") =>
    checkRequest(manifest, scheduler, prompt, options);
  const { request, warnings } = check({});
  assert.deepEqual([request.numFrames, request.seed, warnings], [26, 0n, []]);
  assert.equal(check({ seed: "18446744073709551615" }).request.seed, 2n ** 64n - 1n);
  assert.equal(check({ numFrames: 30, numInferenceSteps: 8 }).warnings.length, 2);
  for (const [code, options] of Object.entries({
    "request.seed": [{ seed: -1 }, { seed: "18446744073709551616" }, { seed: 0.5 }, { seed: "x" }],
    "request.frames": [{ numFrames: 0 }, { numFrames: 105 }, { numFrames: 2.5 }],
    "request.size": [{ width: 72 }, { height: 1024 }],
    "request.steps": [{ numInferenceSteps: 51 }],
    "request.guidance": [{ guidanceScale: 0.5 }, { guidanceScale: NaN }],
    "request.negative_prompt": [{ negativePrompt: "blur" }],
    "bundle.no_such_graph": [{ decoder: "huge" }],
    "request.upscale": [{ upscale: true, outputType: "latent" }],
  })) {
    for (const option of options) assert.throws(() => check(option), { code }, code);
  }
  assert.equal(check({ decoder: "tiny" }).request.decoder, "vae_decoder_tiny");
  assert.deepEqual([check({}), check({ upscale: false }), check({ outputType: "latent" })]
    .map((checked) => checked.request.upscale), [true, false, false]);
  assert.throws(() => check({}, "x".repeat(70_000)), { code: "prompt.too_long" });
});
