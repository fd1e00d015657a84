"""Sharpness at one height: variance of the Laplacian, Tenengrad, and the re-blurring measure.

The first two grow with contrast and detail, so they rank frames of one scene. ``blur`` (Crete et
al. 2007, "The blur effect") asks how much a further blur changes: it depends far less on content.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from hummingbird_train.curation.clip import Clip
from hummingbird_train.curation.decode import Frames
from hummingbird_train.curation.stage import FramePlan, Scores, Stage
from hummingbird_train.curation.stages.opencv import luma, opencv
from hummingbird_train.curation.stages.plans import STILLS_288

TAPS = 9  # pixels of the further blur
STEP = 4.0  # grey levels from one pixel to the next below which it is grain, not an edge
_UNDER = float(np.nextafter(np.float32(STEP), np.float32(0)))  # cv2 keeps what is above a bound
FLOOR = 0.02  # grey levels a pixel of steps that even a picture without edges is taken to have


@dataclass(frozen=True)
class Sharpness(Stage):
    """Medians over the frames of the three measures."""

    name: ClassVar[str] = "sharpness"
    version: ClassVar[int] = 2
    needs: ClassVar[FramePlan] = STILLS_288
    after: ClassVar[tuple[str, ...]] = ()

    def score(self, clip: Clip, frames: Frames, earlier: Mapping[str, Scores]) -> Scores:
        """Keys ``laplacian``, ``tenengrad`` (both upwards with sharpness), ``blur`` (0..1)."""
        y = luma(frames.of(STILLS_288))
        return {
            "laplacian": float(np.median([laplacian_variance(picture) for picture in y])),
            "tenengrad": float(np.median([tenengrad(picture) for picture in y])),
            "blur": float(np.median([blur_effect(picture) for picture in y])),
        }


def laplacian_variance(y: NDArray[np.uint8]) -> float:
    """Variance of the four-neighbour Laplacian of luma [h, w]."""
    cv2 = opencv()
    return float(cv2.meanStdDev(cv2.Laplacian(y, cv2.CV_32F))[1][0, 0] ** 2)


def tenengrad(y: NDArray[np.uint8]) -> float:
    """Mean squared Sobel gradient of luma [h, w] (Krotkov 1988)."""
    cv2 = opencv()
    edges = [cv2.norm(cv2.Sobel(y, cv2.CV_32F, *axis), cv2.NORM_L2SQR) for axis in _AXES]
    return float(sum(edges) / y.size)


def blur_effect(y: NDArray[np.uint8]) -> float:
    """Re-blurring measure of luma [h, w]: 0 sharp, 1 blurred; the worse of the two directions.

    Steps under STEP are left out, or grain on a blurred picture would look sharp. Without any
    larger step there is nothing to be sharp: 1.
    """
    cv2 = opencv()
    picture = y.astype(np.float32)
    worst = 0.0
    for axis, kernel in ((1, (TAPS, 1)), (0, (1, TAPS))):
        blurred = cv2.blur(picture, kernel, borderType=cv2.BORDER_REFLECT)
        change = _steps(picture, axis)
        change = cv2.threshold(change, _UNDER, 0, cv2.THRESH_TOZERO)[1]
        left = cv2.max(cv2.subtract(change, _steps(blurred, axis)), 0)
        worst = max(worst, 1 - cv2.mean(left)[0] / (cv2.mean(change)[0] + FLOOR))
    return worst


def _steps(picture: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    """Absolute difference of neighbours along an axis."""
    first, second = (picture[1:], picture[:-1]) if axis == 0 else (picture[:, 1:], picture[:, :-1])
    return np.asarray(opencv().absdiff(first, second), np.float32)


_AXES = ((1, 0), (0, 1))
