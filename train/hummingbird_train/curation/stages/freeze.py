"""Frozen pictures: neighbours that do not differ, by the rule of ffmpeg's freezedetect (-60 dB)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from hummingbird_train.curation.clip import Clip
from hummingbird_train.curation.decode import Frames
from hummingbird_train.curation.stage import FramePlan, Scores, Stage
from hummingbird_train.curation.stages.opencv import opencv
from hummingbird_train.curation.stages.plans import ALL


@dataclass(frozen=True)
class Freeze(Stage):
    """How much of the clip stands still to the last pixel."""

    name: ClassVar[str] = "freeze"
    version: ClassVar[int] = 2
    needs: ClassVar[FramePlan] = ALL
    after: ClassVar[tuple[str, ...]] = ()

    tolerance: float = 0.001
    """mean absolute difference, of full scale, up to which two frames are the same."""

    def score(self, clip: Clip, frames: Frames, earlier: Mapping[str, Scores]) -> Scores:
        """Keys ``share`` of neighbours that are the same, ``longest`` stretch in seconds."""
        times = frames.times(ALL)
        if len(times) < 2:
            return {"share": 1.0, "longest": frames.info.duration}
        same = frame_differences(frames.each(ALL)) <= self.tolerance
        longest = begin = 0.0
        held = False
        for i, frozen in enumerate(same.tolist()):
            if frozen and not held:
                begin = float(times[i])
            if frozen:
                longest = max(longest, float(times[i + 1]) - begin)
            held = frozen
        return {"share": float(same.mean()), "longest": longest}


def frame_differences(frames: Sequence[NDArray[np.uint8]]) -> NDArray[np.float64]:
    """Mean absolute difference of neighbours, 0..1: n times uint8 [h, w, 3] to float64 [n - 1]."""
    cv2 = opencv()
    pairs = zip(frames[1:], frames[:-1], strict=True)
    return np.array([cv2.norm(a, b, cv2.NORM_L1) / (255.0 * a.size) for a, b in pairs])
