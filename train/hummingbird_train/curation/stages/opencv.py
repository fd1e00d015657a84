"""OpenCV, imported when first needed, on one thread: clips run in parallel instead."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hummingbird_runtime.cli.verbs import missing_extra


@lru_cache(maxsize=1)
def opencv() -> Any:
    """The module ``cv2``.

    Raises:
        ResourceError: ``extra.missing``.
    """
    try:
        import cv2
    except ModuleNotFoundError as error:
        raise missing_extra("curation stages", error.name or "cv2", "curate") from error
    cv2.setNumThreads(1)
    return cv2


def luma(frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """BT.601 luma of RGB frames: uint8 [n, h, w, 3] to uint8 [n, h, w]."""
    cv2 = opencv()
    return np.stack([cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames])
