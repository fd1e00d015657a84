"""Temporal flickering exactly as VBench defines it: (255 - mean |neighbour difference|) / 255.

VBench takes every pair of neighbours at the stored size, and only clips that its static filter let
pass. A sample of the pairs has a name of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from hummingbird_train.curation.clip import Clip
from hummingbird_train.curation.decode import Frames
from hummingbird_train.curation.stage import FramePlan, Scores, Stage
from hummingbird_train.curation.stages.opencv import opencv
from hummingbird_train.curation.stages.plans import NEIGHBOURS


@dataclass(frozen=True)
class Flicker(Stage):
    """How alike neighbouring frames are, 0..1."""

    name: ClassVar[str] = "flicker"
    version: ClassVar[int] = 1
    after: ClassVar[tuple[str, ...]] = ()

    every_pair: bool = False
    """all neighbours, as VBench does, instead of 16 pairs spread over the clip."""

    @property
    def needs(self) -> FramePlan:  # type: ignore[override]
        """Frames as stored."""
        return FramePlan() if self.every_pair else NEIGHBOURS

    def score(self, clip: Clip, frames: Frames, earlier: Mapping[str, Scores]) -> Scores:
        """Key ``temporal_flickering``, or ``temporal_flickering_sampled`` of some of the pairs."""
        cv2, seen, pairs = opencv(), frames.each(self.needs), frames.pairs(self.needs)
        means = [cv2.norm(seen[k], seen[k + 1], cv2.NORM_L1) / seen[k].size for k in pairs.tolist()]
        score = (255.0 - float(np.mean(means))) / 255.0 if means else 1.0
        exact = len(pairs) == frames.info.frames - 1
        return {"temporal_flickering" if exact else "temporal_flickering_sampled": score}
