/** The golden vectors that Python, the C-API path and the page all pass: tests/data/golden.json. */

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { gunzipSync } from "node:zlib";

import { END_OF_WORD, byteAlphabet } from "../src/bytepairs.js";
import { guidanceEmbedding } from "../src/guidance.js";
import { noise, philox4x32 } from "../src/noise.js";
import { normalQuantile } from "../src/normal.js";
import { sample } from "../src/sampler.js";
import { alphasCumprod, boundaryScalings, rescaleFactors, timesteps } from "../src/schedule.js";
import { Tokenizer, parseMerges } from "../src/tokenizer.js";

const ROOT = new URL("../../../", import.meta.url);
/** @param {string} path */
const file = (path) => readFileSync(new URL(path, ROOT));
const GOLDEN = JSON.parse(file("tests/data/golden.json").toString());
const sha256 = (array) =>
  createHash("sha256").update(new Uint8Array(array.buffer)).digest("hex");

/** A C99 hexadecimal float. @param {string} text */
function hexFloat(text) {
  const [, sign, whole, part, exponent] = /^(-?)0x([01])\.([0-9a-f]+)p([+-]\d+)$/.exec(text);
  const mantissa = Number(BigInt(`0x${whole}${part}`)) / 16 ** part.length;
  return (sign ? -1 : 1) * mantissa * 2 ** Number(exponent);
}

test("Philox gives the published words", () => {
  for (const { counter, key, words } of GOLDEN.noise.philox) {
    const hex = (word) => parseInt(word, 16);
    const got = philox4x32(counter.map(hex), key.map(hex));
    assert.deepEqual(got.map((word) => word.toString(16).padStart(8, "0")), words);
  }
});

test("normal quantiles have the stored bits", () => {
  for (const { m, float64 } of GOLDEN.noise.quantiles) {
    assert.equal(normalQuantile((Number(m) + 0.5) * 2 ** -52), hexFloat(float64), `m = ${m}`);
  }
});

test("whole draws equal Python's bit for bit", () => {
  for (const { seed, stream, frames_channels_height_width: sizes, ...row } of GOLDEN.noise.clips) {
    const values = noise(seed, stream, ...sizes);
    assert.equal(sha256(values), row.sha256, `seed ${seed}, stream ${stream}`);
    assert.deepEqual([...values.slice(0, 4)], row.first.map(hexFloat));
    assert.deepEqual([...values.slice(-4)], row.last.map(hexFloat));
  }
});

test("CLIP's ids of hostile prompts", () => {
  const merges = parseMerges(
    gunzipSync(file("export/hummingbird_export/data/clip_merges.txt.gz")).toString());
  const letters = byteAlphabet();
  // CLIP numbers its bytes in this order: printable ones first
  const ordered = letters.map((letter, byte) => ({ letter, late: letter >= "\u0100", byte }))
    .sort((a, b) => Number(a.late) - Number(b.late) || a.byte - b.byte)
    .map(({ letter }) => letter);
  const tokens = [
    ...ordered, ...ordered.map((letter) => letter + END_OF_WORD),
    ...merges.map((pair) => pair.replace(" ", "")), "<|startoftext|>", "<|endoftext|>",
  ];
  const clip = new Tokenizer(new Map(tokens.map((token, id) => [token, id])), merges, {
    model_max_length: 1 << 12, bos_token_id: 49406, eos_token_id: 49407, pad_token_id: 0,
  });
  for (const { prompt, ids } of GOLDEN.tokens.clip) {
    const { ids: row, numTokens } = clip.encode(prompt);
    assert.deepEqual([...row.slice(0, numTokens)].map(Number), ids, JSON.stringify(prompt));
  }
});

test("ids and unknown words of the built-in vocabulary", () => {
  const folder = "runtime/hummingbird_runtime/_bundles/shapes-v1/tokenizer/";
  const tokenizer = Tokenizer.fromFiles({
    vocab: file(`${folder}vocab.json`).toString(),
    merges: file(`${folder}merges.txt`).toString(),
    config: file(`${folder}tokenizer_config.json`).toString(),
  });
  for (const { prompt, ids, truncated, num_tokens, unknown } of GOLDEN.tokens.built_in) {
    const got = tokenizer.encode(prompt);
    assert.deepEqual(
      [[...got.ids].map(Number), got.truncated, got.numTokens, got.unknown],
      [ids, truncated, num_tokens, unknown], JSON.stringify(prompt));
  }
});

test("embeddings of the guidance scale", () => {
  for (const { w, dim, values } of GOLDEN.guidance_embeddings) {
    const got = guidanceEmbedding(w, dim);
    assert.equal(got.length, values.length);
    // exp, sin and cos come from the platform: another last bit of float64 may turn a float32
    values.forEach((value, i) => assert.ok(Math.abs(got[i] - value) <= 2 ** -23, `w ${w}, ${i}`));
  }
});

test("schedules", () => {
  for (const { config, at, ...row } of GOLDEN.schedules) {
    for (const [count, steps] of Object.entries(row.timesteps)) {
      assert.deepEqual(timesteps(config, Number(count)), steps, `${row.name}, ${count} steps`);
    }
    const alphas = alphasCumprod(config), scales = rescaleFactors(config);
    assert.equal(sha256(alphas), row.alphas_cumprod_sha256, row.name);
    at.forEach((t, i) => {
      assert.ok(Math.abs(scales[t] - row.rescale_factors[i]) < 1e-15, `${row.name}, scale ${t}`);
      boundaryScalings(config, t).forEach((value, k) => {
        const expected = row.boundary_scalings[i][k];
        // x ** 2 and sqrt may differ from Python's in the last bit
        assert.ok(Math.abs(value - expected) <= 4e-16 * Math.abs(expected), `${row.name}, ${t}`);
      });
    });
  }
});

test("whole runs of the solvers", async () => {
  for (const row of GOLDEN.trajectories) {
    const { config } = GOLDEN.schedules.find(({ name }) => name === row.name);
    const sizes = row.frames_channels_height_width;
    const initial = noise(row.seed, 0, ...sizes);
    assert.deepEqual([...initial], row.initial_noise);
    const denoise = async (x, t) => x.map((value) => value / 2 + t / 2000);
    const noiseOf = (i) => noise(row.seed, 1 + i, ...sizes);
    const states = [];
    for await (const state of sample(denoise, initial, config, row.steps.length, noiseOf)) {
      states.push(state);
    }
    states.forEach((state, i) => {
      const expected = row.steps[i];
      assert.equal(state.timestep, expected.timestep);
      const pairs = [[state.x, expected.x_next], [state.denoised, expected.denoised]];
      for (const [got, wanted] of pairs) {
        const largest = Math.max(...wanted.map(Math.abs));
        wanted.forEach((value, k) => // float32 against float64
          assert.ok(Math.abs(got[k] - value) <= 1e-5 * largest, `${row.name}, step ${i}`));
      }
    });
  }
});
