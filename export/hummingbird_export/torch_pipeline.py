"""The same generation in torch float32: the oracle that exported bundles are compared with.

Only the noise comes from the runtime, so that trajectories can be compared; schedules and solvers
are those of ``torch_sampler``, the guidance embedding is written here a second time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hummingbird_export.torch_sampler import sample
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
        trajectory = sample(
            predict,
            torch.from_numpy(noise(seed, 0, *size)),
            self.scheduler,
            steps,
            lambda i: torch.from_numpy(noise(seed, 1 + i, *size)),
        )
        latents = trajectory[-1]
        pixels = self.vae.decode(latents[0].transpose(0, 1) / facts.scaling_factor)
        shown = ((pixels + 1) / 2).clamp(0, 1).mul(255).add(0.5).floor().to(torch.uint8)
        return TorchClip(
            shown.permute(0, 2, 3, 1).contiguous().numpy(),
            latents.numpy(),
            tuple(clean.numpy() for clean in trajectory),
        )


def guidance_sinusoids(w: float, width: int) -> Tensor:
    """Embedding of w: float32 [1, width], sines first, divisor half - 1, phases in float32."""
    half = width // 2
    step = torch.tensor(math.log(10000.0), dtype=torch.float32) / (half - 1)
    exponents = -step * torch.arange(half, dtype=torch.float32)
    phase = (torch.tensor(w, dtype=torch.float32) * 1000) * exponents.double().exp().float()
    return torch.cat([phase.double().sin(), phase.double().cos()]).float()[None]
