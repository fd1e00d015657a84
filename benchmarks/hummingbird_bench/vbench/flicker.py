"""VBench's temporal flickering, the one dimension that needs no weights, exactly as defined there.

score = (255 - m) / 255, where m is the mean absolute difference of neighbouring 8-bit frames. It
only means something on clips that should stand still; VBench filters for those first.
"""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hummingbird_runtime.cli.verbs import missing_extra
from hummingbird_runtime.errors import InputError


def temporal_flickering(frames: NDArray[np.uint8]) -> float:
    """Judge one clip.

    Args:
        frames: uint8 [F, H, W, 3], F >= 2, channels in any order.

    Returns:
        0..1; 1 is no change at all. Sums are exact integers; VBench's float32 differs below 1e-6.

    Raises:
        InputError: ``vbench.frames`` for another dtype or shape.
    """
    if frames.dtype != np.uint8 or frames.ndim != 4 or len(frames) < 2:
        raise InputError(
            "vbench.frames",
            f"frames: got {frames.dtype} {list(frames.shape)}, expected uint8 [F >= 2, H, W, 3]",
            hint="a clip needs two frames or more",
        )
    total = sum(
        int(np.abs(b.astype(np.int16) - a.astype(np.int16)).sum(dtype=np.int64))
        for a, b in itertools.pairwise(frames)
    )
    mean = total / frames[1:].size
    return (255.0 - mean) / 255.0


def read_frames(path: Path) -> NDArray[np.uint8]:
    """Decode every frame of a clip, scaled as OpenCV's reader does: uint8 [F, H, W, 3], BGR.

    Raises:
        InputError: ``vbench.clip`` for a file that holds no video that decodes.
        ResourceError: ``extra.missing``.
    """
    try:
        import av
    except ModuleNotFoundError as error:
        raise missing_extra("reading clips", "av", "video") from error
    try:
        with av.open(str(path)) as container:
            frames = [
                frame.to_ndarray(format="bgr24", interpolation="BICUBIC")
                for frame in container.decode(video=0)
            ]
        if not frames:
            raise ValueError("no frames")
        return np.stack(frames)
    except (av.FFmpegError, ValueError, IndexError) as error:
        raise InputError(
            "vbench.clip",
            f"clip {path.name}: got no video that decodes ({error}), expected an .mp4",
            hint="delete it and sample again; finished clips are not drawn twice",
        ) from error
