"""Noise by Immerkaer 1996: what is left of a picture after taking out its local planes.

The difference of two Laplacians is blind to constant and linear brightness; edges are masked out
(Tai and Yang 2008), or every contour would count as noise. Fine texture still does.
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
from hummingbird_train.curation.stages.plans import STILLS

EDGES = 0.10  # share of pixels with the steepest gradient that is left out


@dataclass(frozen=True)
class Noise(Stage):
    """Standard deviation of the noise in grey levels."""

    name: ClassVar[str] = "noise"
    version: ClassVar[int] = 1
    needs: ClassVar[FramePlan] = STILLS
    after: ClassVar[tuple[str, ...]] = ()

    def score(self, clip: Clip, frames: Frames, earlier: Mapping[str, Scores]) -> Scores:
        """Key ``sigma``: median over the frames."""
        y = frames.derived(("luma", STILLS), lambda: luma(frames.of(STILLS)))
        return {"sigma": float(np.median([noise_sigma(picture) for picture in y]))}


def noise_sigma(y: NDArray[np.uint8]) -> float:
    """Immerkaer's estimate for luma [h, w], away from edges; 0 for pictures under 3 x 3."""
    if min(y.shape) < 3:
        return 0.0
    cv2 = opencv()
    picture = y.astype(np.float32)
    left = np.abs(cv2.filter2D(picture, cv2.CV_32F, _MASK))[1:-1, 1:-1]
    slope = np.abs(cv2.Sobel(picture, cv2.CV_32F, 1, 0)) + np.abs(
        cv2.Sobel(picture, cv2.CV_32F, 0, 1)
    )
    slope = slope[1:-1, 1:-1]
    place = slope.size - max(1, int(EDGES * slope.size))
    inside = slope <= np.partition(slope.reshape(-1), place)[place]
    return float(np.sqrt(np.pi / 2) / 6 * left[inside].mean())


_MASK = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)
