"""Clips drawn from a U-Net with a style in it: previews by strength, and the prior that is kept."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hummingbird_runtime.atomic import atomic_file
from hummingbird_runtime.facts import ModelFacts
from hummingbird_runtime.guidance import guidance_embedding
from hummingbird_runtime.scheduler_config import SchedulerConfig
from hummingbird_train.checkpoint_folder import CheckpointFolder
from hummingbird_train.lora import merge_adapter
from hummingbird_train.models.autoencoder import AutoencoderKL
from hummingbird_train.models.unet import VideoUNet
from hummingbird_train.sampling import Contexts, sample_latents

PREVIEW_STRENGTHS = (0.0, 0.5, 1.0)


def draw_latents(
    unet: VideoUNet,
    contexts: Contexts,
    scheduler: SchedulerConfig,
    facts: ModelFacts,
    prompts: Sequence[str],
    seeds: Sequence[int],
    *,
    frames: int | None = None,
    size: tuple[int, int] | None = None,
) -> NDArray[np.float32]:
    """Scaled latents of one clip per prompt, as the model is sampled by default.

    Args:
        unet: on any device.
        contexts: encodes prompts, and the empty one for models with two passes.
        scheduler: schedule and solver.
        facts: steps, guidance, rate and default sizes.
        prompts: n sentences.
        seeds: n seeds of the runtime's noise.
        frames: of each clip; None is the model's default.
        size: latent height and width; None is the default.

    Returns:
        float32 [n, C, frames, h, w].
    """
    scale, guidance = facts.vae_scale_factor, facts.guidance
    two_passes = guidance.kind == "cfg" and guidance.default != 1
    return sample_latents(
        unet,
        contexts,
        scheduler,
        prompts,
        seeds,
        steps=facts.num_inference_steps.default,
        w=float(guidance.default),
        passes=2 if two_passes else 1,
        frames=frames or facts.frames.default,
        size=size or (facts.height.default // scale, facts.width.default // scale),
        fps=facts.fps_condition.default,
    )


def guidance_condition(facts: ModelFacts, count: int) -> Tensor | None:
    """float32 [count, W] of the default scale; None for a model without an embedding of it."""
    if facts.guidance.kind != "embedded" or facts.timestep_cond_dim is None:
        return None
    row = guidance_embedding(float(facts.guidance.default), facts.timestep_cond_dim)
    return torch.from_numpy(row).expand(count, -1)


@torch.no_grad()
def decode_clips(
    vae: AutoencoderKL, latents: NDArray[np.float32], facts: ModelFacts
) -> NDArray[np.uint8]:
    """uint8 [n, F, H, W, 3] of scaled latents [n, C, F, h, w]."""
    clips = []
    for latent in latents:
        z = torch.from_numpy(np.ascontiguousarray(latent.transpose(1, 0, 2, 3)))
        pixels = [vae.decode(part) for part in (z / facts.scaling_factor).split(facts.decode_chunk)]
        bytes_ = torch.cat(pixels).clamp(-1, 1).add(1).mul(127.5).add(0.5).to(torch.uint8)
        clips.append(bytes_.permute(0, 2, 3, 1).numpy())
    return np.stack(clips)


class SampledClips:
    """Clips that a model drew itself, as a ``ClipSource``: what a style must not unlearn.

    Args:
        latents: scaled, float32 [n, C, F, h, w].
        captions: n prompts that they were drawn for.
        fps: their rate.
        scaling_factor: of the model.
    """

    def __init__(
        self,
        latents: NDArray[np.float32],
        captions: Sequence[str],
        *,
        fps: int,
        scaling_factor: float,
    ) -> None:
        self.latents, self.captions = latents, list(captions)
        self.fps, self.scaling_factor = fps, scaling_factor

    def __len__(self) -> int:
        """Number of clips."""
        return len(self.latents)

    def sample(
        self, rng: np.random.Generator, count: int, frames: int, stride: int
    ) -> tuple[Tensor, NDArray[np.int64], list[str]]:
        """Random sub-clips, see ``ClipSource``; a span too long takes the largest stride."""
        length = self.latents.shape[2]
        frames = min(frames, length)
        stride = min(stride, (length - 1) // (frames - 1)) if frames > 1 else 1
        clips = rng.integers(len(self), size=count)
        starts = rng.integers(length - (frames - 1) * stride, size=count)
        index = starts[:, None] + np.arange(frames) * stride
        chosen = self.latents.transpose(0, 2, 1, 3, 4)[clips[:, None], index]
        latents = np.ascontiguousarray(chosen.transpose(0, 2, 1, 3, 4))
        return torch.from_numpy(latents), index, [self.captions[c] for c in clips]


def sample_prior(
    checkpoint: CheckpointFolder, contexts: Contexts, prompts: Sequence[str], clips: int, seed: int
) -> SampledClips:
    """Clips that the base draws for prompts in turn: what prior preservation keeps."""
    unet = checkpoint.unet()
    drawn, captions = [], []
    for i in range(clips):
        prompt = prompts[i % len(prompts)]
        drawn.append(
            draw_latents(
                unet, contexts, checkpoint.scheduler, checkpoint.facts, [prompt], [seed + i]
            )
        )
        captions.append(prompt)
    return SampledClips(
        np.concatenate(drawn),
        captions,
        fps=checkpoint.facts.fps_condition.default,
        scaling_factor=checkpoint.facts.scaling_factor,
    )


def preview(
    checkpoint: CheckpointFolder,
    style: Path,
    contexts: Contexts,
    prompts: Sequence[str],
    *,
    strengths: Sequence[float] = PREVIEW_STRENGTHS,
    seed: int = 7,
) -> dict[float, np.ndarray]:
    """Clips of every prompt at every strength, from equal noise.

    Args:
        checkpoint: the published model.
        style: file of the style.
        contexts: encodes the prompts.
        prompts: n sentences.
        strengths: factors of the style.
        seed: of the first prompt; the others follow.

    Returns:
        strength -> uint8 [n, F, H, W, 3].
    """
    vae, found = checkpoint.vae(), {}
    for strength in strengths:
        unet = checkpoint.unet()
        merge_adapter(unet, style, strength)
        clips = [
            draw_latents(
                unet, contexts, checkpoint.scheduler, checkpoint.facts, [prompt], [seed + i]
            )
            for i, prompt in enumerate(prompts)
        ]
        found[strength] = decode_clips(vae, np.concatenate(clips), checkpoint.facts)
    return found


def contact_sheet(
    rows: Sequence[NDArray[np.uint8]], path: Path, *, columns: int = 6, enlarge: int = 1
) -> None:
    """Write clips as a PNG, one row each, frames spread over the clip.

    Args:
        rows: uint8 [F, H, W, 3] each, of one height and width.
        path: replaced if it is there.
        columns: frames of each clip.
        enlarge: pixels of the sheet for each pixel of a frame.

    Raises:
        ResourceError: ``output.*``.
    """
    from PIL import Image

    strips = []
    for clip in rows:
        chosen = np.linspace(0, len(clip) - 1, min(columns, len(clip))).round().astype(int)
        strip = np.concatenate(list(clip[chosen]), axis=1)
        missing = columns - len(chosen)
        strips.append(np.pad(strip, ((0, 0), (0, missing * clip.shape[2]), (0, 0))))
    sheet = np.concatenate(strips).repeat(enlarge, 0).repeat(enlarge, 1)
    with atomic_file(path, overwrite=True) as temporary:
        Image.fromarray(sheet).save(temporary, format="PNG")
