"""Render the README's pictures with the built-in bundle: hero.webp and contact_sheet.png.

Run `python docs/make_images.py`; the same bundle gives the same pixels.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from hummingbird_runtime import TextToVideoPipeline

OUT = Path(__file__).resolve().parent / "images"
SCALE = 3
HERO = (
    "a small red circle moving to the left on a black background",
    "a large blue ring on a grey background",
    "a medium yellow heart growing on a sky background",
    "a big green triangle falling in front of a checker background",
)
SHEET = (
    *HERO,
    "a large purple square moving right on a white background",
    "a little cyan ball rising in front of a sky background",
    "a big orange box shrinking on a grey background",
    "a medium pink ring moving up on a black background",
    "a small green heart on a white background",
    "a large red disc going down on a checker background",
)
COLUMNS = 8


def main() -> None:
    """Write both pictures."""
    with TextToVideoPipeline.from_pretrained() as pipe:
        clips = [pipe(prompt, seed=7).frames for prompt in SHEET]
    side_by_side = np.concatenate(clips[: len(HERO)], axis=2)  # (F, H, 4 W, 3)
    frames = [_enlarge(frame) for frame in side_by_side]
    frames[0].save(
        OUT / "hero.webp", save_all=True, append_images=frames[1:], duration=125, loop=0, quality=85
    )
    columns = np.linspace(0, len(clips[0]) - 1, COLUMNS).round().astype(int)
    rows = [np.concatenate(list(clip[columns]), axis=1) for clip in clips]
    _enlarge(np.concatenate(rows), 2).save(OUT / "contact_sheet.png")


def _enlarge(frame: np.ndarray, scale: int = SCALE) -> Image.Image:
    image = Image.fromarray(frame)
    return image.resize((image.width * scale, image.height * scale), Image.Resampling.BICUBIC)


if __name__ == "__main__":
    main()
