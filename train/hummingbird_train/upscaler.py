"""Stage `upscaler`: a small network learns to enlarge decoded frames four times.

Pairs of small and large frames come from the tiny world, whose scenes can be drawn at any size, or
from a user's clips, shrunk by averaging. The small frame is then made to look like what a decoder
gives: run through the autoencoder with a noisy latent, blurred, or left as it is; with a little
noise. Charbonnier loss (Lai et al. 2017), weighted towards edges, plus that of image gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from hummingbird_runtime.errors import InputError
from hummingbird_train.autoencoder import (
    edge_map,
    frames_to_tensor,
    gradients,
    mean_psnr,
    save_averaged,
)
from hummingbird_train.base import torch_generator
from hummingbird_train.devices import Placed
from hummingbird_train.image_quality import filter_rows_and_columns, gaussian_taps
from hummingbird_train.models.autoencoder import AutoencoderKL
from hummingbird_train.models.tiny_decoder import TinyDecoder
from hummingbird_train.models.upscaler import Upscaler, UpscalerConfig
from hummingbird_train.recipe import Phase
from hummingbird_train.world.render import render
from hummingbird_train.world.scene import FRAMES, SIZE, sample_scene

BLUR_RADIUS = 4
"""Pixels; covers Gaussians of up to 1.5 pixels."""


@dataclass(frozen=True)
class UpscalerLoss:
    """Weights of the loss."""

    epsilon: float = 1e-3
    """Charbonnier's epsilon: sqrt(d^2 + epsilon^2)."""
    edge_weight: float = 4.0
    """Extra weight of pixels within two pixels of an edge of the large frame."""
    gradient_weight: float = 0.5
    """Weight of the distance between image gradients."""


@dataclass(frozen=True)
class Degradation:
    """How small frames are made to look decoded; each frame draws its own way and amounts."""

    decoded: float = 0.6
    """Share of frames that a decoder has drawn, where there is one."""
    latent_noise: float = 0.3
    """Largest standard deviation of a latent's noise, as a share of the latents' own."""
    blurred: float = 0.2
    """Share of frames that are blurred; what is left stays sharp."""
    blur: float = 0.8
    """Largest standard deviation of the blur, pixels."""
    noise: float = 0.02
    """Largest standard deviation of white noise in every way, pixels in [-1, 1]."""
    crop: int = 32
    """Side of the small frame's part that is enlarged, pixels; at most its whole side."""


class PairSource(Protocol):
    """Frames in two sizes."""

    def sample(self, rng: np.random.Generator, count: int) -> tuple[Tensor, Tensor]:
        """Small frames float [n, 3, H, W] and large ones [n, 3, sH, sW], both in [-1, 1]."""
        ...


class WorldPairs:
    """Frames of random scenes of the tiny world, drawn in both sizes.

    Args:
        tier: of the world.
        scale: of the large frames.
    """

    def __init__(self, *, tier: int, scale: int) -> None:
        self.tier, self.scale = tier, scale

    def sample(self, rng: np.random.Generator, count: int) -> tuple[Tensor, Tensor]:
        """``count`` scenes at one moment of their clips."""
        scenes = [sample_scene(rng, tier=self.tier) for _ in range(count)]
        frame = [int(rng.integers(FRAMES))]
        small, large = (render(scenes, frame, side)[:, 0] for side in (SIZE, self.scale * SIZE))
        return frames_to_tensor(small), frames_to_tensor(large)


class ShrunkPairs:
    """Large frames given by a function, and the same shrunk by averaging.

    Args:
        draw: (generator, count) to uint8 [n, H, W, 3]; H and W are multiples of the scale.
        scale: of the large frames.
    """

    def __init__(
        self, draw: Callable[[np.random.Generator, int], NDArray[np.uint8]], *, scale: int
    ) -> None:
        self.draw, self.scale = draw, scale

    def sample(self, rng: np.random.Generator, count: int) -> tuple[Tensor, Tensor]:
        """``count`` frames of ``draw``."""
        large = frames_to_tensor(self.draw(rng, count))
        return F.avg_pool2d(large, self.scale), large


