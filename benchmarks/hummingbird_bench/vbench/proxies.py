"""Weight-free stand-ins for two VBench dimensions, named after what they really compute.

Both follow VBench's protocol with DIS optical flow (OpenCV, no weights) where VBench uses a
network: AMT-S for smoothness, RAFT for the dynamic degree. They order clips; their values are not
VBench's and never enter its Total.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hummingbird_runtime.cli.verbs import missing_extra

_TOP_SHARE = 0.05  # of the pixels, by flow magnitude
_EIGHT_FPS = 8.0


def motion_smoothness_dis(frames: NDArray[np.uint8]) -> float | None:
    """Drop odd frames, rebuild them half-way along the flow, compare: (255 - mean|error|) / 255.

    Args:
        frames: uint8 [F, H, W, 3].

    Returns:
        0..1; None for fewer than 3 frames.

    Raises:
        ResourceError: ``extra.missing``.
    """
    if len(frames) < 3:
        return None
    cv2 = _opencv()
    height, width = frames.shape[1:3]
    y, x = np.mgrid[:height, :width].astype(np.float32)
    errors: list[float] = []
    for k in range(1, len(frames) - 1, 2):
        before, real, after = frames[k - 1], frames[k], frames[k + 1]
        warped = []
        for one, other in ((before, after), (after, before)):
            half = 0.5 * _flow(cv2, one, other)  # (h, w, 2), assumed equal at the middle frame
            warped.append(
                cv2.remap(
                    one, x - half[..., 0], y - half[..., 1],
                    cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE,
                ).astype(np.float64)
            )  # fmt: skip
        errors.append(float(np.abs((warped[0] + warped[1]) / 2 - real).mean()))
    return (255.0 - float(np.mean(errors))) / 255.0


def moves_dis(frames: NDArray[np.uint8], fps: float) -> bool | None:
    """Whether a clip counts as moving under VBench's rule for the dynamic degree, with DIS flow.

    At about 8 fps, a pair moves when the mean of its top 5 % flow magnitudes passes
    6 min(H, W) / 256 pixels; the clip moves when round(4 n / 16) pairs of its n frames do.

    Args:
        frames: uint8 [F, H, W, 3].
        fps: of the frames.

    Returns:
        None for fewer than 2 frames after the thinning.

    Raises:
        ResourceError: ``extra.missing``.
    """
    cv2 = _opencv()
    thinned = frames[:: max(1, round(fps / _EIGHT_FPS))]
    if len(thinned) < 2:
        return None
    limit = 6.0 * min(frames.shape[1:3]) / 256.0
    needed = round(4 * len(thinned) / 16.0)
    moving = 0
    for a, b in itertools.pairwise(thinned):
        size = np.sort(np.linalg.norm(_flow(cv2, a, b), axis=2).ravel())[::-1]
        moving += bool(size[: max(1, int(size.size * _TOP_SHARE))].mean() > limit)
    return moving >= needed


def _flow(cv2: Any, a: NDArray[np.uint8], b: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Flow from a to b in pixels: (h, w, 2)."""
    solver = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    grey = [cv2.cvtColor(np.ascontiguousarray(f), cv2.COLOR_BGR2GRAY) for f in (a, b)]
    flow: NDArray[np.float32] = solver.calc(grey[0], grey[1], None)
    return flow


def _opencv() -> Any:
    try:
        import cv2
    except ModuleNotFoundError as error:
        raise missing_extra("the proxies by optical flow", "cv2", "curate") from error
    return cv2
