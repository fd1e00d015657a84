"""DOVER's two views of a clip (Wu et al. 2023): which frames, which patches, which numbers.

Technical: 3 clips x 32 frames two apart, each a 7 x 7 mosaic of unscaled 32-pixel patches at one
place for all frames of a clip. Aesthetic: 32 single frames, each squeezed to 224 x 224. Places are
random in DOVER; here they are drawn from the clip's id, so a clip always scores the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hummingbird_train.curation.stage import FramePlan

CLIPS, LENGTH, INTERVAL = 3, 32, 2  # technical clips, frames of one, frames between
GRID, PATCH = 7, 32
SIDE = GRID * PATCH  # 224 pixels, of both views
MEAN = np.array([123.675, 116.28, 103.53], np.float32)
STD = np.array([58.395, 57.12, 57.375], np.float32)


@dataclass(frozen=True)
class DoverPlan(FramePlan):
    """The frames of both views, each once."""

    def select(
        self, times: NDArray[np.float64], keys: NDArray[np.bool_], clip_id: str = ""
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """See FramePlan."""
        chosen = np.unique(np.concatenate(frame_numbers(times.size, clip_id)))
        return chosen, np.arange(chosen.size)


def frame_numbers(count: int, clip_id: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Frames of the technical [96] and of the aesthetic view [32] of a clip of ``count`` frames.

    Each clip or frame lies at random in its share of the whole; short clips wrap around.
    """
    rng = _random(clip_id, "frames")

    def draw(length: int, fragments: int) -> NDArray[np.int64]:
        share = count // fragments
        room = share - length * INTERVAL
        late = rng.integers(0, room, fragments) if room > 0 else np.zeros(fragments, np.int64)
        first = share * np.arange(fragments) + late
        return (first[:, None] + INTERVAL * np.arange(length)).reshape(-1) % count

    return draw(LENGTH, CLIPS), draw(1, LENGTH)


def technical_view(frames: NDArray[np.uint8], clip_id: str) -> NDArray[np.float32]:
    """Mosaics of patches: uint8 [96, h, w, 3] to float32 [3 (clips), 3 (RGB), 32, 224, 224].

    A smaller picture is enlarged until its shorter side fills the mosaic; as in DOVER, the patches
    are then still laid out over its former size.
    """
    rng = _random(clip_id, "patches")
    height, width = frames.shape[1:3]
    ratio = min(height, width) / SIDE
    if ratio < 1:
        size = int(height / ratio), int(width / ratio)
        frames = np.floor(resize(frames, *size, 1 / ratio)).astype(np.uint8)
    rows, columns = _corners(height, rng), _corners(width, rng)
    view = np.empty((CLIPS * LENGTH, SIDE, SIDE, 3), np.uint8)
    for clip in range(CLIPS):
        part = slice(clip * LENGTH, (clip + 1) * LENGTH)
        for i in range(GRID):
            for j in range(GRID):
                y, x = int(rows[i, i, j, clip]), int(columns[j, i, j, clip])
                view[part, i * PATCH : (i + 1) * PATCH, j * PATCH : (j + 1) * PATCH] = frames[
                    part, y : y + PATCH, x : x + PATCH
                ]
    return standardise(view).reshape(CLIPS, LENGTH, SIDE, SIDE, 3).transpose(0, 4, 1, 2, 3)


def aesthetic_view(frames: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Squeezed frames: uint8 [32, h, w, 3] to float32 [1, 3 (RGB), 32, 224, 224]."""
    squeezed = np.rint(resize(frames, SIDE, SIDE)).astype(np.uint8)
    return standardise(squeezed)[None].transpose(0, 4, 1, 2, 3)


def standardise(frames: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Subtract the mean and divide by the deviation of each channel, the last axis."""
    return (frames.astype(np.float32) - MEAN) / STD


def resize(
    frames: NDArray[np.uint8], height: int, width: int, scale: float | None = None
) -> NDArray[np.float32]:
    """Bilinear without antialiasing, pixel centres at halves, as torch does it by default.

    Args:
        frames: uint8 [n, h, w, c].
        height: of the result.
        width: of the result.
        scale: enlargement that places the samples; None: that of each side.

    Returns:
        float32 [n, height, width, c].
    """
    top, bottom, down = _taps(frames.shape[1], height, scale)
    left, right, across = _taps(frames.shape[2], width, scale)
    out = np.empty((len(frames), height, width, frames.shape[3]), np.float32)
    for k, frame in enumerate(frames):
        values = frame.astype(np.float32)
        rows = values[top] * (1 - down)[:, None, None] + values[bottom] * down[:, None, None]
        out[k] = rows[:, left] * (1 - across)[:, None] + rows[:, right] * across[:, None]
    return out


def _taps(
    old: int, new: int, scale: float | None
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    step = old / new if scale is None else 1 / scale
    at = np.maximum((np.arange(new) + 0.5) * step - 0.5, 0)
    low = np.minimum(at.astype(np.int64), old - 1)
    return low, np.minimum(low + 1, old - 1), (at - low).astype(np.float32)


def _corners(side: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Where patches begin along one side: [grid line, i, j, clip]."""
    cell = side // GRID
    lines = np.maximum(0, np.minimum(cell * np.arange(GRID), side - PATCH))
    shape = (GRID, GRID, CLIPS)
    late = rng.integers(0, cell - PATCH, shape) if cell > PATCH else np.zeros(shape, np.int64)
    return lines[:, None, None, None] + late[None]


def _random(clip_id: str, what: str) -> np.random.Generator:
    return np.random.default_rng(list(f"{what} {clip_id}".encode()))
