"""What a reward model is: frames and prompts in, one score a clip out.

T2V-Turbo (arXiv:2405.18750), section 4: image rewards see a few random frames, video rewards evenly
spaced ones. Choosing frames is here; decoding them is in ``decode.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from hummingbird_runtime.errors import UsageError

Sampling = Literal["random", "strided", "all"]
SAMPLINGS: tuple[Sampling, ...] = ("random", "strided", "all")


@dataclass(frozen=True)
class FrameSpec:
    """Which frames of a clip a reward model wants, and how large."""

    count: int
    """Frames per clip; with sampling "all", ignored."""
    sampling: Sampling = "strided"
    """``random``: drawn one by one, repeats allowed. ``strided``: evenly spaced over the clip, the
    phase drawn. ``all``: every frame."""
    size: int | None = None
    """Height and width in pixels that the model is given; None is the decoder's own."""

    def __post_init__(self) -> None:
        """Refuse counts below one and unknown ways of sampling."""
        if self.count < 1 or self.sampling not in SAMPLINGS or (self.size or 1) < 1:
            raise UsageError(
                "feedback.frames",
                f"frame choice, got {self}, expected count and size of at least 1 and sampling "
                f"one of {', '.join(SAMPLINGS)}",
                hint="correct the reward's frames",
            )

    def choose(self, frames: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """Frame numbers to decode.

        Args:
            frames: length of the clip, at least 1.
            rng: draws the frames, or the phase of the stride.

        Returns:
            int64 [n], rising unless ``random``; n is ``min(count, frames)`` when ``strided``.
        """
        if self.sampling == "all":
            return np.arange(frames)
        if self.sampling == "random":
            return rng.integers(frames, size=self.count)
        count = min(self.count, frames)
        step = frames // count
        # Upstream's video reward: stride frames // count, the first frame drawn so that all fit.
        start = int(rng.integers(frames - (count - 1) * step))
        return start + step * np.arange(count)


class RewardModel(Protocol):
    """Scores clips against prompts; higher is better."""

    name: str
    """Of the term in logs."""
    differentiable: bool
    """Whether gradients reach the frames."""
    wants: FrameSpec

    def encode_text(self, prompts: list[str]) -> Any:
        """Whatever ``__call__`` takes as ``text``; computed without gradient."""
        ...

    def __call__(self, frames: Tensor, text: Any) -> Tensor:
        """Scores [b] of frames (b, f, 3, h, w) in [0, 1]."""
        ...


def resized(frames: Tensor, size: int | None) -> Tensor:
    """Frames (b, f, 3, h, w) at size x size, bicubic with antialiasing, clamped to [0, 1]."""
    if size is None or tuple(frames.shape[-2:]) == (size, size):
        return frames
    flat = frames.flatten(0, 1)  # (b * f, 3, h, w)
    flat = F.interpolate(flat, (size, size), mode="bicubic", antialias=True, align_corners=False)
    return flat.clamp(0, 1).unflatten(0, frames.shape[:2])


def normalised(frames: Tensor, mean: Sequence[float], deviation: Sequence[float]) -> Tensor:
    """(frames - mean) / deviation per colour channel; frames (..., 3, h, w) in [0, 1]."""
    shape = (3, 1, 1)
    return (frames - frames.new_tensor(mean).view(shape)) / frames.new_tensor(deviation).view(shape)
