"""Animated PNG, lossless, written with zlib alone (PNG specification, third edition, section 11).

A reader that knows no animation shows the first frame.
"""

from __future__ import annotations

import struct
import zlib
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from hummingbird_runtime.video import Video

_RGB8 = (8, 2, 0, 0, 0)  # bit depth, colour type, and the only methods there are
_UP = 2  # row filter: difference to the row above


def write(path: Path, video: Video) -> None:
    """Write every frame whole, endless loop, delay 1/fps."""
    count, height, width, _ = video.frames.shape
    # numerator and denominator have 16 bits each
    delay = (1 / Fraction(video.fps)).limit_denominator(int(65535 * min(1.0, video.fps)))
    timing = struct.pack(">HHBB", delay.numerator, delay.denominator, 0, 0)
    sequence = 0
    with path.open("wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        _chunk(file, b"IHDR", struct.pack(">IIBBBBB", width, height, *_RGB8))
        _chunk(file, b"acTL", struct.pack(">II", count, 0))
        for index, image in enumerate(video.frames):
            region = struct.pack(">IIIII", sequence, width, height, 0, 0)
            _chunk(file, b"fcTL", region + timing)
            sequence += 1
            if index == 0:
                _chunk(file, b"IDAT", _compress(image))
            else:
                _chunk(file, b"fdAT", struct.pack(">I", sequence) + _compress(image))
                sequence += 1
        _chunk(file, b"IEND", b"")


def _compress(image: NDArray[np.uint8]) -> bytes:
    rows = image.reshape(image.shape[0], -1)  # (h, w * 3)
    filtered = np.empty((rows.shape[0], rows.shape[1] + 1), np.uint8)
    filtered[:, 0] = _UP
    filtered[0, 1:] = rows[0]
    np.subtract(rows[1:], rows[:-1], out=filtered[1:, 1:])  # modulo 256
    return zlib.compress(filtered.tobytes(), 6)


def _chunk(file: BinaryIO, kind: bytes, data: bytes) -> None:
    file.write(struct.pack(">I", len(data)) + kind + data)
    file.write(struct.pack(">I", zlib.crc32(kind + data)))
