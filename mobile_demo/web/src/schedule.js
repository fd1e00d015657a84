/**
 * The noise schedule: scaled-linear betas, zero terminal SNR (arXiv:2305.08891), timestep lists of
 * latent diffusion and T2V-Turbo, boundary terms of the consistency function. Float64, in the
 * Python runtime's order of operations. The solver steps live in sampler.js.
 */

import { HummingbirdError } from "./errors.js";

/**
 * @typedef {object} SchedulerConfig `scheduler/scheduler_config.json`; defaults are Hummingbird's
 * @property {number} num_train_timesteps
 * @property {number} beta_start
 * @property {number} beta_end
 * @property {"scaled_linear"} beta_schedule
 * @property {"epsilon" | "v_prediction"} prediction_type
 * @property {boolean} rescale_betas_zero_snr
 * @property {"lcm_origin" | "trailing" | "leading+1"} timestep_spacing
 * @property {number} original_inference_steps
 * @property {number} sigma_data
 * @property {number} timestep_scaling
 * @property {number} eta
 * @property {"lcm" | "ddim"} sampler
 * @property {{base: number, turning_step: number} | null} dynamic_rescale
 */

/** @type {SchedulerConfig} */
export const DEFAULTS = {
  num_train_timesteps: 1000,
  beta_start: 0.00085,
  beta_end: 0.012,
  beta_schedule: "scaled_linear",
  prediction_type: "epsilon",
  rescale_betas_zero_snr: false,
  timestep_spacing: "lcm_origin",
  original_inference_steps: 50,
  sigma_data: 0.5,
  timestep_scaling: 10.0,
  eta: 0.0,
  sampler: "lcm",
  dynamic_rescale: null,
};

const CHOICES = {
  beta_schedule: ["scaled_linear"],
  prediction_type: ["epsilon", "v_prediction"],
  timestep_spacing: ["lcm_origin", "trailing", "leading+1"],
  sampler: ["lcm", "ddim"],
};

/**
 * Read a parsed `scheduler_config.json`; keys that start with `_` are notes.
 * @param {Record<string, unknown>} data
 * @returns {SchedulerConfig}
 * @throws {HummingbirdError} `scheduler.invalid`
 */
export function readScheduler(data) {
  const entries = Object.entries(data).filter(([key]) => !key.startsWith("_"));
  const unknown = entries.map(([key]) => key).filter((key) => !(key in DEFAULTS));
  check(!unknown.length, `keys ${unknown}`, `some of ${Object.keys(DEFAULTS)}`);
  const config = /** @type {SchedulerConfig} */ ({ ...DEFAULTS, ...Object.fromEntries(entries) });
  for (const [name, choices] of Object.entries(CHOICES)) {
    const got = /** @type {any} */ (config)[name];
    check(choices.includes(got), `${name} ${got}`, `one of ${choices}`);
  }
  const { num_train_timesteps: steps, original_inference_steps: origin, eta } = config;
  check(within(steps, 2, 100000, true), `num_train_timesteps ${steps}`, "2..100000");
  check(config.beta_start > 0 && config.beta_start <= config.beta_end && config.beta_end < 1,
    `beta_start ${config.beta_start}, beta_end ${config.beta_end}`,
    "0 < beta_start <= beta_end < 1");
  check(within(origin, 1, steps, true), `original_inference_steps ${origin}`, `1..${steps}`);
  check(within(eta, 0, 1), `eta ${eta}`, "0..1");
  check(within(config.sigma_data, Number.MIN_VALUE, Number.MAX_VALUE), "sigma_data", "above 0");
  check(within(config.timestep_scaling, Number.MIN_VALUE, Number.MAX_VALUE), "timestep_scaling",
    "above 0");
  check(!(config.rescale_betas_zero_snr && config.prediction_type === "epsilon"),
    "prediction_type epsilon with rescale_betas_zero_snr", "v_prediction");
  const rescale = config.dynamic_rescale;
  check(config.sampler !== "lcm" || (eta === 0 && rescale === null),
    "eta or dynamic_rescale with sampler lcm", "eta 0 and null");
  check(rescale === null || (rescale.base > 0 && rescale.base <= 1
    && within(rescale.turning_step, 1, steps, true)), "dynamic_rescale", "base in (0, 1]");
  return config;
}

