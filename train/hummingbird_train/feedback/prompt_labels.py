"""Which attributes of the tiny world a prompt names: the inverse of its caption templates.

An attribute that the prompt leaves open is ``OPEN`` and takes no part in a reward.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from hummingbird_train.world import grammar
from hummingbird_train.world.scene import BACKGROUNDS, COLOURS, MOTIONS, SHAPES, SIZES, Scene

CLASSES: dict[str, tuple[str, ...]] = {
    "shape": SHAPES[2],
    "colour": COLOURS,
    "size": SIZES,
    "motion": MOTIONS[2],
    "background": BACKGROUNDS[2],
}
"""Attribute -> its values in tier 2, of which tier 1 is a part; the order of every logit row."""

OPEN = -1

_ORDER = ("motion", "shape", "colour", "size", "background")
"""Motion first, and out of the way: "moving in a circle" names no circle."""


def prompt_labels(prompts: Sequence[str]) -> Tensor:
    """int64 [b, 5] class numbers in the order of ``CLASSES``, ``OPEN`` where nothing is named.

    No word of motion means "still" in a caption that names all the rest; in a shorter one the
    motion is open.
    """
    rows = np.full((len(prompts), len(CLASSES)), OPEN, np.int64)
    for row, prompt in zip(rows, prompts, strict=True):
        text = f" {' '.join(grammar.words_of(prompt))} "
        for attribute in _ORDER:
            phrases = _phrases(attribute)
            found = [phrase for phrase in phrases if f" {phrase} " in text]
            if found:
                longest = max(found, key=len)
                row[list(CLASSES).index(attribute)] = phrases[longest]
                text = text.replace(f" {longest} ", "  ", 1)
        motion = list(CLASSES).index("motion")
        if row[motion] == OPEN and (np.delete(row, motion) != OPEN).all():
            row[motion] = CLASSES["motion"].index("still")
    return torch.from_numpy(rows)


def scene_labels(scenes: Sequence[Scene]) -> Tensor:
    """int64 [b, 5] class numbers of scenes."""
    return torch.tensor(
        [[names.index(getattr(s, a)) for a, names in CLASSES.items()] for s in scenes]
    )


@lru_cache(maxsize=len(CLASSES))
def _phrases(attribute: str) -> dict[str, int]:
    """Phrase, its words as the grammar splits them, -> class number."""
    tables = {
        "shape": grammar._SHAPE_WORDS,
        "colour": grammar._COLOUR_WORDS,
        "size": grammar._SIZE_WORDS,
        "motion": grammar._MOTION_WORDS,
        "background": grammar._BACKGROUND_WORDS,
    }
    return {
        " ".join(grammar.words_of(phrase)): number
        for number, name in enumerate(CLASSES[attribute])
        for phrase in tables[attribute].get(name, (name,))
        if phrase
    }
