"""Render the README's pictures with the built-in bundle: hero.webp and contact_sheet.png.

Run `python docs/make_images.py`; the same bundle gives the same pixels.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from hummingbird_runtime import TextToVideoPipeline

OUT = Path(__file__).resolve().parent / "images"
HERO_SIDE, SHEET_SIDE = 192, 128
"""Pixels of one clip in each."""
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
    frames = [_row(list(frame), HERO_SIDE) for frame in zip(*clips[: len(HERO)], strict=True)]
    frames[0].save(
        OUT / "hero.webp", save_all=True, append_images=frames[1:], duration=125, loop=0, quality=85
    )
    columns = np.linspace(0, len(clips[0]) - 1, COLUMNS).round().astype(int)
    rows = [np.asarray(_row(list(clip[columns]), SHEET_SIDE)) for clip in clips]
    Image.fromarray(np.concatenate(rows)).save(OUT / "contact_sheet.png", optimize=True)


def _row(frames: list[np.ndarray], side: int) -> Image.Image:
    """Square frames side by side, each of ``side`` pixels."""
    image = Image.fromarray(np.concatenate(frames, axis=1))
    return image.resize((side * len(frames), side), Image.Resampling.LANCZOS)


if __name__ == "__main__":
    main()
