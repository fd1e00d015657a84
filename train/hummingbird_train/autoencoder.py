"""Stage `vae`: the tiny world's autoencoder, trained on frames rendered on the fly.

Deterministic latents with 5 % noise in place of a KL term (equal quality, one constant less), L1
plus half MSE weighted towards edges, plus an L1 on image gradients: thin outlines are what a judge
reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from hummingbird_train.models.autoencoder import AutoencoderConfig, AutoencoderKL
from hummingbird_train.models.weights import save_model
from hummingbird_train.recipe import Phase
from hummingbird_train.world.render import render
from hummingbird_train.world.scene import FRAMES, sample_scene


@dataclass(frozen=True)
class AutoencoderLoss:
    """Weights of the reconstruction loss."""

    latent_noise: float = 0.05
    """Standard deviation of the noise added to a latent, as a share of the latent's own."""
    edge_weight: float = 4.0
    """Extra weight of pixels within two pixels of an edge of the target."""
    gradient_weight: float = 0.5
    """Weight of the L1 distance between image gradients."""


def frames_to_tensor(frames: np.ndarray) -> Tensor:
    """uint8 [n, H, W, 3] to float32 [n, 3, H, W] in [-1, 1]."""
    return torch.from_numpy(frames).permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0)


def gradients(images: Tensor) -> tuple[Tensor, Tensor]:
    """Forward differences along x and y of [n, c, H, W]."""
    return images[..., :, 1:] - images[..., :, :-1], images[..., 1:, :] - images[..., :-1, :]


def edge_map(images: Tensor) -> Tensor:
    """Edges of [n, 3, H, W] in [-1, 1], dilated by two pixels: [n, 1, H, W] in 0..1."""
    dx, dy = gradients(images)
    strength = F.pad(dx.abs(), (0, 1)) + F.pad(dy.abs(), (0, 0, 0, 1))
    return F.max_pool2d(strength.amax(1, keepdim=True).clamp(max=1.0), 5, 1, 2)


def reconstruction_loss(output: Tensor, target: Tensor, weights: AutoencoderLoss) -> Tensor:
    """Edge-weighted L1 plus half MSE, plus the L1 distance of gradients: a scalar.

    Args:
        output: float [n, 3, H, W], nominally in [-1, 1].
        target: of the same shape.
        weights: of the terms; its latent noise is not used here.
    """
    error = output - target
    weight = 1 + weights.edge_weight * edge_map(target)
    pixel = (weight * (error.abs() + 0.5 * error.square())).mean()
    ox, oy = gradients(output)
    tx, ty = gradients(target)
    slope = (ox - tx).abs().mean() + (oy - ty).abs().mean()
    return pixel + weights.gradient_weight * slope


def mean_psnr(output: Tensor, target: Tensor) -> float:
    """Mean over images of the PSNR in dB of [n, 3, H, W] in [-1, 1], without clipping to it."""
    with torch.no_grad():
        mse = ((output - target).clamp(-2, 2) / 2).square().mean((1, 2, 3))
        return float((-10 * torch.log10(mse + 1e-10)).mean())


class AutoencoderObjective:
    """Reconstruction of random frames of random scenes.

    Args:
        config: shape of the autoencoder.
        loss: weights of the loss terms.
        tier: tier of the world to draw from.
        seed: seed of the initial weights.
        model: train this one on instead of a fresh one; frozen parts stay as they are.
    """

    def __init__(
        self,
        config: AutoencoderConfig,
        loss: AutoencoderLoss,
        *,
        tier: int,
        seed: int,
        model: AutoencoderKL | None = None,
    ) -> None:
        torch.manual_seed(seed)
        self.config, self.weights, self.tier = config, loss, tier
        self.model = AutoencoderKL(config) if model is None else model
        self.modules = {"vae": self.model}

    def loss(
        self, phase: Phase, images: bool, rng: np.random.Generator
    ) -> tuple[Tensor, dict[str, float]]:
        """Edge-weighted reconstruction loss of ``phase.batch`` frames."""
        scenes = [sample_scene(rng, tier=self.tier) for _ in range(phase.batch)]
        frames = render(scenes, [int(rng.integers(FRAMES))])[:, 0]
        target = frames_to_tensor(frames)
        mean, _ = self.model.encode(target)
        torch_rng = torch.Generator().manual_seed(int(rng.integers(2**62)))
        noise = torch.randn(mean.shape, generator=torch_rng) * mean.detach().std()
        output = self.model.decode(mean + self.weights.latent_noise * noise)
        return reconstruction_loss(output, target, self.weights), {
            "psnr": mean_psnr(output, target)
        }

    def save(self, folder: Path, weights: Mapping[str, Tensor]) -> None:
        """Write ``vae.safetensors`` from averaged weights."""
        save_averaged(folder / "vae.safetensors", self.model, self.config, weights, "vae")


def save_averaged(
    path: Path,
    model: torch.nn.Module,
    config: object,
    weights: Mapping[str, Tensor],
    prefix: str,
) -> None:
    """Save a copy of ``model`` whose parameters are the averages named ``prefix.parameter``."""
    live = {n: p.detach().clone() for n, p in model.named_parameters()}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if f"{prefix}.{name}" in weights:
                parameter.copy_(weights[f"{prefix}.{name}"])
        save_model(path, model, config)
        for name, parameter in model.named_parameters():
            parameter.copy_(live[name])
