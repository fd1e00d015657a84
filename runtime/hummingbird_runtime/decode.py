"""From latents to frames: decoder and upscaler run on a few frames at a time, and 8-bit rounding.

Working by chunks bounds memory by the chunk, not by the clip, and lets frames appear early.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.float32]


def decode_chunks(
    decode: Callable[[NDArray[np.float32]], Pixels],
    latents: NDArray[np.float32],
    *,
    scaling_factor: float,
    chunk: int,
    whole: bool = False,
) -> Iterator[tuple[int, Pixels]]:
    """Yield (index of the first frame, float32 [n, H, W, 3] in about [-1, 1]) in frame order.

    Args:
        decode: float32 [n, C, h, w] -> float32 [n, 3, H, W].
        latents: float32 [1, C, F, h, w], scaled for the U-Net; divided by ``scaling_factor`` here.
        scaling_factor: U-Net latents = this times VAE latents.
        chunk: frames per call of ``decode``, at least 1.
        whole: ``decode`` takes exactly ``chunk`` frames: the last ones are repeated to fill up.
    """
    frames = latents[0].transpose(1, 0, 2, 3)  # (f, c, h, w)
    for start in range(0, frames.shape[0], chunk):
        part = np.ascontiguousarray(frames[start : start + chunk] * np.float32(1 / scaling_factor))
        count = len(part)
        fed = _filled(part, chunk) if whole else part
        yield start, decode(fed)[:count].transpose(0, 2, 3, 1)  # (n, h, w, 3)


def upscale_chunks(
    upscale: Callable[[Pixels], Pixels], pixels: Pixels, *, chunk: int, whole: bool = False
) -> Iterator[tuple[int, Pixels]]:
    """Yield (index of the first frame, float32 [n, s H, s W, 3]) in frame order.

    Args:
        upscale: float32 [n, 3, H, W] in [-1, 1] -> float32 [n, 3, s H, s W].
        pixels: decoded frames, float32 [n, H, W, 3] in about [-1, 1]; clipped to it here.
        chunk: frames per call of ``upscale``, at least 1.
        whole: ``upscale`` takes exactly ``chunk`` frames, as in ``decode_chunks``.
    """
    for start in range(0, len(pixels), chunk):
        frames = pixels[start : start + chunk].transpose(0, 3, 1, 2)  # (n, 3, h, w)
        part = np.ascontiguousarray(np.clip(frames, -1.0, 1.0))
        fed = _filled(part, chunk) if whole else part
        yield start, upscale(fed)[: len(part)].transpose(0, 2, 3, 1)  # (n, s h, s w, 3)


def _filled(part: Pixels, count: int) -> Pixels:
    """At least ``count`` frames: the last one is repeated."""
    return np.concatenate([part, np.repeat(part[-1:], max(0, count - len(part)), axis=0)])


def to_unit(pixels: Pixels) -> Pixels:
    """[-1, 1] to [0, 1], clipped: float32, the same shape, a new array."""
    unit = pixels + np.float32(1.0)
    unit *= np.float32(0.5)
    clipped: Pixels = np.clip(unit, 0.0, 1.0, out=unit)
    return clipped


def to_uint8(pixels: Pixels) -> NDArray[np.uint8]:
    """floor(clip((x + 1) / 2, 0, 1) 255 + 1/2): uint8, the same shape, C-contiguous."""
    unit = np.ascontiguousarray(to_unit(pixels))
    unit *= np.float32(255.0)
    unit += np.float32(0.5)
    return unit.astype(np.uint8)  # the conversion truncates, which is floor for positive numbers
