"""Decoded frames to RGB pictures of the sizes that stages ask for.

An exact height goes through FFmpeg's area averaging. Rough pictures are made by halving the planes
of the decoder, which costs a quarter: what a stage that looks at every frame can afford.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hummingbird_train.curation.stages.opencv import opencv

if TYPE_CHECKING:
    import av
    from av.video.reformatter import VideoReformatter

Plane = NDArray[np.uint8]
PLANAR = ("yuv420p", "yuvj420p")  # formats whose planes are halved
BT601 = (2, 5, 6)  # FFmpeg's numbers of "not specified" and of the two BT.601 matrices
LIMITED = (0, 1)  # and of "not specified" and luma 16..235


class Size(NamedTuple):
    """How large a picture is to be."""

    height: int
    """rows."""
    width: int
    """columns."""
    halvings: int = 0
    """times that the stored frame is halved to get there; 0: scaled exactly."""


def exact_size(height: int, width: int, rows: int | None) -> Size:
    """Size of a stored frame of height x width at ``rows`` rows.

    Never larger than stored; columns in proportion and even, unless as stored.
    """
    if rows is None or rows >= height:
        return Size(height, width)
    return Size(rows, max(2, round(width * rows / height / 2) * 2))


def rough_size(height: int, width: int, least: int) -> Size:
    """Size after as many halvings as leave ``least`` rows or more; rows and columns are even."""
    halvings = max(0, (height // max(2, least)).bit_length() - 1)
    rows, columns = height >> halvings & ~1, width >> halvings & ~1
    if not halvings or min(rows, columns) < 2:
        return Size(height, width)
    return Size(rows, columns, halvings)


class Scaler:
    """Scales decoded frames of one file; one FFmpeg context for each size."""

    def __init__(self) -> None:
        self._contexts: dict[Size, VideoReformatter] = {}

    def scale(self, picture: av.VideoFrame, size: Size) -> NDArray[np.uint8]:
        """A frame as uint8 [size.height, size.width, 3] RGB."""
        halved = picture.height >> size.halvings & ~1, picture.width >> size.halvings & ~1
        if size.halvings and halved == size[:2] and picture.format.name in PLANAR:
            return self._halved(picture, size)
        return self._reformatted(picture, size)

    def _reformatted(self, picture: av.VideoFrame, size: Size) -> NDArray[np.uint8]:
        from av.video.reformatter import VideoReformatter

        context = self._contexts.setdefault(size, VideoReformatter())
        scaled = context.reformat(picture, size.width, size.height, "rgb24", interpolation="AREA")
        return np.asarray(scaled.to_ndarray(), np.uint8)

    def _halved(self, picture: av.VideoFrame, size: Size) -> NDArray[np.uint8]:
        """All three planes halved alike, so that they stay 4:2:0, and made RGB when small."""
        import av

        cv2 = opencv()
        height, width, halvings = size
        small = np.empty((height * 3 // 2, width), np.uint8)  # the three planes one after another
        chroma = small[height:].reshape(2, height // 2, width // 2)
        for plane, target in zip(picture.planes, (small[:height], *chroma), strict=True):
            pixels = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
            rows, columns = target.shape
            pixels = pixels[: rows << halvings, : columns << halvings]
            for left in reversed(range(halvings)):
                half = (columns << left, rows << left)
                into = None if left else target
                pixels = cv2.resize(pixels, half, dst=into, interpolation=cv2.INTER_AREA)
        name, matrix, span = picture.format.name, picture.colorspace, picture.color_range
        if name == PLANAR[0] and matrix in BT601 and span in LIMITED:
            return np.asarray(cv2.cvtColor(small, cv2.COLOR_YUV2RGB_I420), np.uint8)
        frame = av.VideoFrame.from_ndarray(small, format=name)
        frame.colorspace, frame.color_range = matrix, span
        return self._reformatted(frame, size)
