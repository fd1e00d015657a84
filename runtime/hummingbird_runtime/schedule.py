"""The noise schedule: cumulative alphas, timestep lists, and the conversion to x0 and eps.

Scaled-linear betas are those of latent diffusion (VideoCrafter2, Hummingbird); zero terminal SNR
is Lin et al. 2023 (arXiv:2305.08891), algorithm 1; the LCM timestep list and boundary terms are
T2V-Turbo's. Functions of arrays: no randomness, no state. The solver steps live in ``sampler``.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hummingbird_runtime.errors import InputError
from hummingbird_runtime.scheduler_config import DynamicRescale, PredictionType, SchedulerConfig

__all__ = [
    "DynamicRescale",
    "SchedulerConfig",
    "alphas_cumprod",
    "boundary_scalings",
    "max_steps",
    "rescale_factors",
    "timesteps",
    "to_x0_eps",
]


def alphas_cumprod(config: SchedulerConfig) -> NDArray[np.float64]:
    """Cumulative products of 1 - beta: float64 [num_train_timesteps], falling, in [0, 1)."""
    root = np.linspace(
        math.sqrt(config.beta_start), math.sqrt(config.beta_end), config.num_train_timesteps
    )
    cumulative: NDArray[np.float64] = np.cumprod(1.0 - root * root, dtype=np.float64)
    if not config.rescale_betas_zero_snr:
        return cumulative
    signal: NDArray[np.float64] = np.sqrt(cumulative)
    signal = (signal - signal[-1]) * (signal[0] / (signal[0] - signal[-1]))
    return signal * signal


def rescale_factors(config: SchedulerConfig) -> NDArray[np.float64]:
    """s_t of the dynamic rescale: float64 [num_train_timesteps], all ones when it is off."""
    factors = np.ones(config.num_train_timesteps)
    if config.dynamic_rescale is not None:
        base, turning = config.dynamic_rescale.base, config.dynamic_rescale.turning_step
        factors[:turning] = np.linspace(1.0, base, turning)
        factors[turning:] = base
    return factors


def max_steps(config: SchedulerConfig) -> int:
    """The largest number of inference steps that this spacing can give."""
    if config.timestep_spacing == "lcm_origin":
        return config.original_inference_steps
    return config.num_train_timesteps - (config.timestep_spacing == "leading+1")


def timesteps(config: SchedulerConfig, n: int) -> NDArray[np.int64]:
    """The timesteps of an n-step run: int64 [n], strictly falling, inside the training range.

    Raises:
        InputError: ``request.steps`` when n is not in 1..max_steps(config).
    """
    if not 1 <= n <= max_steps(config):
        raise InputError(
            "request.steps",
            f"number of inference steps, got {n}, expected 1..{max_steps(config)}",
            hint="ask for a number of steps inside the range",
        )
    total, index = config.num_train_timesteps, np.arange(n, dtype=np.int64)
    if config.timestep_spacing == "trailing":
        return np.round(total - index * (total / n)).astype(np.int64) - 1
    if config.timestep_spacing == "leading+1":
        return (index[::-1] * (total // n) + 1).astype(np.int64)
    origin = config.original_inference_steps
    return ((origin - index * (origin // n)) * (total // origin) - 1).astype(np.int64)


def to_x0_eps(
    model_output: Any, x_t: Any, alpha_cumprod_t: Any, prediction_type: PredictionType
) -> tuple[Any, Any]:
    """Turn a network output into (x_0, eps), the only two quantities that the solvers use.

    Args:
        model_output: eps or v, the shape of x_t. NumPy arrays and torch tensors both work.
        x_t: noisy latent; its dtype is kept.
        alpha_cumprod_t: a float, or an array that broadcasts against x_t, in [0, 1].
        prediction_type: ``epsilon`` or ``v_prediction`` (Salimans and Ho 2022: v = a eps - s x_0).
    """
    if isinstance(alpha_cumprod_t, float):  # a np.float64 scalar would widen float32 arrays
        alpha_cumprod_t = float(alpha_cumprod_t)
    a, s = alpha_cumprod_t**0.5, (1.0 - alpha_cumprod_t) ** 0.5
    if prediction_type == "epsilon":
        return (x_t - s * model_output) / a, model_output
    return a * x_t - s * model_output, s * x_t + a * model_output


def boundary_scalings(config: SchedulerConfig, t: Any) -> tuple[Any, Any]:
    """(c_skip, c_out) of the consistency function at timestep t (a number or a float array)."""
    scaled, variance = config.timestep_scaling * t, config.sigma_data**2
    return variance / (scaled**2 + variance), scaled / (scaled**2 + variance) ** 0.5
