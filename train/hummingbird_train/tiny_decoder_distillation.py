"""Stage `tiny-decoder`: a small decoder learns to draw what the full one draws.

The autoencoder is frozen, ours or any that ``AutoencoderKL`` holds. Latents come from a cache of
encoded clips; they get a little noise, since the U-Net's are not exact. The student imitates the
full decoder's output for the very same latent; where the clips' own pixels are known it may also
be drawn towards them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hummingbird_runtime.errors import InputError, UsageError
from hummingbird_train.autoencoder import (
    AutoencoderLoss,
    frames_to_tensor,
    mean_psnr,
    reconstruction_loss,
    save_averaged,
)
from hummingbird_train.base import torch_generator
from hummingbird_train.data.clip_source import ClipSource
from hummingbird_train.devices import Placed
from hummingbird_train.models.autoencoder import AutoencoderKL
from hummingbird_train.models.tiny_decoder import TinyDecoder, TinyDecoderConfig
from hummingbird_train.recipe import Phase
from hummingbird_train.world.render import render
from hummingbird_train.world.scene import Scene

Pixels = Callable[[Sequence[Any], np.ndarray], Tensor]
"""Descriptions of n clips and int64 frame indices [n, f] to float [n f, 3, H, W] in [-1, 1]."""


@dataclass(frozen=True)
class TinyDecoderLoss:
    """What the small decoder is compared with, and how."""

    decoder_weight: float = 1.0
    """Weight of the distance to the full decoder's output."""
    pixel_weight: float = 0.0
    """Weight of the distance to the clip's own pixels; above 0 needs a source that knows them."""
    latent_noise: float = 0.1
    """Largest standard deviation of the noise added to a latent of unit variance; every frame
    draws its own from 0 to this."""
    edge_weight: float = 4.0
    """Extra weight of pixels within two pixels of an edge of the target."""
    gradient_weight: float = 0.5
    """Weight of the L1 distance between image gradients."""


class TinyDecoderObjective(Placed):
    """Reconstruction of the full decoder's output, and of pixels, from noisy cached latents.

    Args:
        config: shape of the small decoder; its scaling factor is that of ``source``.
        vae: the frozen autoencoder that encoded the source's clips.
        source: encoded clips.
        loss: weights.
        seed: of the initial weights.
        pixels: the pixels of drawn frames; needed with a pixel weight.
        model: train this one on instead of a fresh one.

    Raises:
        InputError: ``train.decoder_fit`` when the small decoder and the autoencoder disagree about
            channels, scale or latents.
        UsageError: ``train.no_pixels`` for a pixel weight without ``pixels``.
    """

    def __init__(
        self,
        config: TinyDecoderConfig,
        vae: AutoencoderKL,
        source: ClipSource[Any],
        loss: TinyDecoderLoss,
        *,
        seed: int,
        pixels: Pixels | None = None,
        model: TinyDecoder | None = None,
    ) -> None:
        check_fit(config, vae, source.scaling_factor)
        if loss.pixel_weight > 0 and pixels is None:
            raise UsageError(
                "train.no_pixels",
                f"tiny decoder: got pixel_weight {loss.pixel_weight:g} with latents alone, "
                "expected a source of pixels",
                hint="set pixel_weight = 0, or give the pixels",
            )
        torch.manual_seed(seed)
        self.config, self.weights, self.source, self.pixels = config, loss, source, pixels
        self.vae = vae.requires_grad_(False).eval()
        self.model = TinyDecoder(config) if model is None else model
        self.modules = {"tiny_decoder": self.model}
        self._terms = AutoencoderLoss(
            edge_weight=loss.edge_weight, gradient_weight=loss.gradient_weight
        )

    def loss(
        self, phase: Phase, images: bool, rng: np.random.Generator
    ) -> tuple[Tensor, dict[str, float]]:
        """Distance of ``phase.batch`` times ``phase.frames`` decoded frames to their targets."""
        count = phase.images_batch if images else phase.batch
        frames = 1 if images else phase.frames
        x_0, index, described = self.source.sample(rng, count, frames, phase.stride)
        x_0 = x_0.transpose(1, 2).flatten(0, 1)  # (b, c, f, h, w) -> (b f, c, h, w)
        generator = torch_generator(rng)
        sigma = self.weights.latent_noise * torch.rand(len(x_0), 1, 1, 1, generator=generator)
        z = x_0 + sigma * torch.randn(x_0.shape, generator=generator)
        (z,) = self.here(z / self.config.scaling_factor)
        with torch.no_grad():
            wanted = self.vae.decode(z)
        output = self.model(z)
        numbers = {"psnr_decoder": mean_psnr(output, wanted)}
        total = self.weights.decoder_weight * reconstruction_loss(output, wanted, self._terms)
        if self.pixels is not None and self.weights.pixel_weight > 0:
            (target,) = self.here(self.pixels(described, index))
            numbers["psnr_pixels"] = mean_psnr(output, target)
            total = total + self.weights.pixel_weight * reconstruction_loss(
                output, target, self._terms
            )
        return total, numbers

    def save(self, folder: Path, weights: Mapping[str, Tensor]) -> None:
        """Write ``tiny_decoder.safetensors`` from averaged weights."""
        save_averaged(
            folder / "tiny_decoder.safetensors", self.model, self.config, weights, "tiny_decoder"
        )


def world_pixels(scenes: Sequence[Scene], index: np.ndarray) -> Tensor:
    """Rendered frames of the tiny world's clips: float [n f, 3, 64, 64] in [-1, 1]."""
    drawn = [render([scene], row)[0] for scene, row in zip(scenes, index, strict=True)]
    return frames_to_tensor(np.concatenate(drawn))


def check_fit(config: TinyDecoderConfig, vae: AutoencoderKL, scaling_factor: float) -> None:
    """Refuse a small decoder that cannot stand in for an autoencoder's.

    Raises:
        InputError: ``train.decoder_fit`` naming what differs.
    """
    pairs = {
        "latent_channels": (config.latent_channels, vae.config.latent_channels),
        "out_channels": (config.out_channels, vae.config.in_channels),
        "pixels per latent cell": (config.upscale, vae.config.downscale),
        "scaling_factor": (round(config.scaling_factor, 6), round(scaling_factor, 6)),
    }
    for what, (got, expected) in pairs.items():
        if got != expected:
            raise InputError(
                "train.decoder_fit",
                f"tiny decoder, {what}: got {got}, expected {expected} of the autoencoder and its "
                "latents",
                hint="start from TinyDecoderConfig.tiny or .videocrafter2 and set what differs",
            )
