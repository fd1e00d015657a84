"""Stage `guidance`: guidance distilled into the w embedding (Meng et al. 2023, stage one).

The frozen copy of the base model is the teacher; the student, started from it, learns to predict
v_u + w (v_c - v_u) in one pass, so the shipped model needs no guidance passes.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hummingbird_runtime.tokenizer import Tokenizer
from hummingbird_train.autoencoder import save_averaged
from hummingbird_train.base import (
    Captioner,
    embedded_guidance,
    torch_generator,
    world_schedule,
)
from hummingbird_train.diffusion import ForwardProcess, stratified_timesteps
from hummingbird_train.latents import LatentCache
from hummingbird_train.models.text_encoder import TextEncoder
from hummingbird_train.models.unet import UNetConfig, VideoUNet
from hummingbird_train.recipe import Phase
from hummingbird_train.world.scene import FPS


@dataclass(frozen=True)
class GuidanceConfig:
    """Range of the distilled guidance scale."""

    lowest: float = 1.0
    highest: float = 5.0


class GuidanceObjective:
    """One guided prediction against the teacher's two.

    Args:
        unet: the base model; it becomes the student, a frozen copy of it the teacher.
        text: frozen text tower.
        config: range of w.
    """

    def __init__(
        self,
        unet: VideoUNet,
        unet_config: UNetConfig,
        text: TextEncoder,
        cache: LatentCache,
        tokenizer: Tokenizer,
        config: GuidanceConfig,
    ) -> None:
        self.unet, self.unet_config, self.config = unet, unet_config, config
        self.teacher = copy.deepcopy(unet).requires_grad_(False).eval()
        self.text = text.requires_grad_(False).eval()
        self.modules = {"unet": self.unet}
        self.cache = cache
        self.captioner = Captioner(tokenizer, dropout=0.0, partial=0.15)
        self.process = ForwardProcess(world_schedule())
        self.width = unet_config.time_cond_proj_dim
        assert self.width is not None
        with torch.no_grad():
            self.empty = self.text(torch.from_numpy(self.captioner.empty))

    def loss(
        self, phase: Phase, images: bool, rng: np.random.Generator
    ) -> tuple[Tensor, dict[str, float]]:
        """Mean squared error against the guided teacher."""
        frames = 1 if images else phase.frames
        count = phase.images_batch if images else phase.batch
        x_0, index, scenes = self.cache.sample(rng, count, frames, phase.stride)
        t = stratified_timesteps(rng, count)
        eps = torch.randn(x_0.shape, generator=torch_generator(rng))
        x_t = self.process.noised(x_0, eps, t)
        w = rng.uniform(self.config.lowest, self.config.highest, count)
        shared = {
            "fps": torch.full((count,), max(1, FPS // phase.stride)),
            "frame_indices": torch.from_numpy(index),
            "images": frames == 1,
        }
        with torch.no_grad():
            context = self.text(self.captioner.ids(scenes, rng))
            one = embedded_guidance(np.ones(1), self.width).expand(count, -1)
            cond = self.teacher(x_t, t, context, timestep_cond=one, **shared)
            empty = self.empty.expand(count, -1, -1)
            uncond = self.teacher(x_t, t, empty, timestep_cond=one, **shared)
            scale = torch.from_numpy(w).float().view(-1, 1, 1, 1, 1)
            target = uncond + scale * (cond - uncond)
        output = self.unet(
            x_t, t, context, timestep_cond=embedded_guidance(w, self.width), **shared
        )
        loss = (output - target).square().mean()
        return loss, {"image" if frames == 1 else "clip": float(loss.detach())}

    def save(self, folder: Path, weights: Mapping[str, Tensor]) -> None:
        """Write ``unet.safetensors`` from averaged weights."""
        save_averaged(folder / "unet.safetensors", self.unet, self.unet_config, weights, "unet")
