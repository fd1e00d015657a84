"""Histograms of scores, all clips against those kept, on one set of bins; text bars for cards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hummingbird_train.curation.row import Score

_BARS = " ▏▎▍▌▋▊▉█"


@dataclass(frozen=True)
class Histogram:
    """Counts of one score."""

    name: str
    """``stage.key``"""
    edges: NDArray[np.float64]
    """[bins + 1], increasing"""
    every: NDArray[np.int64]
    """[bins] all clips that have the score"""
    kept: NDArray[np.int64]
    """[bins] those that the cut keeps"""
    below: int
    """clips under the first edge: the far tail"""
    above: int
    """clips over the last edge"""


def histogram(
    name: str, values: Sequence[float], kept: Sequence[bool], *, bins: int = 32
) -> Histogram:
    """Count values in equal bins over their range; a far tail is cut off and counted apart.

    Args:
        name: ``stage.key``.
        values: one a clip, n >= 1, finite.
        kept: whether the cut keeps the clip, n.
        bins: number of them.
    """
    data, mask = np.asarray(values, np.float64), np.asarray(kept, bool)
    low, high = float(data.min()), float(data.max())
    inner_low, inner_high = np.quantile(data, (0.005, 0.995))
    width = inner_high - inner_low
    # a tail is cut only when it would squeeze the body into less than a third of the picture
    if width > 0 and high - low > 3 * width:
        low = max(low, float(inner_low - 0.1 * width))
        high = min(high, float(inner_high + 0.1 * width))
    if high <= low:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, bins + 1)
    every, _ = np.histogram(data, edges)
    stay, _ = np.histogram(data[mask], edges)
    below, above = int((data < low).sum()), int((data > high).sum())
    return Histogram(name, edges, every.astype(np.int64), stay.astype(np.int64), below, above)


def score_columns(
    scores: Mapping[str, Mapping[str, Score]], order: Sequence[str]
) -> dict[str, tuple[list[str], list[float]]]:
    """Numeric scores by name, each with the clips that have it, in the order given.

    Booleans count as 0 and 1; text is left out.
    """
    found: dict[str, tuple[list[str], list[float]]] = {}
    for clip in order:
        for name, value in scores.get(clip, {}).items():
            if not isinstance(value, str):
                clips, values = found.setdefault(name, ([], []))
                clips.append(clip)
                values.append(float(value))
    return dict(sorted(found.items()))


def text_bars(shown: Histogram, *, rows: int = 8, width: int = 24) -> list[str]:
    """A histogram as lines of text: range, bar of all clips, count of all and of kept."""
    step = max(1, len(shown.every) // rows)
    starts = range(0, len(shown.every), step)
    every = [int(shown.every[i : i + step].sum()) for i in starts]
    kept = [int(shown.kept[i : i + step].sum()) for i in starts]
    top = max(max(every), 1)
    lines = []
    for i, total, stay in zip(starts, every, kept, strict=True):
        left, right = shown.edges[i], shown.edges[min(i + step, len(shown.every))]
        eighths = round(8 * width * total / top)
        bar = "█" * (eighths // 8) + (_BARS[eighths % 8] if eighths % 8 else "")
        lines.append(f"{left:>10.4g} to {right:<10.4g} {bar:<{width}} {total:>7} {stay:>7}")
    return lines
