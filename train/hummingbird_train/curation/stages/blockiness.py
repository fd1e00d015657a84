"""Compression blocks: steps between neighbouring pixels that are larger on an 8-pixel grid.

After Wang, Bovik and Evans 2000: horizontal and vertical differences are grouped by their place in
the grid; a picture without blocks has the same everywhere. Medians over the grid's lines keep a few
strong edges of the content from counting. Blocks of a picture that was scaled since are not seen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from hummingbird_train.curation.clip import Clip
from hummingbird_train.curation.decode import Frames
from hummingbird_train.curation.stage import FramePlan, Scores, Stage
from hummingbird_train.curation.stages.opencv import luma
from hummingbird_train.curation.stages.plans import STILLS

GRID = 8  # pixels
FLOOR = 0.25  # grey levels added to both sides, so that a flat picture has no blocks


@dataclass(frozen=True)
class Blockiness(Stage):
    """How far the steps on the best-fitting grid exceed the others."""

    name: ClassVar[str] = "blockiness"
    version: ClassVar[int] = 1
    needs: ClassVar[FramePlan] = STILLS
    after: ClassVar[tuple[str, ...]] = ()

    def score(self, clip: Clip, frames: Frames, earlier: Mapping[str, Scores]) -> Scores:
        """Key ``grid``: mean log ratio of steps on the grid to steps off it; 0 without blocks."""
        y = frames.derived(("luma", STILLS), lambda: luma(frames.of(STILLS)))
        return {"grid": blockiness(y)}


def blockiness(y: NDArray[np.uint8]) -> float:
    """Mean over both directions of ln(steps on the grid / steps off it), of luma [n, h, w]."""
    if min(y.shape[1:]) < 3 * GRID:
        return 0.0
    values = y.astype(np.float32)
    logs = []
    for axis in (1, 2):
        steps = np.abs(np.diff(values, axis=axis)).mean(axis=(0, 3 - axis))  # (h - 1,) or (w - 1,)
        whole = steps[: steps.size // GRID * GRID].reshape(-1, GRID)  # (lines, place in the grid)
        level = np.median(whole, axis=0)
        best = int(level.argmax())
        others = np.delete(level, best)
        logs.append(np.log((level[best] + FLOOR) / (np.median(others) + FLOOR)))
    return float(np.mean(logs))
