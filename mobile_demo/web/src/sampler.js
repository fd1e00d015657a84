/**
 * The solvers: one LCM step (T2V-Turbo, arXiv:2405.18750), one DDIM step (Song et al. 2021,
 * equation 12, with VideoCrafter2's dynamic rescale), and the loop that runs either. Every product
 * and sum is rounded to float32 as NumPy rounds it, so only the network itself can differ.
 */

import { alphasCumprod, boundaryScalings, rescaleFactors, timesteps } from "./schedule.js";

/** @typedef {import("./schedule.js").SchedulerConfig} SchedulerConfig */
/**
 * @typedef {object} StepState
 * @property {number} index 0-based number of the step
 * @property {number} count how many steps the run has
 * @property {number} timestep the training timestep that the network saw
 * @property {Float32Array} x the solver's own x, input of the next step
 * @property {Float32Array} denoised the clean latent as the solver sees it; the last is the result
 */

const { fround } = Math;

/** p u + q v, each product and the sum rounded to float32.
 * @param {number} p @param {Float32Array} u @param {number} q @param {Float32Array} v */
function mix(p, u, q, v) {
  const a = fround(p), b = fround(q);
  return u.map((value, i) => fround(a * value) + fround(b * v[i]));
}

/**
 * Turn a network output into (x_0, eps).
 * @param {Float32Array} output @param {Float32Array} x @param {number} alpha cumulative alpha
 * @param {SchedulerConfig["prediction_type"]} kind
 * @returns {[Float32Array, Float32Array]}
 */
export function toX0Eps(output, x, alpha, kind) {
  const a = Math.sqrt(alpha), s = Math.sqrt(1.0 - alpha);
  if (kind === "epsilon") {
    const divisor = fround(a);
    return [mix(1.0, x, -s, output).map((value) => value / divisor), output];
  }
  return [mix(a, x, -s, output), mix(s, x, a, output)];
}

/**
 * @param {Float32Array} x0 @param {Float32Array} x @param {number} t @param {number} alphaNext
 * @param {Float32Array | null} noise null on the last step @param {SchedulerConfig} config
 * @returns {[Float32Array, Float32Array]} x at the next timestep, denoised
 */
export function lcmStep(x0, x, t, alphaNext, noise, config) {
  const [skip, out] = boundaryScalings(config, t);
  const denoised = mix(out, x0, skip, x);
  if (!noise) return [denoised, denoised];
  return [mix(Math.sqrt(alphaNext), denoised, Math.sqrt(1.0 - alphaNext), noise), denoised];
}

/**
 * @param {Float32Array} x0 @param {Float32Array} eps
 * @param {number} alpha @param {number} alphaNext
 * @param {{eta: number, noise: Float32Array | null, scale: number, scaleNext: number}} options
 * @returns {[Float32Array, Float32Array]} x at the next timestep, denoised
 */
export function ddimStep(x0, eps, alpha, alphaNext, { eta, noise, scale, scaleNext }) {
  const variance = eta ** 2 * (1.0 - alphaNext) / (1.0 - alpha) * (1.0 - alpha / alphaNext);
  const direction = Math.sqrt(Math.max(1.0 - alphaNext - variance, 0.0));
  const divisor = fround(scale);
  const denoised = x0.map((value) => value / divisor);
  let x = mix(Math.sqrt(alphaNext) * scaleNext, denoised, direction, eps);
  if (noise) x = mix(1.0, x, Math.sqrt(variance), noise);
  return [x, denoised];
}

/**
 * Run the configured solver; yields one state per network evaluation.
 * @param {(x: Float32Array, t: number) => Promise<Float32Array>} denoise
 * @param {Float32Array} initial noise
 * @param {SchedulerConfig} config
 * @param {number} count number of steps
 * @param {(i: number) => Float32Array} noiseOf noise on leaving step i, asked only when used
 * @returns {AsyncGenerator<StepState>}
 */
export async function* sample(denoise, initial, config, count, noiseOf) {
  const alphas = alphasCumprod(config), scales = rescaleFactors(config);
  const steps = timesteps(config, count);
  let x = initial;
  for (const [index, timestep] of steps.entries()) {
    const last = index + 1 === count;
    // after its last step DDIM lands on timestep 0, as VideoCrafter2's does
    const next = last ? 0 : steps[index + 1];
    const output = await denoise(x, timestep);
    const [x0, eps] = toX0Eps(output, x, alphas[timestep], config.prediction_type);
    let denoised;
    if (config.sampler === "lcm") {
      const noise = last ? null : noiseOf(index);
      [x, denoised] = lcmStep(x0, x, timestep, alphas[next], noise, config);
    } else {
      [x, denoised] = ddimStep(x0, eps, alphas[timestep], alphas[next], {
        eta: config.eta,
        noise: config.eta > 0 ? noiseOf(index) : null,
        scale: scales[timestep],
        scaleNext: scales[next],
      });
    }
    yield { index, count, timestep, x, denoised };
  }
}
