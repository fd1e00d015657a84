"""A small network that makes decoded frames four times larger, each frame on its own.

Features stay at the small size and a sub-pixel layer gives the large one (Shi et al. 2016, ESPCN);
what is learned is the difference to bilinear enlargement. Layers are 3x3 convolutions, ReLU, sums.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from hummingbird_train.models.blocks import zeroed
from hummingbird_train.models.config import ModelConfig
from hummingbird_train.models.tiny_decoder import Refine


@dataclass(frozen=True)
class UpscalerConfig(ModelConfig):
    """Shape of an upscaler; the defaults have 51,760 parameters, 0.42 GFLOP a 64 x 64 frame."""

    image_channels: int = 3
    """Colour channels of the frames."""
    scale: int = 4
    """Pixels of the large frame per pixel of the small one along one side; bundles take 4."""
    channels: int = 32
    """Width of every layer but the last."""
    blocks: int = 2
    """Residual blocks, two convolutions each."""


class Upscaler(nn.Module):
    """Small frames to large ones; a new one enlarges bilinearly.

    Args:
        config: shape of the network.
    """

    def __init__(self, config: UpscalerConfig) -> None:
        super().__init__()
        self.config = config
        width = config.channels
        self.conv_in = nn.Conv2d(config.image_channels, width, 3, padding=1)
        self.body = nn.Sequential(*(Refine(width) for _ in range(config.blocks)))
        self.conv_out = zeroed(
            nn.Conv2d(width, config.image_channels * config.scale**2, 3, padding=1)
        )

    def enlarge(self, frames: Tensor) -> Tensor:
        """As ``forward``, not limited to -1..1: what training compares."""
        h = self.conv_out(self.body(F.relu(self.conv_in(frames))))
        return F.pixel_shuffle(h, self.config.scale) + bilinear(frames, self.config.scale)

    def forward(self, frames: Tensor) -> Tensor:
        """Large frames.

        Args:
            frames: float [N,3,H,W] in -1..1.

        Returns:
            float [N,3,sH,sW] with s = ``config.scale``, in -1..1.
        """
        return self.enlarge(frames).clamp(-1.0, 1.0)


def bilinear(frames: Tensor, scale: int) -> Tensor:
    """Bilinear enlargement with pixel centres aligned: [N,C,H,W] -> [N,C,sH,sW]."""
    return F.interpolate(frames, scale_factor=float(scale), mode="bilinear", align_corners=False)
