"""Clips of the student as it ships: what the guard looks at and preference pairs are made of."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from hummingbird_runtime.scheduler_config import SchedulerConfig
from hummingbird_train.feedback.decode import FrameDecoder
from hummingbird_train.models.unet import VideoUNet
from hummingbird_train.sampling import Contexts, sample_latents


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
        latents = sample_latents(
            self.unet,
            self.contexts,
            self.scheduler,
            prompts,
            seeds,
            steps=self.steps,
            w=self.w,
            passes=1,
            frames=self.frames,
            size=self.size,
            fps=max(1, self.fps // self.stride),
            stride=self.stride,
        )
        x_0 = torch.from_numpy(latents).to(next(self.unet.parameters()).device)
        return x_0, self.decode(x_0, np.arange(self.frames))
