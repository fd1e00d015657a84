"""Clips sampled from a torch U-Net with the runtime's own solvers and noise, in batches.

A seed gives the clip that the exported model draws for it. Nothing here decodes latents.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hummingbird_runtime.guidance import guidance_embedding
from hummingbird_runtime.noise import noise
from hummingbird_runtime.sampler import sample
from hummingbird_runtime.scheduler_config import SchedulerConfig
from hummingbird_train.models.unet import VideoUNet

Contexts = Callable[[Sequence[str]], Tensor]
"""Captions to float32 [n, L, D]."""


@torch.no_grad()
def sample_latents(
    unet: VideoUNet,
    contexts: Contexts,
    scheduler: SchedulerConfig,
    prompts: Sequence[str],
    seeds: Sequence[int],
    *,
    steps: int,
    w: float,
    passes: int,
    frames: int,
    size: tuple[int, int],
    fps: int,
    stride: int = 1,
) -> NDArray[np.float32]:
    """Scaled latents of one clip per prompt; the network is left in the mode it was in.

    Args:
        unet: on any device.
        contexts: encodes prompts, and the empty one where there are two passes.
        scheduler: schedule and solver.
        prompts: n sentences.
        seeds: n seeds of the runtime's noise.
        steps: network evaluations per clip and pass.
        w: guidance scale.
        passes: 2 mixes a prompted and an unprompted pass with weight w (a teacher); 1 gives the
            network w in its embedding, if it has one (a student).
        frames: of each clip.
        size: latent height and width.
        fps: condition, frames per second.
        stride: frame indices between two frames.

    Returns:
        float32 [n, C, frames, h, w].
    """
    device = next(unet.parameters()).device
    n, config = len(prompts), unet.config
    context = contexts(prompts).to(device)
    empty = contexts([""]).to(device).expand(n, -1, -1) if passes == 2 else None
    condition = None
    if config.time_cond_proj_dim is not None:
        row = guidance_embedding(float(w if passes == 1 else 1.0), config.time_cond_proj_dim)
        condition = torch.from_numpy(row).to(device).expand(n, -1)
    rates = torch.full((n,), fps, device=device)
    indices = torch.arange(frames, device=device) * stride

    def run(x: Tensor, t: int, text: Tensor) -> Tensor:
        return unet(
            x,
            torch.tensor(t, device=device),
            text,
            timestep_cond=condition,
            fps=rates,
            frame_indices=indices,
        )

    def denoise(x_t: NDArray[np.float32], t: int) -> NDArray[np.float32]:
        x = torch.from_numpy(x_t).to(device)
        output = run(x, t, context)
        if empty is not None:
            unprompted = run(x, t, empty)
            output = unprompted + w * (output - unprompted)
        return output.cpu().numpy()

    def fresh(stream: int) -> NDArray[np.float32]:
        return np.concatenate(
            [noise(seed, stream, frames, config.in_channels, *size) for seed in seeds]
        )

    training = unet.training
    unet.eval()
    for state in sample(denoise, fresh(0), scheduler, steps, lambda i: fresh(1 + i)):
        latents: NDArray[np.float32] = state.denoised
    unet.train(training)
    return latents
