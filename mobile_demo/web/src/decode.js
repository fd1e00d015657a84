/**
 * From latents to frames: chunks for the decoder, 8-bit rounding, and the rough colour preview of a
 * latent by one linear map (`latent_rgb`). Rounded to float32 as the Python runtime rounds.
 */

const { fround } = Math;

/** floor(clip((x + 1) / 2, 0, 1) 255 + 1/2), each operation in float32.
 * @param {number} x in about [-1, 1] @returns {number} 0..255 */
export function toByte(x) {
  const unit = Math.min(Math.max(fround(fround(x + 1) * 0.5), 0), 1);
  return Math.floor(fround(fround(unit * 255) + 0.5));
}

/**
 * Frames start..start+count-1 for the decoder, divided by the scaling factor.
 * @param {Float32Array} latents [1, C, F, h, w], scaled for the U-Net
 * @param {readonly [number, number, number]} size C, F, h w
 * @param {number} start @param {number} count frames given back; the last one fills up the end
 * @param {number} scalingFactor
 * @returns {Float32Array} [count, C, h, w]
 */
export function decoderInput(latents, [channels, frames, cells], start, count, scalingFactor) {
  const factor = fround(1 / scalingFactor);
  const part = new Float32Array(count * channels * cells);
  for (let n = 0; n < count; n++) {
    const frame = Math.min(start + n, frames - 1);
    for (let c = 0; c < channels; c++) {
      const from = (c * frames + frame) * cells, to = (n * channels + c) * cells;
      for (let i = 0; i < cells; i++) part[to + i] = latents[from + i] * factor;
    }
  }
  return part;
}

/**
 * Planar floats to 8-bit pixels.
 * @param {Float32Array} pixels [N, 3, H, W] in about [-1, 1]
 * @param {number} count frames wanted @param {number} cells H W
 * @returns {Uint8Array} [count, H, W, 3]
 */
export function toFrames(pixels, count, cells) {
  const frames = new Uint8Array(count * cells * 3);
  for (let n = 0; n < count; n++) {
    for (let c = 0; c < 3; c++) {
      const from = (n * 3 + c) * cells, to = n * cells * 3 + c;
      for (let i = 0; i < cells; i++) frames[to + 3 * i] = toByte(pixels[from + i]);
    }
  }
  return frames;
}

/**
 * (r, g, b) = W z + bias for every latent cell.
 * @param {Float32Array} latents [1, C, F, h, w]
 * @param {readonly [number, number, number]} size C, F, h w
 * @param {readonly (readonly number[])[]} rows 3 rows of C weights and a bias
 * @returns {Uint8Array} [F, h, w, 3]
 */
export function latentPreview(latents, [channels, frames, cells], rows) {
  const pixels = new Uint8Array(frames * cells * 3);
  for (let f = 0; f < frames; f++) {
    for (let i = 0; i < cells; i++) {
      for (let k = 0; k < 3; k++) {
        let value = rows[k][channels];
        for (let c = 0; c < channels; c++) {
          value += rows[k][c] * latents[(c * frames + f) * cells + i];
        }
        pixels[(f * cells + i) * 3 + k] = toByte(value);
      }
    }
  }
  return pixels;
}
