"""Colourfulness by Hasler and Suesstrunk 2003."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from hummingbird_train.curation.clip import Clip
from hummingbird_train.curation.decode import Frames
from hummingbird_train.curation.stage import FramePlan, Scores, Stage
from hummingbird_train.curation.stages.plans import OVERVIEW


@dataclass(frozen=True)
class Colour(Stage):
    """How colourful the pictures are: 0 for grey, above 100 for extremely."""

    name: ClassVar[str] = "colour"
    version: ClassVar[int] = 1
    needs: ClassVar[FramePlan] = OVERVIEW
    after: ClassVar[tuple[str, ...]] = ()

    def score(self, clip: Clip, frames: Frames, earlier: Mapping[str, Scores]) -> Scores:
        """Key ``colourfulness``: mean over the frames."""
        seen = frames.of(OVERVIEW)
        return {"colourfulness": float(np.mean([colourfulness(frame) for frame in seen]))}


def colourfulness(frame: NDArray[np.uint8]) -> float:
    """Spread plus 0.3 x distance from grey, in the opponent colours R - G and (R + G) / 2 - B."""
    red, green, blue = np.moveaxis(frame.astype(np.float32), 2, 0)
    rg, yb = red - green, (red + green) / 2 - blue
    spread = float(np.hypot(rg.std(), yb.std()))
    return spread + 0.3 * float(np.hypot(rg.mean(), yb.mean()))
