"""VBench's aggregate: 16 dimension scores to Quality, Semantic and Total.

Constants and formula are those of Vchitect/VBench, scripts/constant.py and cal_final_score.py:
n = (score - min) / (max - min); Quality and Semantic are weighted means of n over their
dimensions; Total = (4 Quality + Semantic) / 5. Nothing is clipped.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from hummingbird_runtime.errors import InputError, UsageError

QUALITY_SHARE, SEMANTIC_SHARE = 4.0, 1.0


@dataclass(frozen=True)
class Dimension:
    """How one dimension enters the aggregate."""

    low: float
    """score that counts as 0"""
    high: float
    """score that counts as 1"""
    weight: float = 1.0
    """in the mean of its group"""


QUALITY: Mapping[str, Dimension] = {
    "subject_consistency": Dimension(0.1462, 1.0),
    "background_consistency": Dimension(0.2615, 1.0),
    "temporal_flickering": Dimension(0.6293, 1.0),
    "motion_smoothness": Dimension(0.706, 0.9975),
    "dynamic_degree": Dimension(0.0, 1.0, weight=0.5),
    "aesthetic_quality": Dimension(0.0, 1.0),
    "imaging_quality": Dimension(0.0, 1.0),
}
SEMANTIC: Mapping[str, Dimension] = {
    "object_class": Dimension(0.0, 1.0),
    "multiple_objects": Dimension(0.0, 1.0),
    "human_action": Dimension(0.0, 1.0),
    "color": Dimension(0.0, 1.0),
    "spatial_relationship": Dimension(0.0, 1.0),
    "scene": Dimension(0.0, 0.8222),
    "appearance_style": Dimension(0.0009, 0.2855),
    "temporal_style": Dimension(0.0, 0.364),
    "overall_consistency": Dimension(0.0, 0.364),
}
DIMENSIONS: Mapping[str, Dimension] = {**QUALITY, **SEMANTIC}


@dataclass(frozen=True)
class Aggregate:
    """The three figures of VBench; None where a dimension that it needs was not measured."""

    quality: float | None
    """of the 7 quality dimensions, 0..1 for scores inside the constants' range"""
    semantic: float | None
    """of the 9 semantic dimensions"""
    total: float | None
    """(4 quality + semantic) / 5"""


def normalise(name: str, score: float) -> float:
    """Map a dimension's raw score (0..1 as VBench writes it) onto its published range.

    Raises:
        UsageError: ``vbench.dimension`` for a name that is no dimension.
        InputError: ``vbench.score`` for a score that is not finite.
    """
    dimension = DIMENSIONS.get(name)
    if dimension is None:
        raise UsageError(
            "vbench.dimension",
            f"got dimension {name!r}, expected one of {', '.join(DIMENSIONS)}",
            hint="write it with underscores",
        )
    if not math.isfinite(score):
        raise InputError(
            "vbench.score",
            f"{name}: got score {score}, expected a finite number",
            hint="that dimension judged no clip; look into its log",
        )
    return (score - dimension.low) / (dimension.high - dimension.low)


def aggregate(scores: Mapping[str, float], *, missing_as_zero: bool = False) -> Aggregate:
    """Combine raw scores of dimensions.

    Args:
        scores: raw score 0..1 by dimension name.
        missing_as_zero: count a dimension that is absent as raw 0, as VBench's own script does;
            otherwise the figures that need it are None.

    Raises:
        UsageError, InputError: as :func:`normalise`.
    """
    for name, score in scores.items():
        normalise(name, score)
    quality = _weighted_mean(QUALITY, scores, missing_as_zero)
    semantic = _weighted_mean(SEMANTIC, scores, missing_as_zero)
    total = None
    if quality is not None and semantic is not None:
        shares = QUALITY_SHARE + SEMANTIC_SHARE
        total = (QUALITY_SHARE * quality + SEMANTIC_SHARE * semantic) / shares
    return Aggregate(quality, semantic, total)


def _weighted_mean(
    group: Mapping[str, Dimension], scores: Mapping[str, float], missing_as_zero: bool
) -> float | None:
    if not missing_as_zero and not group.keys() <= scores.keys():
        return None
    parts = [d.weight * normalise(name, scores.get(name, 0.0)) for name, d in group.items()]
    return sum(parts) / sum(d.weight for d in group.values())
