"""Animated GIF through Pillow: 256 colours a frame, times in hundredths of a second."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hummingbird_runtime.video import Video


def write(path: Path, video: Video) -> None:
    """Encode the clip as an endless loop; frame times add up to the clip's length within 10 ms."""
    from PIL import Image

    ends = [round(100 * (i + 1) / video.fps) for i in range(len(video.frames))]
    # players slow times below 2/100 s down to 1/10 s
    durations = [max(10 * (b - a), 20) for a, b in zip([0, *ends], ends, strict=False)]
    first, *rest = [Image.fromarray(image) for image in video.frames]
    first.save(path, "GIF", save_all=True, append_images=rest, duration=durations, loop=0)
