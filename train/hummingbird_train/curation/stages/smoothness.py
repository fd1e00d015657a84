"""A proxy of motion smoothness: is a middle frame where DIS flow between its neighbours puts it.

VBench's motion_smoothness has AMT-S interpolate the middle frames of the whole clip. This takes its
protocol with a bidirectional warp by DIS flow, on runs of three frames: another number.
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
from hummingbird_train.curation.stages.flow import dis_flow
from hummingbird_train.curation.stages.opencv import luma, opencv
from hummingbird_train.curation.stages.plans import TRIPLES


@dataclass(frozen=True)
class Smoothness(Stage):
    """(255 - mean |middle - predicted middle|) / 255 over runs of three frames."""

    name: ClassVar[str] = "smoothness"
    version: ClassVar[int] = 2
    needs: ClassVar[FramePlan] = TRIPLES
    after: ClassVar[tuple[str, ...]] = ()

    def score(self, clip: Clip, frames: Frames, earlier: Mapping[str, Scores]) -> Scores:
        """Keys ``motion_smoothness_dis``, and ``worst`` of the runs."""
        seen, pairs = frames.of(TRIPLES), set(frames.pairs(TRIPLES).tolist())
        y = luma(seen)
        starts = [k for k in sorted(pairs)[::2] if k + 1 in pairs]
        if not starts:
            return {"motion_smoothness_dis": 1.0, "worst": 1.0}
        scores = []
        for k in starts:
            there, back = dis_flow(y[k], y[k + 2]), dis_flow(y[k + 2], y[k])
            middle = warp_middle(seen[k], seen[k + 2], there, back)
            error = float(np.abs(seen[k + 1].astype(np.float32) - middle).mean())
            scores.append((255.0 - error) / 255.0)
        return {"motion_smoothness_dis": float(np.mean(scores)), "worst": min(scores)}


def warp_middle(
    first: NDArray[np.uint8],
    last: NDArray[np.uint8],
    there: NDArray[np.float32],
    back: NDArray[np.float32],
) -> NDArray[np.float32]:
    """Predict the frame halfway: both ends drawn half-way along their flows, averaged.

    Args:
        first: uint8 [h, w, 3], as last.
        last: the frame two steps on.
        there: flow float32 [h, w, 2] from first to last.
        back: and from last to first.

    Returns:
        float32 [h, w, 3].
    """
    cv2 = opencv()
    rows, columns = np.mgrid[: first.shape[0], : first.shape[1]].astype(np.float32)

    def half(picture: NDArray[np.uint8], flow: NDArray[np.float32]) -> NDArray[np.float32]:
        x, y = columns - flow[..., 0] / 2, rows - flow[..., 1] / 2
        drawn = cv2.remap(picture, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        return np.asarray(drawn, np.float32)

    return (half(first, there) + half(last, back)) / 2
