/**
 * The standard normal quantile in a fixed order of float64 operations (AS241, PPND16; Wichura
 * 1988): the same bits as the Python runtime's. Only +, -, x, /, sqrt and the exponent's bits are
 * used; the logarithm of the tails is ours, not the platform's.
 */

// Coefficients, highest power first.
const CENTRAL_TOP = [
  2.5090809287301226727e3, 3.3430575583588128105e4, 6.7265770927008700853e4,
  4.5921953931549871457e4, 1.3731693765509461125e4, 1.9715909503065514427e3,
  1.3314166789178437745e2, 3.3871328727963666080e0,
];
const CENTRAL_BOTTOM = [
  5.2264952788528545610e3, 2.8729085735721942674e4, 3.9307895800092710610e4,
  2.1213794301586595867e4, 5.3941960214247511077e3, 6.8718700749205790830e2,
  4.2313330701600911252e1, 1.0,
];
const TAIL_TOP = [
  7.74545014278341407640e-4, 2.27238449892691845833e-2, 2.41780725177450611770e-1,
  1.27045825245236838258e0, 3.64784832476320460504e0, 5.76949722146069140550e0,
  4.63033784615654529590e0, 1.42343711074968357734e0,
];
const TAIL_BOTTOM = [
  1.05075007164441684324e-9, 5.47593808499534494600e-4, 1.51986665636164571966e-2,
  1.48103976427480074590e-1, 6.89767334985100004550e-1, 1.67638483018380384940e0,
  2.05319162663775882187e0, 1.0,
];
const FAR_TOP = [
  2.01033439929228813265e-7, 2.71155556874348757815e-5, 1.24266094738807843860e-3,
  2.65321895265761230930e-2, 2.96560571828504891230e-1, 1.78482653991729133580e0,
  5.46378491116411436990e0, 6.65790464350110377720e0,
];
const FAR_BOTTOM = [
  2.04426310338993978564e-15, 1.42151175831644588870e-7, 1.84631831751005468180e-5,
  7.86869131145613259100e-4, 1.48753612908506148525e-2, 1.36929880922735805310e-1,
  5.99832206555887937690e-1, 1.0,
];
const LN2 = 0.6931471805599453;
const SQRT_HALF = 0.7071067811865476;
// atanh(s) / s = 1 + z/3 + ... + z^11/23 with z = s^2
const ATANH = Array.from({ length: 12 }, (_, i) => 1.0 / (2 * (11 - i) + 1));

const float64 = new Float64Array(1);
const words = new Uint32Array(float64.buffer);
const HIGH = new Uint8Array(new Uint16Array([1]).buffer)[0] === 1 ? 1 : 0;

/**
 * Natural logarithm of a positive normal number below 1.
 * @param {number} x @returns {number}
 */
export function logarithm(x) {
  // frexp: x = f 2^e with f in [1/2, 1)
  float64[0] = x;
  const high = words[HIGH];
  let e = ((high >>> 20) & 0x7ff) - 1022;
  words[HIGH] = (high & 0x800fffff) | (1022 << 20);
  let f = float64[0];
  if (f < SQRT_HALF) {
    f = f + f;
    e = e - 1;
  }
  const s = (f - 1.0) / (f + 1.0);
  return e * LN2 + (s + s) * horner(ATANH, s * s);
}

/**
 * The x with Phi(x) = p.
 * @param {number} p strictly between 0 and 1; p - 1/2 must be exact (multiples of 2^-53)
 * @returns {number}
 */
export function normalQuantile(p) {
  const q = p - 0.5;
  if (Math.abs(q) <= 0.425) {
    const r = 0.180625 - q * q;
    return q * horner(CENTRAL_TOP, r) / horner(CENTRAL_BOTTOM, r);
  }
  const r = Math.sqrt(-logarithm(q < 0.0 ? p : 1.0 - p));
  const magnitude = r > 5.0
    ? horner(FAR_TOP, r - 5.0) / horner(FAR_BOTTOM, r - 5.0)
    : horner(TAIL_TOP, r - 1.6) / horner(TAIL_BOTTOM, r - 1.6);
  return q < 0.0 ? -magnitude : magnitude;
}

/** @param {readonly number[]} coefficients @param {number} x @returns {number} */
function horner(coefficients, x) {
  let value = coefficients[0];
  for (let i = 1; i < coefficients.length; i++) value = value * x + coefficients[i];
  return value;
}
