/**
 * The noise of the sampler, bit for bit that of the Python runtime: Philox4x32-10 counters
 * (Salmon et al. 2011), 52-bit uniforms, normals by inverse CDF.
 *
 * Key words: (seed mod 2^32, seed div 2^32); counter words: (element, stream, 0, 0); elements are
 * numbered row-major over (F, C, h, w). Stream 0 is the initial latent, stream 1 + i the noise on
 * leaving step i. m = w0 2^20 + floor(w1 / 2^12), u = (m + 1/2) 2^-52.
 */

import { HummingbirdError } from "./errors.js";
import { normalQuantile } from "./normal.js";

export const SEED_LIMIT = 1n << 64n;
const M0 = 0xd2511f53;
const M1 = 0xcd9e8d57;
const WEYL0 = 0x9e3779b9;
const WEYL1 = 0xbb67ae85;
const ROUNDS = 10;

/**
 * Upper 32 bits of the product of two unsigned 32-bit numbers.
 * @param {number} a @param {number} b @returns {number}
 */
function highWord(a, b) {
  const aLow = a & 0xffff, aHigh = a >>> 16, bLow = b & 0xffff, bHigh = b >>> 16;
  const first = aHigh * bLow + ((aLow * bLow) >>> 16); // below 2^32
  const second = aLow * bHigh + (first & 0xffff);
  return (aHigh * bHigh + (first >>> 16) + (second >>> 16)) >>> 0;
}

/**
 * One block of Philox4x32-10.
 * @param {readonly [number, number, number, number]} counter four unsigned 32-bit words
 * @param {readonly [number, number]} key two unsigned 32-bit words
 * @returns {[number, number, number, number]} four unsigned 32-bit words
 */
export function philox4x32(counter, key) {
  let [c0, c1, c2, c3] = counter;
  let [k0, k1] = key;
  for (let round = 0; round < ROUNDS; round++) {
    const high0 = highWord(M0, c0), low0 = Math.imul(M0, c0) >>> 0;
    const high1 = highWord(M1, c2), low1 = Math.imul(M1, c2) >>> 0;
    c0 = (high1 ^ c1 ^ k0) >>> 0;
    c1 = low1;
    c2 = (high0 ^ c3 ^ k1) >>> 0;
    c3 = low0;
    k0 = (k0 + WEYL0) >>> 0;
    k1 = (k1 + WEYL1) >>> 0;
  }
  return [c0, c1, c2, c3];
}

/**
 * A seed as a whole number of 64 bits.
 * @param {bigint | number | string} seed a string is decimal digits
 * @returns {bigint}
 * @throws {HummingbirdError} `request.seed`
 */
export function parseSeed(seed) {
  let value = -1n;
  if (typeof seed === "bigint") value = seed;
  else if (typeof seed === "number" && Number.isSafeInteger(seed)) value = BigInt(seed);
  else if (typeof seed === "string" && /^\s*\d{1,20}\s*$/.test(seed)) value = BigInt(seed.trim());
  if (value < 0n || value >= SEED_LIMIT) {
    throw new HummingbirdError(
      "request.seed",
      `seed, got ${String(seed).slice(0, 40) || "nothing"}, expected 0..2^64-1 `
      + `(${SEED_LIMIT - 1n})`, "give a whole number inside the range");
  }
  return value;
}

/**
 * Standard normal noise of a latent clip.
 * @param {bigint | number | string} seed 0..2^64-1
 * @param {number} stream 0 for the initial latent, 1 + i for the noise on leaving step i
 * @param {number} frames F
 * @param {number} channels C
 * @param {number} height h, latent rows
 * @param {number} width w, latent columns
 * @returns {Float32Array} [1, C, F, h, w]
 */
export function noise(seed, stream, frames, channels, height, width) {
  const bits = parseSeed(seed);
  const key = /** @type {[number, number]} */ (
    [Number(bits & 0xffffffffn), Number(bits >> 32n)]);
  const cells = height * width;
  const values = new Float32Array(frames * channels * cells);
  let element = 0;
  for (let f = 0; f < frames; f++) {
    for (let c = 0; c < channels; c++) {
      const start = (c * frames + f) * cells; // (f, c, h, w) to (c, f, h, w)
      for (let cell = 0; cell < cells; cell++, element++) {
        const [w0, w1] = philox4x32([element, stream, 0, 0], key);
        const m = w0 * 1048576 + (w1 >>> 12);
        values[start + cell] = normalQuantile((m + 0.5) * 2 ** -52);
      }
    }
  }
  return values;
}
