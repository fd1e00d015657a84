"""Does a caption fit its pictures, in the tiny world: its exact judge against the caption's words.

The stand-in for CLIP matching where no CLIP is: it knows five attributes and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from hummingbird_runtime.errors import InputError
from hummingbird_train.curation.clip import Clip
from hummingbird_train.curation.decode import Frames
from hummingbird_train.curation.stage import FramePlan, Scores, Stage
from hummingbird_train.curation.stages.opencv import opencv
from hummingbird_train.world.grammar import words_of
from hummingbird_train.world.judge import judge
from hummingbird_train.world.scene import BACKGROUNDS, COLOURS, SHAPES, SIZE, SIZES

PLAN = FramePlan(max_frames=13)
# Words that say an attribute by another name than its own.
SYNONYMS = {
    "colour": {"violet": "purple", "turquoise": "cyan"},
    "shape": {"ball": "circle", "disc": "circle", "box": "square"},
    "size": {"little": "small", "big": "large"},
    "background": {"gray": "grey", "checkered": "checker", "striped": "stripes"},
}
WORDS = {
    "colour": COLOURS,
    "shape": SHAPES[2],
    "size": SIZES,
    "background": BACKGROUNDS[2],
}
MOTION_WORDS = {
    "bouncing": {"bouncing"},
    "circling": {"circling"},
    "spinning": {"spinning", "turning"},
    "growing": {"growing", "bigger", "larger"},
    "shrinking": {"shrinking", "smaller"},
    "still": {"still"},
}
TURNS = {
    **dict.fromkeys(("up", "upwards", "rising"), "up"),
    **dict.fromkeys(("down", "downwards", "falling"), "down"),
}


@dataclass(frozen=True)
class CaptionMatch(Stage):
    """Share of the named attributes that the pictures show."""

    name: ClassVar[str] = "caption_match"
    version: ClassVar[int] = 1
    needs: ClassVar[FramePlan] = PLAN
    after: ClassVar[tuple[str, ...]] = ()

    tier: int = 1
    """of the world."""

    def score(self, clip: Clip, frames: Frames, earlier: Mapping[str, Scores]) -> Scores:
        """Keys ``match`` (0..1; 1 when nothing is named) and ``named``.

        Raises:
            InputError: ``stage.world`` for pictures that are not square.
        """
        cv2, seen = opencv(), frames.of(PLAN)
        if seen.shape[1] != seen.shape[2]:
            raise InputError(
                "stage.world",
                f"{clip.uri}: got {seen.shape[2]}x{seen.shape[1]}, expected a square",
                hint="[stages.caption_match] judges clips of the tiny world only",
            )
        size = (SIZE, SIZE)
        small = np.stack([cv2.resize(f, size, interpolation=cv2.INTER_AREA) for f in seen])
        shown = vars(judge(small, tier=self.tier))
        named = read_caption(clip.caption)
        right = [shown[attribute] == value for attribute, value in named.items()]
        return {"match": float(np.mean(right)) if right else 1.0, "named": len(right)}


def read_caption(caption: str) -> dict[str, str]:
    """The attributes that a caption of the tiny world names; an unnamed motion is none."""
    text = " ".join(words_of(caption)).replace("moving in a circle", "circling")
    words = text.split()
    named = {}
    for attribute, values in WORDS.items():
        for word in words:
            value = SYNONYMS[attribute].get(word, word)
            if value in values:
                named[attribute] = value
    motion = next((name for name, says in MOTION_WORDS.items() if says & set(words)), "")
    upright = next((TURNS[word] for word in words if word in TURNS), "")
    sideways = next((word for word in words if word in ("left", "right")), "")
    if "not moving" in text:
        motion = "still"
    motion = motion or "-".join(part for part in (upright, sideways) if part)
    if motion:
        named["motion"] = motion
    return named
