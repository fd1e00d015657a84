"""Small changes of frames before a reward model sees them: shift, blur and noise.

A picture that only fools the reward at one exact pixel grid gains nothing. All frames of a clip are
shifted and blurred alike, so that motion stays what it was.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from hummingbird_runtime.errors import UsageError


@dataclass(frozen=True)
class Augmentation:
    """Strengths; zeros leave frames as they are."""

    shift: int = 2
    """Largest shift in pixels along each axis; the edge is repeated."""
    blur: float = 0.5
    """Largest standard deviation in pixels of a Gaussian blur of 5 taps."""
    noise: float = 0.02
    """Standard deviation of the noise added to pixels in [0, 1]."""

    def __post_init__(self) -> None:
        """Refuse negative strengths."""
        if min(self.shift, self.blur, self.noise) < 0:
            raise UsageError(
                "feedback.augmentation",
                f"augmentation, got {self}, expected strengths of at least 0",
                hint="pass 0 to turn one off",
            )

    def __call__(self, frames: Tensor, rng: np.random.Generator) -> Tensor:
        """Changed frames (b, f, 3, h, w), clamped to [0, 1]; gradients pass."""
        flat = frames.flatten(1, 2)  # (b, f * 3, h, w)
        if self.shift:
            moves = rng.integers(-self.shift, self.shift + 1, size=(len(flat), 2)).tolist()
            flat = torch.stack([_shifted(x, *m) for x, m in zip(flat, moves, strict=True)])
        if self.blur:
            flat = _blurred(flat, float(rng.uniform(0.0, self.blur)))
        if self.noise:
            generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
            drawn = torch.randn(flat.shape, generator=generator)
            flat = flat + self.noise * drawn.to(flat.device, flat.dtype)
        return flat.clamp(0, 1).view_as(frames)


def _shifted(x: Tensor, dy: int, dx: int) -> Tensor:
    """(c, h, w) moved down by dy and right by dx, the edge repeated."""
    rows = (torch.arange(x.shape[1], device=x.device) - dy).clamp(0, x.shape[1] - 1)
    columns = (torch.arange(x.shape[2], device=x.device) - dx).clamp(0, x.shape[2] - 1)
    return x[:, rows][:, :, columns]


def _blurred(x: Tensor, deviation: float) -> Tensor:
    """(b, c, h, w) under a separable Gaussian of 5 taps, the edge repeated."""
    if deviation < 1e-3:
        return x
    taps = torch.exp(-0.5 * (torch.arange(-2.0, 3.0) / deviation).square())
    taps = (taps / taps.sum()).to(x.device, x.dtype)
    channels = x.shape[1]
    row = taps.view(1, 1, 1, 5).expand(channels, 1, 1, 5)
    padded = F.pad(x, (2, 2, 2, 2), mode="replicate")
    return F.conv2d(F.conv2d(padded, row, groups=channels), row.mT, groups=channels)
