"""The exact frames as a NumPy archive, with what they were made from; equal clips, equal bytes."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from hummingbird_runtime.video import Video


def write(path: Path, video: Video) -> None:
    """Write frames, fps, seed, prompt and bundle_id; ``numpy.load`` reads it without pickle."""
    arrays = {
        "frames": video.frames,
        "fps": np.float64(video.fps),
        "seed": np.uint64(video.seed),
        "prompt": np.str_(video.prompt),
        "bundle_id": np.str_(video.bundle_id),
    }
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            # a fixed date, where numpy.savez would put the clock
            entry = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(entry, "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.asarray(array), allow_pickle=False)
