"""Sources of curation tests: tiny videos whose captions tell the fake stages what to do."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np


def write_video(path: Path, frames: int = 4, side: int = 32, seed: int = 0) -> Path:
    """A video of slow noise, a few kilobytes."""
    import av

    rng = np.random.default_rng(seed)
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=8)
        stream.width, stream.height, stream.pix_fmt = side, side, "yuv420p"
        for _ in range(frames):
            picture = rng.integers(0, 255, (side, side, 3), dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path


def write_source(folder: Path, captions: Iterable[str]) -> Path:
    """One video a caption: 000.mp4 with 000.txt beside it, and so on."""
    folder.mkdir()
    first = write_video(folder / "video.tmp")
    data = first.read_bytes()
    first.unlink()
    for number, caption in enumerate(captions):
        path = folder / f"{number:03}.mp4"
        path.write_bytes(data)
        os.utime(path, ns=(10**18, 10**18))
        path.with_suffix(".txt").write_text(caption, encoding="utf-8")
    return folder
