"""Schedules and solvers in torch, written a second time from the papers.

They share no line with the runtime: that is what makes a comparison of the two worth something.
LCM: Luo et al. 2023 as used by T2V-Turbo. DDIM: Song et al. 2021. Zero terminal SNR: Lin et al.
2023. Dynamic rescale: VideoCrafter2.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from hummingbird_runtime.schedule import SchedulerConfig


def sample(
    predict: Callable[[Tensor, int], Tensor],
    x: Tensor,
    config: SchedulerConfig,
    steps: int,
    fresh: Callable[[int], Tensor],
) -> list[Tensor]:
    """The clean latent as seen after every step; the last one is the result.

    Args:
        predict: (x_t, t) -> output of the network.
        x: initial noise, any shape.
        config: sampler, schedule and meaning of the output.
        steps: number of evaluations.
        fresh: i -> noise on leaving step i.
    """
    bar, scales = cumulative_alphas(config), dynamic_scales(config)
    times = inference_times(config, steps)
    cleans: list[Tensor] = []
    for i, t in enumerate(times):
        last = i + 1 == len(times)
        target = 0 if last else times[i + 1]
        x_0, eps = _split(predict(x, t), x, float(bar[t]), config)
        if config.sampler == "lcm":
            s = config.timestep_scaling * t / config.sigma_data
            clean = x / (s * s + 1) + x_0 * (s / math.sqrt(s * s + 1))
            alpha = float(bar[target])
            x = clean if last else math.sqrt(alpha) * clean + math.sqrt(1 - alpha) * fresh(i)
        else:
            clean = x_0 / float(scales[t])
            x = _ddim(clean * float(scales[target]), eps, float(bar[t]), float(bar[target]), config)
            if config.eta > 0:
                x = x + _ddim_sigma(float(bar[t]), float(bar[target]), config.eta) * fresh(i)
        cleans.append(clean)
    return cleans


def _split(
    output: Tensor, x: Tensor, alpha: float, config: SchedulerConfig
) -> tuple[Tensor, Tensor]:
    """Clean latent and noise that an output stands for."""
    signal, sigma = math.sqrt(alpha), math.sqrt(1 - alpha)
    if config.prediction_type == "v_prediction":
        return signal * x - sigma * output, sigma * x + signal * output
    return (x - sigma * output) / signal, output


def _ddim_sigma(alpha: float, alpha_next: float, eta: float) -> float:
    """Standard deviation of the fresh noise of a step."""
    return eta * math.sqrt((1 - alpha_next) / (1 - alpha) * (1 - alpha / alpha_next))


def _ddim(
    clean: Tensor, eps: Tensor, alpha: float, alpha_next: float, config: SchedulerConfig
) -> Tensor:
    """The next x without its fresh noise."""
    sigma = _ddim_sigma(alpha, alpha_next, config.eta)
    towards = math.sqrt(max(0.0, 1 - alpha_next - sigma * sigma))
    return math.sqrt(alpha_next) * clean + towards * eps


def cumulative_alphas(config: SchedulerConfig) -> Tensor:
    """Products of 1 - beta, float64 [num_train_timesteps], with or without zero terminal SNR."""
    ends = torch.tensor([config.beta_start, config.beta_end], dtype=torch.float64).sqrt()
    ramp = torch.arange(config.num_train_timesteps, dtype=torch.float64)
    betas = (ends[0] + (ends[1] - ends[0]) * ramp / (config.num_train_timesteps - 1)).square()
    bar = (1 - betas).log().cumsum(0).exp()
    if config.rescale_betas_zero_snr:
        root = bar.sqrt()
        shifted = root - root[-1]
        bar = (shifted * root[0] / shifted[0]).square()
    return bar


def inference_times(config: SchedulerConfig, steps: int) -> list[int]:
    """Timesteps of a run, from noise to clip."""
    total = config.num_train_timesteps
    if config.timestep_spacing == "trailing":
        return [round(total * (steps - i) / steps) - 1 for i in range(steps)]
    if config.timestep_spacing == "leading+1":
        return [i * (total // steps) + 1 for i in range(steps)][::-1]
    stride = total // config.original_inference_steps
    teacher = [k * stride - 1 for k in range(config.original_inference_steps, 0, -1)]
    return teacher[:: config.original_inference_steps // steps][:steps]


def dynamic_scales(config: SchedulerConfig) -> Tensor:
    """s_t of the dynamic rescale, float64 [num_train_timesteps]; ones when it is off."""
    scales = torch.ones(config.num_train_timesteps, dtype=torch.float64)
    if config.dynamic_rescale is not None:
        turning, base = config.dynamic_rescale.turning_step, config.dynamic_rescale.base
        scales[turning:] = base
        scales[:turning] = 1 + (base - 1) * torch.arange(turning) / max(turning - 1, 1)
    return scales
