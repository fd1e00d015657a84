"""Exposure: how light the pictures are, how much of them is crushed or clipped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from hummingbird_train.curation.clip import Clip
from hummingbird_train.curation.decode import Frames
from hummingbird_train.curation.stage import FramePlan, Scores, Stage
from hummingbird_train.curation.stages.opencv import luma
from hummingbird_train.curation.stages.plans import OVERVIEW

DARK, BRIGHT = 16, 239  # luma from which a pixel is crushed or clipped


@dataclass(frozen=True)
class Exposure(Stage):
    """Levels over the clip, in grey levels 0..255."""

    name: ClassVar[str] = "exposure"
    version: ClassVar[int] = 1
    needs: ClassVar[FramePlan] = OVERVIEW
    after: ClassVar[tuple[str, ...]] = ()

    def score(self, clip: Clip, frames: Frames, earlier: Mapping[str, Scores]) -> Scores:
        """Keys ``mean contrast dark bright peak``.

        ``contrast`` is the standard deviation of luma, ``dark`` and ``bright`` are shares of
        pixels, ``peak`` is the 99th percentile of max(R, G, B): a bright thing on black has it.
        """
        seen = frames.of(OVERVIEW)
        y = frames.derived(("luma", OVERVIEW), lambda: luma(seen))
        return {
            "mean": float(y.mean()),
            "contrast": float(y.std()),
            "dark": float((y < DARK).mean()),
            "bright": float((y > BRIGHT).mean()),
            "peak": float(np.percentile(seen.max(axis=3), 99)),
        }
