"""How far a clip is from being dropped: the distance to its nearest threshold, in comparable units.

For a rule with bounds the distance is (value - min) or (max - value) over the score's
interquartile range; a clip's margin is its smallest. Kept clips have margins >= 0, dropped ones
mostly < 0: by it a report shows the best, the worst and the borderline. Counts and flags, which
put every clip either on or far from their threshold, are left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hummingbird_train.curation.row import Score

_DISTINCT = 5  # values that a score must take among the clips to say how near one is


@dataclass(frozen=True)
class Margin:
    """The threshold nearest to a clip."""

    distance: float
    """in interquartile ranges of the score; negative beyond the threshold"""
    score: str
    """``stage.key``"""
    value: float
    """of the clip"""
    bound: float
    """the threshold"""


def margins(
    scores: Mapping[str, Mapping[str, Score]], rules: Sequence[Mapping[str, Any]]
) -> dict[str, Margin]:
    """The margin of every clip that has a score with a bound, by clip id.

    Args:
        scores: by clip id, then ``stage.key``.
        rules: with ``score``, ``min`` and ``max`` (numbers or None), as cut.json has them.
    """
    bounded = [
        (rule["score"], sign, float(rule[side]))
        for rule in rules
        for side, sign in (("min", 1.0), ("max", -1.0))
        if rule.get(side) is not None
    ]
    columns = {name: _values(scores.values(), name) for name, _, _ in bounded}
    bounded = [entry for entry in bounded if len(set(columns[entry[0]])) >= _DISTINCT]
    scales = {name: _scale(columns[name]) for name, _, _ in bounded}
    found: dict[str, Margin] = {}
    for clip, of_clip in scores.items():
        candidates = [
            Margin(sign * (float(of_clip[name]) - bound) / scales[name], name,
                   float(of_clip[name]), bound)
            for name, sign, bound in bounded
            if name in of_clip and not isinstance(of_clip[name], str)
        ]  # fmt: skip
        if candidates:
            found[clip] = min(candidates, key=lambda margin: margin.distance)
    return found


def _values(clips: Iterable[Mapping[str, Score]], name: str) -> list[float]:
    return [float(c[name]) for c in clips if name in c and not isinstance(c[name], str)]


def _scale(values: Sequence[float]) -> float:
    low, high = np.quantile(values, (0.25, 0.75))
    return float(high - low) or float(np.std(values))