class UpscalerObjective(Placed):
    """Large frames from degraded small ones.

    Args:
        config: shape of the upscaler.
        source: pairs of frames.
        loss: weights.
        degradation: of the small frames.
        seed: of the initial weights.
        vae: frozen autoencoder whose frames will be enlarged; None leaves its share sharp.
        decoders: further decoders of the same latents, such as the small one.
        model: train this one on instead of a fresh one.

    Raises:
        InputError: ``train.upscaler_source`` when source and upscaler differ in scale.
    """

    def __init__(
        self,
        config: UpscalerConfig,
        source: PairSource,
        loss: UpscalerLoss,
        degradation: Degradation,
        *,
        seed: int,
        vae: AutoencoderKL | None = None,
        decoders: Sequence[TinyDecoder] = (),
        model: Upscaler | None = None,
    ) -> None:
        torch.manual_seed(seed)
        self.config, self.source, self.weights = config, source, loss
        self.degradation = degradation
        self.vae = None if vae is None else vae.requires_grad_(False).eval()
        self.decoders = nn.ModuleList(decoders).requires_grad_(False).eval()
        self.model = Upscaler(config) if model is None else model
        self.modules = {"upscaler": self.model}

    def loss(
        self, phase: Phase, images: bool, rng: np.random.Generator
    ) -> tuple[Tensor, dict[str, float]]:
        """Distance of ``phase.batch`` enlarged frames to the large ones."""
        small, large = self.source.sample(rng, phase.batch)
        scale = self.config.scale
        if large.shape[2:] != (scale * small.shape[2], scale * small.shape[3]):
            raise InputError(
                "train.upscaler_source",
                f"pairs of {list(small.shape[2:])} and {list(large.shape[2:])} pixels, expected "
                f"the second {scale} times larger",
                hint="give the source the scale of the upscaler",
            )
        small, large = self.here(small, large)
        small = self.degrade(small, rng)
        small, large = _cropped(small, large, self.degradation.crop, rng)
        output = self.model.enlarge(small)
        return upscaling_loss(output, large, self.weights), {"psnr": mean_psnr(output, large)}

    @torch.no_grad()
    def degrade(self, small: Tensor, rng: np.random.Generator) -> Tensor:
        """Frames as a decoder could have drawn them: float [n, 3, H, W] in [-1, 1], a new tensor.

        Args:
            small: exact frames in [-1, 1].
            rng: chooses the way and the amounts of every frame.
        """
        d, count = self.degradation, len(small)
        ways = rng.random(count)
        amounts = rng.random(count)
        generator = torch_generator(rng)
        out = small.clone()
        decoded = np.flatnonzero(ways < d.decoded) if self.vae is not None else np.array([], int)
        if decoded.size:
            out[decoded] = self._decoded(small[decoded], amounts[decoded], generator)
        blurred = np.flatnonzero((ways >= d.decoded) & (ways < d.decoded + d.blurred))
        if blurred.size:
            sigma = torch.from_numpy(d.blur * amounts[blurred]).to(small)
            padded = F.pad(small[blurred], (BLUR_RADIUS,) * 4, mode="replicate")
            out[blurred] = filter_rows_and_columns(padded, gaussian_taps(sigma, BLUR_RADIUS))
        sigma = torch.from_numpy(d.noise * rng.random(count)).to(small)
        white = torch.randn(out.shape, generator=generator).to(small)
        return (out + sigma[:, None, None, None] * white).clamp(-1, 1)

    def _decoded(
        self, frames: Tensor, amounts: NDArray[np.float64], generator: torch.Generator
    ) -> Tensor:
        """Through the encoder, latent noise, and one of the decoders."""
        vae = self.vae
        assert vae is not None
        mean, _ = vae.encode(frames)
        sigma = torch.from_numpy(self.degradation.latent_noise * amounts).to(mean) * mean.std()
        white = torch.randn(mean.shape, generator=generator).to(mean)
        z = mean + sigma[:, None, None, None] * white
        decoders = [vae.decode, *self.decoders]
        out = torch.empty_like(frames)
        for number, decode in enumerate(decoders):  # they take turns
            if number < len(z):
                out[number :: len(decoders)] = decode(z[number :: len(decoders)])
        return out

    def save(self, folder: Path, weights: Mapping[str, Tensor]) -> None:
        """Write ``upscaler.safetensors`` from averaged weights."""
        save_averaged(folder / "upscaler.safetensors", self.model, self.config, weights, "upscaler")


def charbonnier(difference: Tensor, epsilon: float) -> Tensor:
    """sqrt(d^2 + epsilon^2) - epsilon of every element: 0 where d is 0."""
    return (difference.square() + epsilon**2).sqrt() - epsilon


def upscaling_loss(output: Tensor, target: Tensor, weights: UpscalerLoss) -> Tensor:
    """Edge-weighted Charbonnier distance plus that of gradients: a scalar.

    Args:
        output: float [n, 3, H, W], nominally in [-1, 1].
        target: of the same shape.
        weights: of the terms.
    """
    weight = 1 + weights.edge_weight * edge_map(target)
    pixel = (weight * charbonnier(output - target, weights.epsilon)).mean()
    slope = sum(
        charbonnier(a - b, weights.epsilon).mean()
        for a, b in zip(gradients(output), gradients(target), strict=True)
    )
    return pixel + weights.gradient_weight * slope


def _cropped(
    small: Tensor, large: Tensor, side: int, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """The same random part of each pair, small [n, 3, side, side]; whole where side is larger."""
    height, width = small.shape[2:]
    scale = large.shape[2] // height
    rows, columns = min(side, height), min(side, width)
    tops = rng.integers(height - rows + 1, size=len(small))
    lefts = rng.integers(width - columns + 1, size=len(small))
    parts = [
        (
            small[i, :, top : top + rows, left : left + columns],
            large[
                i,
                :,
                scale * top : scale * (top + rows),
                scale * left : scale * (left + columns),
            ],
        )
        for i, (top, left) in enumerate(zip(tops.tolist(), lefts.tolist(), strict=True))
    ]
    return torch.stack([a for a, _ in parts]), torch.stack([b for _, b in parts])
