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
FLOOR = 0.02  # grey levels a pixel of steps that even a picture without edges is taken to have


@dataclass(frozen=True)
class Sharpness(Stage):
    """Medians over the frames of the three measures."""

    name: ClassVar[str] = "sharpness"
    version: ClassVar[int] = 1
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
    return float(cv2.Laplacian(y, cv2.CV_32F).var())


def tenengrad(y: NDArray[np.uint8]) -> float:
    """Mean squared Sobel gradient of luma [h, w] (Krotkov 1988)."""
    cv2 = opencv()
    return float(np.mean([np.square(cv2.Sobel(y, cv2.CV_32F, *d)).mean() for d in _AXES]) * 2)


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
        change = np.abs(np.diff(picture, axis=axis))
        change[change < STEP] = 0
        left = np.maximum(0, change - np.abs(np.diff(blurred, axis=axis)))
        worst = max(worst, 1 - float(left.mean()) / (float(change.mean()) + FLOOR))
    return worst


_AXES = ((1, 0), (0, 1))
