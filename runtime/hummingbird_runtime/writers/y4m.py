"""YUV4MPEG2: raw planes that every encoder reads. 4:4:4, BT.601 in video range (16..235)."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from hummingbird_runtime.video import Video

# ITU-R BT.601: luma weights, then blue and red differences scaled to +-112
_KR, _KG, _KB = 0.299, 0.587, 0.114
_MATRIX = np.array(
    [
        [219.0 * _KR, 219.0 * _KG, 219.0 * _KB],
        [-112.0 * _KR / (1.0 - _KB), -112.0 * _KG / (1.0 - _KB), 112.0],
        [112.0, -112.0 * _KG / (1.0 - _KR), -112.0 * _KB / (1.0 - _KR)],
    ]
) / np.array(255.0)
_OFFSET = np.array([16.0, 128.0, 128.0])


def write(path: Path, video: Video) -> None:
    """Write header and planes; the conversion to YUV moves a colour by at most 2 of 255 levels."""
    _, height, width, _ = video.frames.shape
    rate = Fraction(video.fps).limit_denominator(1001)
    header = f"YUV4MPEG2 W{width} H{height} F{rate.numerator}:{rate.denominator} Ip A1:1 C444"
    with path.open("wb") as file:
        file.write(f"{header} XCOLORRANGE=LIMITED\n".encode("ascii"))
        for image in video.frames:
            file.write(b"FRAME\n" + to_yuv(image).tobytes())


def to_yuv(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """RGB uint8 [H, W, 3] to planes uint8 [3, H, W], rounded to nearest."""
    planes = np.tensordot(_MATRIX, image.astype(np.float64), axes=(1, 2))  # (3, h, w)
    planes += _OFFSET[:, np.newaxis, np.newaxis] + 0.5
    rounded: NDArray[np.uint8] = planes.astype(np.uint8)  # truncates: floor, as all is positive
    return rounded
