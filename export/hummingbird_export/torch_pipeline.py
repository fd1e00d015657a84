"""The same generation in torch float32: the oracle that exported bundles are compared with.

Schedules, solvers and the guidance embedding are written here a second time, from the papers, and
share no line with the runtime; only the noise comes from it, so that trajectories can be compared.
LCM: Luo et al. 2023 as used by T2V-Turbo. DDIM: Song et al. 2021. Zero terminal SNR: Lin et al.
2023. Dynamic rescale: VideoCrafter2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hummingbird_runtime.errors import InputError
from hummingbird_runtime.manifest import ModelFacts
from hummingbird_runtime.noise import noise
from hummingbird_runtime.schedule import SchedulerConfig
from hummingbird_train.models.autoencoder import AutoencoderKL
from hummingbird_train.models.text_encoder import TextEncoder
from hummingbird_train.models.unet import VideoUNet


@dataclass(frozen=True, eq=False)
class TorchClip:
    """What one generation gave."""

    frames: NDArray[np.uint8]
    """[F, H, W, 3]."""
    latents: NDArray[np.float32]
    """Final latent [1, C, F, h, w], scaled for the U-Net."""
    trajectory: tuple[NDArray[np.float32], ...] = field(default=())
    """The clean latent as seen after every step, the last one being ``latents``."""


@dataclass(frozen=True, eq=False)
class TorchPipeline:
    """Text tower, U-Net and decoder under one schedule."""

    unet: VideoUNet
    vae: AutoencoderKL
    text_encoder: TextEncoder
    scheduler: SchedulerConfig
    facts: ModelFacts

    @torch.inference_mode()
    def __call__(
        self,
        input_ids: NDArray[np.int64],
        *,
        seed: int = 0,
        num_frames: int | None = None,
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        negative_ids: NDArray[np.int64] | None = None,
        fps_condition: int | None = None,
    ) -> TorchClip:
        """Draw one clip; None takes the default of the facts, as in the runtime.

        Args:
            input_ids: the prompt, int64 [1,L].
            seed: of the runtime's noise.
            num_frames: F.
            height: pixels.
            width: pixels.
            num_inference_steps: evaluations of the U-Net (twice as many with two-pass guidance).
            guidance_scale: w.
            negative_ids: the negative prompt, int64 [1,L]; needed for two-pass guidance.
            fps_condition: frame rate told to the U-Net.

        Raises:
            InputError: ``request.negative_prompt`` when two-pass guidance lacks it.
        """
        facts = self.facts
        cells = facts.vae_scale_factor
        size = (
            num_frames or facts.frames.default,
            facts.latent_channels,
            (height or facts.height.default) // cells,
            (width or facts.width.default) // cells,
        )
        scale = facts.guidance.default if guidance_scale is None else guidance_scale
        fps = torch.tensor([fps_condition or facts.fps_condition.default])
        if facts.guidance.kind == "cfg" and negative_ids is None:
            raise InputError(
                "request.negative_prompt",
                "two-pass guidance, got no negative_ids, expected the ids of a negative prompt",
                hint="pass the ids of an empty prompt",
            )
        context = self.text_encoder(torch.from_numpy(input_ids))
        negative = (
            self.text_encoder(torch.from_numpy(negative_ids)) if negative_ids is not None else None
        )
        embedded = (
            guidance_sinusoids(scale, facts.timestep_cond_dim)
            if facts.timestep_cond_dim is not None
            else None
        )

        def predict(x: Tensor, t: int) -> Tensor:
            step = torch.tensor(t)
            out: Tensor = self.unet(x, step, context, timestep_cond=embedded, fps=fps)
            if facts.guidance.kind != "cfg":
                return out
            other: Tensor = self.unet(x, step, negative, timestep_cond=embedded, fps=fps)
            return other + scale * (out - other)

        steps = num_inference_steps or facts.num_inference_steps.default
        x = torch.from_numpy(noise(seed, 0, *size))
        bar = cumulative_alphas(self.scheduler)
        times = inference_times(self.scheduler, steps)
        rescale = dynamic_scales(self.scheduler)
        trajectory: list[Tensor] = []
        for i, t in enumerate(times):
            following = times[i + 1] if i + 1 < len(times) else None
            fresh = torch.from_numpy(noise(seed, 1 + i, *size))
            output = predict(x, t)
            if self.scheduler.sampler == "lcm":
                x, clean = self._consistency(x, output, t, following, bar, fresh)
            else:
                x, clean = self._ddim(x, output, t, following, bar, rescale, fresh)
            trajectory.append(clean)
        latents = trajectory[-1]
        pixels = self.vae.decode(latents[0].transpose(0, 1) / facts.scaling_factor)
        shown = ((pixels + 1) / 2).clamp(0, 1).mul(255).add(0.5).floor().to(torch.uint8)
        return TorchClip(
            shown.permute(0, 2, 3, 1).contiguous().numpy(),
            latents.numpy(),
            tuple(clean.numpy() for clean in trajectory),
        )

    def _split(self, x: Tensor, output: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
        """Clean latent and noise that an output stands for."""
        signal, sigma = math.sqrt(alpha), math.sqrt(1 - alpha)
        if self.scheduler.prediction_type == "v_prediction":
            return signal * x - sigma * output, sigma * x + signal * output
        return (x - sigma * output) / signal, output

    def _consistency(
        self, x: Tensor, output: Tensor, t: int, following: int | None, bar: Tensor, fresh: Tensor
    ) -> tuple[Tensor, Tensor]:
        x_0, _ = self._split(x, output, float(bar[t]))
        s = self.scheduler.timestep_scaling * t / self.scheduler.sigma_data
        clean = x / (s * s + 1) + x_0 * (s / math.sqrt(s * s + 1))
        if following is None:
            return clean, clean
        alpha = float(bar[following])
        return math.sqrt(alpha) * clean + math.sqrt(1 - alpha) * fresh, clean

    def _ddim(
        self,
        x: Tensor,
        output: Tensor,
        t: int,
        following: int | None,
        bar: Tensor,
        rescale: Tensor,
        fresh: Tensor,
    ) -> tuple[Tensor, Tensor]:
        target = 0 if following is None else following
        alpha, alpha_next = float(bar[t]), float(bar[target])
        x_0, eps = self._split(x, output, alpha)
        clean = x_0 / float(rescale[t])
        sigma = self.scheduler.eta * math.sqrt(
            (1 - alpha_next) / (1 - alpha) * (1 - alpha / alpha_next)
        )
        towards = math.sqrt(max(0.0, 1 - alpha_next - sigma * sigma))
        x = math.sqrt(alpha_next) * float(rescale[target]) * clean + towards * eps + sigma * fresh
        return x, clean


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


def guidance_sinusoids(w: float, width: int) -> Tensor:
    """Embedding of w: float32 [1, width], sines first, divisor half - 1, phases in float32."""
    half = width // 2
    step = torch.tensor(math.log(10000.0), dtype=torch.float32) / (half - 1)
    exponents = -step * torch.arange(half, dtype=torch.float32)
    phase = (torch.tensor(w, dtype=torch.float32) * 1000) * exponents.double().exp().float()
    return torch.cat([phase.double().sin(), phase.double().cos()]).float()[None]