/** Cumulative products of 1 - beta, falling, in [0, 1).
 * @param {SchedulerConfig} config @returns {Float64Array} [num_train_timesteps] */
export function alphasCumprod(config) {
  const root = linspace(
    Math.sqrt(config.beta_start), Math.sqrt(config.beta_end), config.num_train_timesteps);
  let product = 1.0;
  const cumulative = root.map((value) => (product = product * (1.0 - value * value)));
  if (!config.rescale_betas_zero_snr) return cumulative;
  const signal = cumulative.map(Math.sqrt);
  const first = signal[0], last = signal[signal.length - 1];
  const factor = first / (first - last);
  return signal.map((value) => {
    const shifted = (value - last) * factor;
    return shifted * shifted;
  });
}

/** s_t of the dynamic rescale, all ones when it is off.
 * @param {SchedulerConfig} config @returns {Float64Array} [num_train_timesteps] */
export function rescaleFactors(config) {
  const factors = new Float64Array(config.num_train_timesteps).fill(1.0);
  if (config.dynamic_rescale) {
    const { base, turning_step } = config.dynamic_rescale;
    factors.set(linspace(1.0, base, turning_step));
    factors.fill(base, turning_step);
  }
  return factors;
}

/** The largest number of inference steps that this spacing can give.
 * @param {SchedulerConfig} config @returns {number} */
export function maxSteps(config) {
  if (config.timestep_spacing === "lcm_origin") return config.original_inference_steps;
  return config.num_train_timesteps - (config.timestep_spacing === "leading+1" ? 1 : 0);
}

/**
 * The timesteps of an n-step run, strictly falling.
 * @param {SchedulerConfig} config @param {number} n @returns {number[]}
 * @throws {HummingbirdError} `request.steps`
 */
export function timesteps(config, n) {
  if (!within(n, 1, maxSteps(config), true)) {
    throw new HummingbirdError("request.steps",
      `number of inference steps, got ${n}, expected 1..${maxSteps(config)}`,
      "ask for a number of steps inside the range");
  }
  const total = config.num_train_timesteps, origin = config.original_inference_steps;
  const index = Array.from({ length: n }, (_, i) => i);
  if (config.timestep_spacing === "trailing") {
    return index.map((i) => roundHalfEven(total - i * (total / n)) - 1);
  }
  if (config.timestep_spacing === "leading+1") {
    return index.reverse().map((i) => i * Math.floor(total / n) + 1);
  }
  return index.map(
    (i) => (origin - i * Math.floor(origin / n)) * Math.floor(total / origin) - 1);
}

/** (c_skip, c_out) of the consistency function at timestep t.
 * @param {SchedulerConfig} config @param {number} t @returns {[number, number]} */
export function boundaryScalings(config, t) {
  const scaled = config.timestep_scaling * t, variance = config.sigma_data ** 2;
  const sum = scaled ** 2 + variance;
  return [variance / sum, scaled / Math.sqrt(sum)];
}

/** NumPy's linspace. @param {number} start @param {number} stop @param {number} count */
function linspace(start, stop, count) {
  const step = count > 1 ? (stop - start) / (count - 1) : 0;
  const values = Float64Array.from({ length: count }, (_, i) => i * step + start);
  if (count > 1) values[count - 1] = stop;
  return values;
}

/** @param {number} x @returns {number} */
function roundHalfEven(x) {
  const low = Math.floor(x), rest = x - low;
  if (rest !== 0.5) return Math.round(x);
  return low % 2 === 0 ? low : low + 1;
}

/** @param {unknown} value @param {number} low @param {number} high @param {boolean} [whole] */
export function within(value, low, high, whole = false) {
  return typeof value === "number" && value >= low && value <= high
    && (!whole || Number.isInteger(value));
}

/** @param {boolean} ok @param {string} got @param {string} expected */
function check(ok, got, expected) {
  if (!ok) {
    throw new HummingbirdError("scheduler.invalid",
      `scheduler configuration, got ${got}, expected ${expected}`,
      "export the bundle again or correct scheduler/scheduler_config.json");
  }
}
