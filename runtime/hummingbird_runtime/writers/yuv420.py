"""RGB to YUV 4:2:0 in BT.709 and video range, and its layouts in the memory of encoders."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

PLANAR, SEMI_PLANAR = 19, 21
"""COLOR_FormatYUV420Planar and -SemiPlanar, in the numbers of Android's MediaCodecInfo."""


def planes(image: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """RGB to limited-range BT.709: luma uint8 [H, W] and chroma uint8 [H/2, W/2, 2] (Cb, Cr)."""
    rgb = image.astype(np.float32) / 255
    red, green, blue = rgb[..., 0], rgb[..., 1], rgb[..., 2]
    luma = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    chroma = np.stack([(blue - luma) / 1.8556, (red - luma) / 1.5748], axis=-1)
    height, width = luma.shape
    halved = chroma.reshape(height // 2, 2, width // 2, 2, 2).mean(axis=(1, 3))
    return _bytes(16 + 219 * luma), _bytes(128 + 224 * halved)


def frame_bytes(image: NDArray[np.uint8], kind: int, stride: int, rows: int) -> bytes:
    """One frame as the encoder wants it.

    Args:
        image: uint8 [H, W, 3].
        kind: ``PLANAR`` or ``SEMI_PLANAR``.
        stride: bytes from one row of luma to the next, even, at least W.
        rows: rows of the luma plane, even, at least H.
    """
    luma, chroma = planes(image)
    height, width = luma.shape
    top = np.zeros((rows, stride), np.uint8)
    top[:height, :width] = luma
    if kind == SEMI_PLANAR:
        pairs = np.full((rows // 2, stride), 128, np.uint8)
        pairs[: height // 2, :width] = chroma.reshape(height // 2, width)
        return top.tobytes() + pairs.tobytes()
    halves = np.full((2, rows // 2, stride // 2), 128, np.uint8)
    halves[:, : height // 2, : width // 2] = chroma.transpose(2, 0, 1)
    return top.tobytes() + halves.tobytes()


def _bytes(values: NDArray[Any]) -> NDArray[np.uint8]:
    rounded: NDArray[np.uint8] = np.rint(values).clip(0, 255).astype(np.uint8)
    return rounded
