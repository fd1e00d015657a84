"""Sampling from torch models with the runtime's own solvers and noise, in batches, for judging."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from hummingbird_runtime.guidance import guidance_embedding
from hummingbird_runtime.noise import noise
from hummingbird_runtime.sampler import sample
from hummingbird_runtime.schedule import SchedulerConfig
from hummingbird_runtime.tokenizer import Tokenizer
from hummingbird_train.models.autoencoder import AutoencoderKL
from hummingbird_train.models.text_encoder import TextEncoder
from hummingbird_train.models.unet import VideoUNet


@torch.no_grad()
def sample_latents(
    unet: VideoUNet,
    text: TextEncoder,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    seeds: Sequence[int],
    *,
    scheduler: SchedulerConfig,
    steps: int,
    w: float,
    passes: int,
    frames: int,
    size: int,
    stride: int = 1,
    fps: int = 8,
) -> np.ndarray:
    """Scaled latents of one clip per prompt.

    Args:
        unet: network in evaluation mode.
        text: its text tower.
        tokenizer: of that tower.
        prompts: n sentences.
        seeds: n seeds of the runtime's noise.
        scheduler: schedule and solver.
        steps: network evaluations per clip and pass.
        w: guidance scale.
        passes: 2 mixes a prompted and an unprompted pass with weight w (the teacher); 1 gives the
            network w in its embedding (the distilled student).
        frames: frames to make.
        stride: world frames between two of them.
        size: latent height and width.
        fps: condition, frames per second.

    Returns:
        float32 [n, C, frames, size, size].
    """
    n, channels = len(prompts), unet.config.in_channels
    x_T = np.concatenate([noise(s, 0, frames, channels, size, size) for s in seeds])
    ids = np.concatenate([tokenizer.encode(p).ids for p in prompts])
    context = text(torch.from_numpy(ids))
    empty = text(torch.from_numpy(tokenizer.encode("").ids)).expand(n, -1, -1)
    width = unet.config.time_cond_proj_dim
    embedded = w if passes == 1 else 1.0
    condition = None
    if width is not None:
        condition = torch.from_numpy(guidance_embedding(embedded, width)).expand(n, -1)
    shared = {
        "timestep_cond": condition,
        "fps": torch.full((n,), fps),
        "frame_indices": torch.arange(frames) * stride,
    }

    def denoise(x_t: np.ndarray, t: int) -> np.ndarray:
        x = torch.from_numpy(x_t)
        output = unet(x, torch.tensor(t), context, **shared)
        if passes == 2:
            unprompted = unet(x, torch.tensor(t), empty, **shared)
            output = unprompted + w * (output - unprompted)
        return output.numpy()

    def noise_fn(i: int) -> np.ndarray:
        return np.concatenate([noise(s, 1 + i, frames, channels, size, size) for s in seeds])

    for state in sample(denoise, x_T, scheduler, steps, noise_fn):
        latents = state.denoised
    return latents


@torch.no_grad()
def decode_frames(vae: AutoencoderKL, latents: np.ndarray, scaling_factor: float) -> np.ndarray:
    """uint8 [n, F, H, W, 3] of scaled latents [n, C, F, h, w], clip by clip."""
    clips = []
    for latent in latents:
        z = torch.from_numpy(np.ascontiguousarray(latent.transpose(1, 0, 2, 3))) / scaling_factor
        pixels = vae.decode(z).clamp(-1, 1).add(1).mul(127.5).add(0.5).to(torch.uint8)
        clips.append(pixels.permute(0, 2, 3, 1).numpy())
    return np.stack(clips)
