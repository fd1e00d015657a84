/**
 * Guidance: the sinusoids of a distilled guidance scale (after Meng et al. 2023), and the
 * classifier-free mix of two passes (Ho and Salimans 2022).
 */

const { fround } = Math;

/**
 * Sinusoids of the guidance scale, sines first: u = 1000 w, g_i = exp(-i ln(10000) / (half - 1)).
 * Every product and quotient is float32 in this order; exp, sin and cos are rounded from float64.
 * @param {number} w guidance scale
 * @param {number} dim even, at least 4
 * @returns {Float32Array} [1, dim]
 */
export function guidanceEmbedding(w, dim) {
  const half = dim / 2;
  const rate = fround(fround(Math.log(10000.0)) / fround(half - 1));
  const u = fround(fround(w) * 1000.0);
  const row = new Float32Array(dim);
  for (let i = 0; i < half; i++) {
    const angle = fround(u * fround(Math.exp(fround(i * -rate))));
    row[i] = Math.sin(angle);
    row[half + i] = Math.cos(angle);
  }
  return row;
}

/**
 * unconditional + scale (conditional - unconditional), in float32.
 * @param {Float32Array} unconditional @param {Float32Array} conditional @param {number} scale
 * @returns {Float32Array}
 */
export function classifierFreeMix(unconditional, conditional, scale) {
  const factor = fround(scale);
  return unconditional.map(
    (value, i) => value + fround(factor * fround(conditional[i] - value)));
}
