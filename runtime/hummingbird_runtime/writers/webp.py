"""Animated WebP through Pillow: small files that browsers play, quality 90."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hummingbird_runtime.video import Video

_QUALITY = 90


def write(path: Path, video: Video) -> None:
    """Encode the clip as an endless loop."""
    from PIL import Image

    first, *rest = [Image.fromarray(image) for image in video.frames]
    duration = max(round(1000 / video.fps), 1)
    first.save(
        path, "WEBP", save_all=True, append_images=rest, duration=duration, loop=0, quality=_QUALITY
    )
