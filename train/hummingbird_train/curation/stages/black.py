"""Black or blank pictures, seen on key frames alone; a clip of nothing else ends here.

The rule for a black frame is that of ffmpeg's blackdetect: nearly all pixels are dark.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from hummingbird_train.curation.clip import Clip
from hummingbird_train.curation.decode import Frames
from hummingbird_train.curation.stage import FramePlan, Scores, SkipRest, Stage
from hummingbird_train.curation.stages.opencv import luma
from hummingbird_train.curation.stages.plans import KEYS

PIXEL = 0.10 * 255  # luma under which a pixel is black
PICTURE = 0.98  # share of black pixels from which a frame is black
BLANK = 1.5  # standard deviation of luma under which a frame shows nothing


@dataclass(frozen=True)
class Black(Stage):
    """Share of dark pixels, of black frames and of blank frames."""

    name: ClassVar[str] = "black"
    version: ClassVar[int] = 1
    needs: ClassVar[FramePlan] = KEYS
    after: ClassVar[tuple[str, ...]] = ()

    reject: bool = True
    """whether a clip whose key frames are all black or blank ends here."""

    def score(self, clip: Clip, frames: Frames, earlier: Mapping[str, Scores]) -> Scores:
        """Keys ``pixels`` (share of dark pixels), ``frames`` (of black ones), ``blank``."""
        y = frames.derived(("luma", KEYS), lambda: luma(frames.of(KEYS)))
        dark, flat = dark_share(y), y.std(axis=(1, 2)) < BLANK
        black = dark >= PICTURE
        scores = {
            "pixels": float(dark.mean()),
            "frames": float(black.mean()),
            "blank": float(flat.mean()),
        }
        if self.reject and bool((black | flat).all()):
            raise SkipRest("black or blank", scores)
        return scores


def dark_share(y: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Share of pixels of luma [n, h, w] that are black, by frame: float64 [n]."""
    return np.asarray((y < PIXEL).mean(axis=(1, 2)), np.float64)
