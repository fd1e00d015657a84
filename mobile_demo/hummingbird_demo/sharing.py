"""Clips as files for others, in the format that the device writes best: MP4, else WebP, else PNG.

Small clips may be enlarged by whole numbers, pixel by pixel, so that other programs do not blur
them. On Android the file goes to the system's media store and through its share sheet.
"""

from __future__ import annotations

import dataclasses
import re
import time
from pathlib import Path

from hummingbird_demo.device import Device
from hummingbird_runtime import Video

TARGET = 512
"""Shorter side that small clips are enlarged towards, pixels."""
_NAME = re.compile(r"[^\w]+", re.UNICODE)


def enlarged(video: Video) -> Video:
    """The clip with every pixel repeated so that the shorter side comes to at most ``TARGET``."""
    factor = max(1, TARGET // min(video.frames.shape[1:3]))
    frames = video.frames.repeat(factor, axis=1).repeat(factor, axis=2)
    return dataclasses.replace(video, frames=frames) if factor > 1 else video


def file_name(video: Video) -> str:
    """A name that tells the clip, without a suffix: words of the prompt, the seed, the time."""
    words = _NAME.sub("-", video.prompt.strip().lower()).strip("-")[:40].strip("-") or "clip"
    return f"{words}-{video.seed}-{time.strftime('%Y%m%d-%H%M%S')}"


def save_copy(video: Video, device: Device, *, enlarge: bool) -> Path:
    """Write a clip where the user keeps such files.

    Returns:
        The file, which other programs may read.

    Raises:
        ResourceError: ``output.*``.
    """
    shown = enlarged(video) if enlarge else video
    return device.publish(device.write_clip(device.export_folder(), file_name(video), shown))
