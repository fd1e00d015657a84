"""Dense optical flow by DIS (Kroeger et al. 2016), the fast preset; needs no weights."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hummingbird_runtime.errors import InputError
from hummingbird_train.curation.decode import Frames
from hummingbird_train.curation.stage import FramePlan
from hummingbird_train.curation.stages.opencv import luma, opencv

LEAST_SIDE = 32  # pixels that the coarsest level needs

Flow = NDArray[np.float32]  # (h, w, 2): pixels right and down from the first frame to the second


def dis_flow(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> Flow:
    """Where each pixel of luma [h, w] goes: float32 [h, w, 2], pixels to the right and down.

    Raises:
        InputError: ``clip.too_small``.
    """
    if min(first.shape) < LEAST_SIDE:
        raise InputError(
            "clip.too_small",
            f"optical flow: got frames of {first.shape[1]}x{first.shape[0]}, expected sides of at "
            f"least {LEAST_SIDE}",
            hint="leave such clips out with [stages.probe] reject_side",
        )
    cv2 = opencv()
    engine = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    flow: Flow = engine.calc(np.ascontiguousarray(first), np.ascontiguousarray(second), None)
    return flow


def pair_flows(frames: Frames, plan: FramePlan) -> tuple[NDArray[np.float64], list[Flow]]:
    """Flow of every pair of neighbours of a plan and the seconds between them; computed once."""

    def make() -> tuple[NDArray[np.float64], list[Flow]]:
        y = frames.derived(("luma", plan), lambda: luma(frames.of(plan)))
        pairs, times = frames.pairs(plan), frames.times(plan)
        flows = [dis_flow(y[k], y[k + 1]) for k in pairs.tolist()]
        return times[pairs + 1] - times[pairs], flows

    return frames.derived(("flow", plan), make)
