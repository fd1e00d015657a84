"""Convolutional blocks of the video U-Net: residual block with temporal convolutions, resampling.

Features are (b*t, c, h, w) between blocks. Everything is written so that channels-last memory,
which ``VideoUNet.forward`` chooses, makes each change of view (frames, time lines, tokens) free.
"""

from __future__ import annotations

from typing import NamedTuple, TypeVar

import torch.nn.functional as F
from torch import Tensor, nn

AnyModule = TypeVar("AnyModule", bound=nn.Module)


class Conditioning(NamedTuple):
    """What every block may read besides its features."""

    batch: int
    """Number of clips b."""
    frames: int
    """Frames per clip t."""
    emb: Tensor
    """Time embedding (b, 1 or t, e); one row where all frames share it."""
    context: Tensor
    """Prompt (b, l, d): one copy per clip, never one per frame."""
    images: bool
    """True: frames are unrelated images, temporal layers are left out."""


def zeroed(module: AnyModule) -> AnyModule:
    """The module with all parameters zero, so that its residual branch starts as nothing."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


def to_clip(x: Tensor, cond: Conditioning) -> Tensor:
    """(b*t, c, h, w) -> (b, c, t, h*w)."""
    return x.flatten(2).unflatten(0, (cond.batch, cond.frames)).transpose(1, 2)


def to_frames(x: Tensor, like: Tensor) -> Tensor:
    """(b, c, t, h*w) -> (b*t, c, h, w), the shape of ``like``."""
    return x.transpose(1, 2).reshape(like.shape)


class TemporalConv(nn.Conv3d):
    """Convolution over three neighbouring frames.

    The weight keeps the published shape (c_out, c_in, 3, 1, 1); computed as a 2-D convolution with
    kernel (3, 1) over (t, h*w), the same sums on an operator that every runtime has fast.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, (3, 1, 1), padding=(1, 0, 0))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight.squeeze(-1), self.bias, padding=(1, 0))


class TemporalConvBlock(nn.Module):
    """Four temporal convolutions as a residual branch; norms span t, h and w jointly."""

    def __init__(self, channels: int, groups: int, dropout: float) -> None:
        super().__init__()

        def stage(*middle: nn.Module) -> nn.Sequential:
            norm = nn.GroupNorm(groups, channels)
            return nn.Sequential(norm, nn.SiLU(), *middle, TemporalConv(channels))

        self.conv1 = stage()
        self.conv2, self.conv3, self.conv4 = (stage(nn.Dropout(dropout)) for _ in range(3))
        zeroed(self.conv4[-1])

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, t, h*w) -> same."""
        return x + self.conv4(self.conv3(self.conv2(self.conv1(x))))


class ResBlock(nn.Module):
    """Residual block per frame with the time embedding added in the middle, then over time.

    Args:
        channels_in: channels of the input.
        channels: channels of the output.
        emb_channels: width of the time embedding.
        groups: groups of every norm.
        dropout: before the second spatial convolution.
        temporal_dropout: before the last three temporal convolutions.
    """

    def __init__(
        self,
        channels_in: int,
        channels: int,
        *,
        emb_channels: int,
        groups: int,
        dropout: float,
        temporal_dropout: float,
    ) -> None:
        super().__init__()
        self.in_layers = nn.Sequential(
            nn.GroupNorm(groups, channels_in),
            nn.SiLU(),
            nn.Conv2d(channels_in, channels, 3, padding=1),
        )
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(emb_channels, channels))
        self.out_layers = nn.Sequential(
            nn.GroupNorm(groups, channels),
            nn.SiLU(),
            nn.Dropout(dropout),
            zeroed(nn.Conv2d(channels, channels, 3, padding=1)),
        )
        self.skip_connection = (
            nn.Identity() if channels_in == channels else nn.Conv2d(channels_in, channels, 1)
        )
        # The published checkpoints spell it so.
        self.temopral_conv = TemporalConvBlock(channels, groups, temporal_dropout)

    def forward(self, x: Tensor, cond: Conditioning) -> Tensor:
        emb = self.emb_layers(cond.emb)[..., None, None]  # (b, 1 or t, c, 1, 1)
        h = self.in_layers(x).unflatten(0, (cond.batch, cond.frames)) + emb
        h = self.skip_connection(x) + self.out_layers(h.flatten(0, 1))
        if cond.images:
            return h
        return to_frames(self.temopral_conv(to_clip(h, cond)), h)


class Stem(nn.Conv2d):
    """First convolution, with the call signature of the blocks."""

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__(channels_in, channels, 3, padding=1)

    def forward(self, x: Tensor, cond: Conditioning) -> Tensor:
        return super().forward(x)


class Downsample(nn.Module):
    """Half height and width by a strided convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.op = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor, cond: Conditioning) -> Tensor:
        return self.op(x)


class Upsample(nn.Module):
    """Double height and width by nearest neighbour, then a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor, cond: Conditioning) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class Stage(nn.Sequential):
    """Blocks run one after the other under one conditioning; a level entry of the U-Net."""

    def forward(self, x: Tensor, cond: Conditioning) -> Tensor:
        for block in self:
            x = block(x, cond)
        return x
