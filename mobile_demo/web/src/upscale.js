/** Decoded frames made four times larger by the bundle's upscaler, a few at a time. */

import { HummingbirdError } from "./errors.js";

export const UPSCALE = 4;
const CHUNK = 4; // frames at once, as in the Python runtime: they alone decide the memory

/**
 * @param {import("./graph.js").Graph} upscaler
 * @param {Float32Array} pixels decoded frames, [N, 3, H, W] in about [-1, 1]
 * @param {number} count frames wanted @param {{height: number, width: number}} size H and W
 * @returns {AsyncGenerator<{start: number, count: number, pixels: Float32Array}>}
 *   [n, 3, UPSCALE H, UPSCALE W] in frame order; `start` counts within `pixels`
 * @throws {HummingbirdError} `runtime.upscaler_shape`
 */
export async function* upscale(upscaler, pixels, count, { height, width }) {
  const fixed = upscaler.fixedFirstSize("sample"), chunk = fixed ?? CHUNK;
  const floats = 3 * height * width;
  for (let start = 0; start < count; start += chunk) {
    const wanted = Math.min(chunk, count - start), fed = fixed ?? wanted;
    const data = new Float32Array(fed * floats);
    for (let n = 0; n < fed; n++) { // the last frame fills up a fixed number
      const from = (start + Math.min(n, wanted - 1)) * floats;
      for (let i = 0; i < floats; i++) {
        data[n * floats + i] = Math.min(Math.max(pixels[from + i], -1), 1);
      }
    }
    const larger = await upscaler.run({ sample: { data, dims: [fed, 3, height, width] } });
    const expected = fed * floats * UPSCALE ** 2;
    if (larger.length !== expected) {
      throw new HummingbirdError("runtime.upscaler_shape",
        `upscaled frames, got ${larger.length} numbers, expected ${expected}`,
        `the bundle's upscaler must enlarge ${UPSCALE} times; export it again`);
    }
    yield { start, count: wanted, pixels: larger };
  }
}
