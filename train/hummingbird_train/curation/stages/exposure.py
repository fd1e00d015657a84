"""Exposure: how light the pictures are, how much of them is crushed or clipped."""

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
from hummingbird_train.curation.stages.plans import OVERVIEW

DARK, BRIGHT = 16, 239  # luma from which a pixel is crushed or clipped
PEAK = 0.99  # share of the pixels that are no lighter than the peak


@dataclass(frozen=True)
class Exposure(Stage):
    """Levels over the clip, in grey levels 0..255."""

    name: ClassVar[str] = "exposure"
    version: ClassVar[int] = 2
    needs: ClassVar[FramePlan] = OVERVIEW
    after: ClassVar[tuple[str, ...]] = ()

    def score(self, clip: Clip, frames: Frames, earlier: Mapping[str, Scores]) -> Scores:
        """Keys ``mean contrast dark bright peak``.

        ``contrast`` is the standard deviation of luma, ``dark`` and ``bright`` are shares of
        pixels, ``peak`` is the 99th percentile of max(R, G, B): a bright thing on black has it.
        """
        cv2, seen = opencv(), frames.of(OVERVIEW)
        y = frames.derived(("luma", OVERVIEW), lambda: luma(seen))
        levels, share = np.arange(256.0), level_counts(y) / y.size
        mean = float(share @ levels)
        peaks = np.stack([cv2.max(cv2.max(*cv2.split(p)[:2]), p[..., 2]) for p in seen])
        return {
            "mean": mean,
            "contrast": float(np.sqrt(share @ (levels - mean) ** 2)),
            "dark": float(share[:DARK].sum()),
            "bright": float(share[BRIGHT + 1 :].sum()),
            "peak": float(np.searchsorted(np.cumsum(level_counts(peaks)), PEAK * peaks.size)),
        }


def level_counts(values: NDArray[np.uint8]) -> NDArray[np.int64]:
    """How often every grey level 0..255 stands in an array: int64 [256]."""
    return np.bincount(values.reshape(-1), minlength=256)
