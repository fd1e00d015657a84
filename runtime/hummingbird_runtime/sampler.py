"""The solvers: one LCM step, one DDIM step, and the loop that runs either over a denoiser.

LCM: the multistep consistency sampler of T2V-Turbo (arXiv:2405.18750). DDIM: Song et al. 2021,
equation 12, with VideoCrafter2's dynamic rescale. The steps are pure functions of arrays; the loop
owns nothing but the latent. Any network fits behind ``denoise(x_t, t) -> eps or v``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hummingbird_runtime.schedule import (
    SchedulerConfig,
    alphas_cumprod,
    boundary_scalings,
    rescale_factors,
    timesteps,
    to_x0_eps,
)

Latent = NDArray[np.float32]


@dataclass(frozen=True)
class StepState:
    """What is known after one step. The result of a run is the ``denoised`` of its last step."""

    index: int
    """0-based number of the step."""
    count: int
    """How many steps the run has."""
    timestep: int
    """The training timestep that the network saw."""
    x_t: Latent
    """Input of the next step (after the last step: the solver's own x)."""
    denoised: Latent
    """The clean latent as the solver sees it now."""


def lcm_step(
    x_0: Latent,
    x_t: Latent,
    t: int,
    alpha_next: float,
    noise: Latent | None,
    config: SchedulerConfig,
) -> tuple[Latent, Latent]:
    """One step of the consistency sampler: (x at the next timestep, denoised).

    denoised = c_out(t) x_0 + c_skip(t) x_t; x_next = sqrt(a') denoised + sqrt(1 - a') noise.

    Args:
        x_0: predicted clean latent, any shape.
        x_t: the step's input.
        t: the step's timestep.
        alpha_next: cumulative alpha at the next timestep.
        noise: fresh standard normal noise; None on the last step, which adds none.
        config: gives the boundary terms.
    """
    c_skip, c_out = boundary_scalings(config, t)
    denoised: Latent = c_out * x_0 + c_skip * x_t
    if noise is None:
        return denoised, denoised
    return math.sqrt(alpha_next) * denoised + math.sqrt(1.0 - alpha_next) * noise, denoised


def ddim_step(
    x_0: Latent,
    eps: Latent,
    alpha_t: float,
    alpha_next: float,
    *,
    eta: float = 0.0,
    noise: Latent | None = None,
    scale_t: float = 1.0,
    scale_next: float = 1.0,
) -> tuple[Latent, Latent]:
    """One DDIM step: (x at the next timestep, denoised).

    sigma = eta sqrt((1 - a') / (1 - a) (1 - a / a')); denoised = x_0 / scale_t;
    x_next = sqrt(a') scale_next denoised + sqrt(1 - a' - sigma^2) eps + sigma noise.

    Args:
        x_0: predicted clean latent, any shape.
        eps: predicted noise.
        alpha_t: cumulative alpha of this step, in [0, 1).
        alpha_next: cumulative alpha of the next step, above alpha_t.
        eta: 0 deterministic .. 1 ancestral.
        noise: standard normal noise; needed when eta is not 0.
        scale_t: dynamic rescale at this step.
        scale_next: dynamic rescale at the next step.
    """
    variance = eta**2 * (1.0 - alpha_next) / (1.0 - alpha_t) * (1.0 - alpha_t / alpha_next)
    direction = math.sqrt(max(1.0 - alpha_next - variance, 0.0))
    denoised: Latent = x_0 / scale_t
    x_next: Latent = math.sqrt(alpha_next) * scale_next * denoised + direction * eps
    if noise is not None:
        x_next = x_next + math.sqrt(variance) * noise
    return x_next, denoised


def sample(
    denoise: Callable[[Latent, int], Latent],
    x_T: Latent,
    config: SchedulerConfig,
    num_steps: int,
    noise_fn: Callable[[int], Latent],
    *,
    first: int = 0,
) -> Iterator[StepState]:
    """Run the configured solver and yield one ``StepState`` per network evaluation.

    Args:
        denoise: (x_t, t) -> network output in the meaning of ``config.prediction_type``.
        x_T: initial noise, or the latent that enters step ``first``; float32, any shape.
        config: sampler, schedule and prediction type.
        num_steps: 1..``schedule.max_steps(config)``.
        noise_fn: i -> noise on leaving step i, the shape of x_T; asked only when it is used.
        first: 0-based step to begin with; the steps before it were taken earlier.

    Raises:
        InputError: ``request.steps`` for a number of steps that the schedule cannot give.
    """
    alphas, scales = alphas_cumprod(config).tolist(), rescale_factors(config).tolist()
    steps: list[int] = timesteps(config, num_steps).tolist()
    x_t = x_T
    for i, t in enumerate(steps[first:], start=first):
        last = i + 1 == num_steps
        # after its last step DDIM lands on timestep 0, as VideoCrafter2's does
        t_next = 0 if last else steps[i + 1]
        x_0, eps = to_x0_eps(denoise(x_t, t), x_t, alphas[t], config.prediction_type)
        if config.sampler == "lcm":
            noise = None if last else noise_fn(i)
            x_t, denoised = lcm_step(x_0, x_t, t, alphas[t_next], noise, config)
        else:
            x_t, denoised = ddim_step(
                x_0,
                eps,
                alphas[t],
                alphas[t_next],
                eta=config.eta,
                noise=noise_fn(i) if config.eta > 0.0 else None,
                scale_t=scales[t],
                scale_next=scales[t_next],
            )
        yield StepState(i, num_steps, t, x_t, denoised)
