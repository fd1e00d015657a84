"""Shot cuts by PySceneDetect's rules, on frames that are decoded already.

ContentDetector: mean absolute difference of hue, saturation and value between neighbouring frames,
averaged over the three; a cut at 27 or more, and shots of at least 15 frames. AdaptiveDetector's
ratio of a value to its neighbours' tells a cut from fast motion. Fades and dissolves are not found.
"""

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

WINDOW = 2  # frames on either side that a value is compared with
NO_NEIGHBOURS = 255.0  # ratio where the neighbours do not change at all
_LEAST = 1e-5  # mean of the neighbours below which they do not change


@dataclass(frozen=True)
class Shots(Stage):
    """Where the clip cuts, and how sharply its sharpest change stands out."""

    name: ClassVar[str] = "shots"
    version: ClassVar[int] = 2
    needs: ClassVar[FramePlan] = ALL
    after: ClassVar[tuple[str, ...]] = ()

    threshold: float = 27.0
    """content value of a cut, 0..255."""
    min_frames: int = 15
    """shortest shot in frames."""

    def score(self, clip: Clip, frames: Frames, earlier: Mapping[str, Scores]) -> Scores:
        """Keys ``cuts``, ``times`` (s, text), ``longest`` (s), ``peak``, ``ratio``."""
        times = frames.times(ALL)
        values = content_values(frames.each(ALL))
        cuts = find_cuts(values, self.threshold, self.min_frames)
        edges = np.concatenate([[times[0]], times[cuts], [times[0] + frames.info.duration]])
        return {
            "cuts": len(cuts),
            "times": " ".join(f"{moment:.3f}" for moment in times[cuts]),
            "longest": float(np.diff(edges).max()),
            "peak": float(values.max()),
            "ratio": float(adaptive_ratios(values).max()),
        }


def content_values(frames: Sequence[NDArray[np.uint8]]) -> NDArray[np.float64]:
    """ContentDetector's value of each frame against the one before: float64 [n], first 0.

    Args:
        frames: n times uint8 [h, w, 3] RGB.
    """
    cv2 = opencv()
    values = np.zeros(len(frames))
    before = None
    for i, frame in enumerate(frames):
        hsv = cv2.cvtColor(frame, cv2.COLOR_RGB2HSV)
        if before is not None:
            values[i] = cv2.norm(hsv, before, cv2.NORM_L1) / hsv.size
        before = hsv
    return values


def find_cuts(values: NDArray[np.float64], threshold: float, min_frames: int) -> list[int]:
    """Frames that begin a new shot: PySceneDetect's rule with its merging flash filter.

    Changes that follow each other faster than ``min_frames`` are one cut, at the last of them; what
    happens before ``min_frames`` is no cut.
    """
    cuts: list[int] = []
    last, merging = 0, -1  # last change; where a run of quick changes began, or -1
    for i, value in enumerate(values.tolist()):
        above, gap = value >= threshold, i - last
        if above:
            last = i
        if merging >= 0:
            if not above and gap >= min_frames and last - merging >= min_frames:
                cuts.append(last)
                merging = -1
        elif above and gap >= min_frames:
            cuts.append(i)
        elif above and cuts:
            merging = i
    return cuts


def adaptive_ratios(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """AdaptiveDetector's ratio: a value over the mean of its WINDOW neighbours each side, [n]."""
    if len(values) < 2:
        return np.zeros(len(values))
    known = values[1:]  # the first frame has nothing before it
    window = np.ones(2 * WINDOW + 1)
    window[WINDOW] = 0
    sums, counts = (
        np.convolve(row, window)[WINDOW:-WINDOW] for row in (known, np.ones(len(known)))
    )
    means = sums / np.maximum(counts, 1)
    still = np.where(known > 0, NO_NEIGHBOURS, 0.0)
    moving = np.minimum(known / np.maximum(means, _LEAST), NO_NEIGHBOURS)
    return np.concatenate([[0.0], np.where(means >= _LEAST, moving, still)])
