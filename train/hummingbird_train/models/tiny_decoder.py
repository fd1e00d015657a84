"""A small decoder from latents to pixels, to be distilled from the full one.

The idea of tiny autoencoders for latent diffusion (a convolutional decoder without norms and
attention, trained to imitate the large one) in a layout of our own: wide where the grid is coarse,
narrow where it is fine. Layers are 3x3 convolutions, ReLU, sums and nearest-neighbour doubling; for
small worlds the last layer may give whole patches of pixels (``patch``).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hummingbird_train.models.blocks import zeroed
from hummingbird_train.models.config import ModelConfig, invalid


@dataclass(frozen=True)
class TinyDecoderConfig(ModelConfig):
    """Shape of a tiny decoder; the defaults decode Stable Diffusion's latents, 8 pixels a cell."""

    latent_channels: int = 4
    """Channels of the latent."""
    out_channels: int = 3
    """Colour channels of the pixels."""
    channels: tuple[int, ...] = (128, 96, 64, 32)
    """Width of each level, coarsest first; each further level doubles height and width."""
    blocks: tuple[int, ...] = (4, 4, 3, 2)
    """Residual blocks of each level."""
    scaling_factor: float = 0.18215
    """Brings latents to about unit variance: that of the autoencoder they come from."""
    latent_limit: float = 3.0
    """Scaled latents are bent smoothly into this range, so that outliers cannot run away."""
    patch: int = 1
    """Pixels per cell of the last level along one side: above 1, the last layer gives patches."""
    head_kernel: Literal[1, 3] = 3
    """Side of the last layer's kernel; 1 keeps the many channels of a patch cheap."""

    def __post_init__(self) -> None:
        """Refuse levels that do not pair up and limits that are not positive."""
        super().__post_init__()
        if not self.channels or len(self.channels) != len(self.blocks):
            raise invalid(
                "TinyDecoderConfig",
                f"channels {list(self.channels)} and blocks {list(self.blocks)}",
                "one number per level in both",
            )
        if not (self.scaling_factor > 0 and self.latent_limit > 0):
            raise invalid(
                "TinyDecoderConfig",
                f"scaling_factor {self.scaling_factor}, latent_limit {self.latent_limit}",
                "numbers above 0",
            )

    @property
    def upsamplings(self) -> int:
        """How often height and width double."""
        return len(self.channels) - 1

    @property
    def upscale(self) -> int:
        """Pixels per latent cell along one side."""
        return self.patch * int(2**self.upsamplings)

    @classmethod
    def videocrafter2(cls) -> TinyDecoderConfig:
        """For the published autoencoder: 63 GFLOP a 320 x 512 frame, 25 times less than its own."""
        return cls()

    @classmethod
    def tiny(cls, scaling_factor: float = 1.0) -> TinyDecoderConfig:
        """For the tiny world: 8 x 8 x 4 to 64 x 64 pixels, 8.9 times less work than its own."""
        return cls(
            channels=(48,), blocks=(3,), patch=8, head_kernel=1, scaling_factor=scaling_factor
        )


class Refine(nn.Module):
    """relu(x + conv(relu(conv(x)))); starts as the identity of positive features."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = zeroed(nn.Conv2d(channels, channels, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.conv2(F.relu(self.conv1(x))))


class Double(nn.Module):
    """Twice the height and width by nearest neighbour, then a convolution to another width."""

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest")))


class TinyDecoder(nn.Module):
    """Latents to pixels.

    Args:
        config: shape of the network.
    """

    def __init__(self, config: TinyDecoderConfig) -> None:
        super().__init__()
        self.config = config
        widths = config.channels
        self.conv_in = nn.Conv2d(config.latent_channels, widths[0], 3, padding=1)
        self.up = nn.ModuleList(Double(a, b) for a, b in pairwise(widths))
        self.level = nn.ModuleList(
            nn.Sequential(*(Refine(width) for _ in range(count)))
            for width, count in zip(widths, config.blocks, strict=True)
        )
        kernel = config.head_kernel
        self.conv_out = nn.Conv2d(
            widths[-1], config.out_channels * config.patch**2, kernel, padding=kernel // 2
        )

    def forward(self, latent: Tensor) -> Tensor:
        """Pixels of a latent, as ``AutoencoderKL.decode``.

        Args:
            latent: float [N,C,h,w], unscaled (divided by the autoencoder's scaling factor).

        Returns:
            float [N,3,h*u,w*u] with u = ``config.upscale``, nominally -1..1, not clipped.
        """
        limit = self.config.latent_limit
        h = limit * torch.tanh(latent * (self.config.scaling_factor / limit))
        h = self.level[0](F.relu(self.conv_in(h)))
        for up, level in zip(self.up, self.level[1:], strict=True):
            h = level(up(h))
        h = self.conv_out(h)
        return F.pixel_shuffle(h, self.config.patch) if self.config.patch > 1 else h
