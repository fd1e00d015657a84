"""Clips of the student as it ships: what the guard looks at and preference pairs are made of.

Solver, noise and schedule are the runtime's, so a seed gives the exported model's clip.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from hummingbird_runtime.noise import noise
from hummingbird_runtime.sampler import sample
from hummingbird_runtime.scheduler_config import SchedulerConfig
from hummingbird_train.base import embedded_guidance
from hummingbird_train.feedback.decode import FrameDecoder
from hummingbird_train.models.unet import VideoUNet
from hummingbird_train.style_sampling import Contexts


class StudentClips:
    """Prompts and seeds to latents and frames, a ``guard.Make``.

    Args:
        unet: the student; its weights are those of the moment of the call.
        contexts: encodes prompts.
        decode: latents to frames.
        scheduler: schedule and solver that ships.
        steps: network passes.
        w: guidance scale, for a network that embeds one.
        frames: of a clip.
        size: latent height and width.
        stride: world frames between two frames.
        fps: condition at stride 1.
    """

    def __init__(
        self,
        unet: VideoUNet,
        contexts: Contexts,
        decode: FrameDecoder,
        scheduler: SchedulerConfig,
        *,
        steps: int,
        w: float,
        frames: int,
        size: tuple[int, int],
        stride: int = 1,
        fps: int = 8,
    ) -> None:
        self.unet, self.contexts, self.decode, self.scheduler = unet, contexts, decode, scheduler
        self.steps, self.w, self.frames, self.size = steps, w, frames, size
        self.stride, self.fps = stride, fps

    @torch.no_grad()
    def __call__(self, prompts: Sequence[str], seeds: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Scaled latents (n, c, f, h, w) and frames (n, f, 3, H, W) in [0, 1]."""
        device = next(self.unet.parameters()).device
        n, config = len(prompts), self.unet.config
        width = config.time_cond_proj_dim
        condition = None
        if width is not None:
            row = embedded_guidance(np.full(1, self.w), width).to(device)
            condition = row.expand(n, -1)
        shared = {
            "timestep_cond": condition,
            "fps": torch.full((n,), max(1, self.fps // self.stride), device=device),
            "frame_indices": torch.arange(self.frames, device=device) * self.stride,
        }
        context = self.contexts(prompts).to(device)

        def fresh(stream: int) -> Tensor:
            shape = self.frames, config.in_channels, *self.size
            rows = [noise(seed, stream, *shape) for seed in seeds]
            return torch.from_numpy(np.concatenate(rows)).to(device)

        def denoise(x_t: Tensor, t: int) -> Tensor:
            return self.unet(x_t, torch.tensor(t, device=device), context, **shared)

        training = self.unet.training
        self.unet.eval()
        states = sample(denoise, fresh(0), self.scheduler, self.steps, lambda i: fresh(1 + i))
        for state in states:
            latents: Tensor = state.denoised  # type: ignore[assignment]
        self.unet.train(training)
        return latents, self.decode(latents, np.arange(self.frames))
