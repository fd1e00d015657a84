"""The result of a run: frames, how fast to play them, and what they were made from."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hummingbird_runtime.atomic import atomic_file
from hummingbird_runtime.errors import UsageError
from hummingbird_runtime.writers import FRAME_RATES, find_writer

if TYPE_CHECKING:
    from hummingbird_runtime.events import Warning


@dataclass(frozen=True, eq=False)
class Video:
    """A clip in memory.

    Raises:
        UsageError: ``video.invalid`` for frames of another dtype or shape, or an fps outside
            0.01 to 1000.
    """

    frames: NDArray[np.uint8]
    """uint8 [F, H, W, 3], RGB."""
    fps: float
    """Playback rate, frames per second."""
    seed: int = 0
    """Seed of the noise, 0..2^64-1."""
    prompt: str = ""
    """The sentence; empty when the call was given embeddings."""
    bundle_id: str = ""
    """Identity of the bundle that drew it."""
    timings: Mapping[str, float] = field(default_factory=dict)
    """Seconds by stage: text, denoise, decode, upscale if it was run, and their sum, total."""
    warnings: tuple[Warning, ...] = ()
    """What ``stream`` would have reported besides."""

    def __post_init__(self) -> None:
        frames = self.frames
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or not frames.size:
            raise UsageError(
                "video.invalid",
                f"frames, got {frames.dtype} {list(frames.shape)}, expected uint8 [F, H, W, 3]",
                hint="give at least one RGB frame",
            )
        low, high = FRAME_RATES
        if not low <= self.fps <= high:  # NaN is not
            raise UsageError(
                "video.invalid",
                f"fps, got {self.fps}, expected {low:g} to {high:g}",
                hint="give the playback rate in frames per second",
            )

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = True) -> None:
        """Write the clip whole or not at all; the suffix picks the format.

        Args:
            path: ends in .mp4, .gif, .webp, .png (animated), .y4m or .npz.
            overwrite: whether an existing file may be replaced.

        Raises:
            UsageError: ``output.suffix``, ``output.exists``, ``output.is_folder``,
                ``video.odd_size``.
            ResourceError: ``extra.missing`` or an ``output.*`` code of the file system.
        """
        write = find_writer(path)
        with atomic_file(path, overwrite=overwrite) as partial:
            write(partial, self)
