"""What every objective draws its clips from: the tiny world's cache, or a cache of user clips."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, TypeVar, runtime_checkable

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

Described = TypeVar("Described", covariant=True)


@runtime_checkable
class ClipSource(Protocol[Described]):
    """Encoded clips with something that describes each: captions, or scenes of the tiny world.

    All clips have one frame rate, so that the fps condition of a stride is the same for all.
    """

    scaling_factor: float
    """What stored latents are multiplied with; the decoder divides by it."""

    def __len__(self) -> int:
        """Number of clips."""
        ...

    def sample(
        self, rng: np.random.Generator, count: int, frames: int, stride: int
    ) -> tuple[Tensor, np.ndarray, Sequence[Described]]:
        """Draw sub-clips; equal generators give equal samples.

        Args:
            rng: the only source of randomness; the loop seeds it with (seed, step, rank).
            count: how many.
            frames: frames of each.
            stride: frames of the source between two of them.

        Returns:
            float32 latents [count, C, frames, h, w] times ``scaling_factor``, int64 frame indices
            [count, frames] from the start of each clip, and what describes each.
        """
        ...
