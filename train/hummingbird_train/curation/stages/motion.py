"""How much moves: mean flow, the fastest twentieth, and VBench's dynamic-degree rule on DIS flow.

VBench's own dynamic degree uses RAFT; ``dynamic_degree_dis`` is its rule on another flow and is not
comparable with its figures. Frames are an eighth of a second apart, as there.
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
from hummingbird_train.curation.stages.flow import Flow, pair_flows
from hummingbird_train.curation.stages.opencv import opencv
from hummingbird_train.curation.stages.plans import PAIRS

TOP = 0.05  # share of the pixels, the fastest, that the rule looks at
FAST = 6.0  # pixels on a picture whose shorter side has 256, from which a pair counts as moving
ENOUGH = 4 / 16  # share of frames from which the clip counts as moving
REST = 0.5  # pixels on the same picture below which a pixel counts as still


@dataclass(frozen=True)
class Motion(Stage):
    """Amount of motion; unit: pixels an eighth of a second on a 256-pixel shorter side."""

    name: ClassVar[str] = "motion"
    version: ClassVar[int] = 2
    needs: ClassVar[FramePlan] = PAIRS
    after: ClassVar[tuple[str, ...]] = ()

    def score(self, clip: Clip, frames: Frames, earlier: Mapping[str, Scores]) -> Scores:
        """Keys ``mean``, ``top`` (mean of the fastest 5 %), ``still``, ``dynamic_degree_dis``."""
        flows = pair_flows(frames, PAIRS)[1]
        if not flows:
            return {"mean": 0.0, "top": 0.0, "still": 1.0, "dynamic_degree_dis": False}
        speeds = [speed(flow) for flow in flows]
        tops = np.array([top_mean(pace) for pace in speeds])
        return {
            "mean": float(np.mean([pace.mean() for pace in speeds])),
            "top": float(tops.mean()),
            "still": float(np.mean([(pace < REST).mean() for pace in speeds])),
            "dynamic_degree_dis": is_dynamic(tops),
        }


def speed(flow: Flow) -> NDArray[np.float32]:
    """Length of the flow [h, w, 2] in pixels of a picture whose shorter side has 256: [h, w]."""
    scale = 256.0 / min(flow.shape[:2])
    across, down = opencv().split(flow * np.float32(scale))
    return np.asarray(opencv().magnitude(across, down), np.float32)


def top_mean(pace: NDArray[np.float32]) -> float:
    """Mean of the TOP share of the values, the largest; of one at least."""
    flat = pace.reshape(-1)
    count = max(1, int(flat.size * TOP))
    return float(np.partition(flat, flat.size - count)[-count:].mean())


def is_dynamic(tops: Sequence[float] | NDArray[np.float64]) -> bool:
    """VBench's rule: pairs above FAST are at least round(4 n / 16) of the n = pairs + 1 frames."""
    return int((np.asarray(tops) > FAST).sum()) >= round(ENOUGH * (len(tops) + 1))
