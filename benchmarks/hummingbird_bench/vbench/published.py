"""Published VBench rows to stand beside a measurement: the paper's Table 1, in percent.

Columns: total, quality, then the seven quality dimensions. The semantic score is not printed there;
it follows from the formula as 5 total - 4 quality.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

_DIMENSIONS = (
    "subject_consistency",
    "background_consistency",
    "temporal_flickering",
    "motion_smoothness",
    "aesthetic_quality",
    "dynamic_degree",
    "imaging_quality",
)


@dataclass(frozen=True)
class PublishedRow:
    """One model of the table, in percent."""

    total: float
    """as printed"""
    quality: float
    """as printed"""
    scores: Mapping[str, float]
    """raw scores of the quality dimensions"""

    @property
    def semantic(self) -> float:
        """5 total - 4 quality; carries five times the rounding of the total."""
        return 5 * self.total - 4 * self.quality


def _row(total: float, quality: float, *scores: float) -> PublishedRow:
    return PublishedRow(total, quality, dict(zip(_DIMENSIONS, scores, strict=True)))


PUBLISHED: Mapping[str, PublishedRow] = {
    "ModelScopeT2V": _row(75.75, 78.05, 89.87, 95.29, 98.28, 95.79, 52.06, 66.39, 58.57),
    "LaVie": _row(77.08, 78.78, 91.41, 97.47, 98.30, 96.38, 54.94, 49.72, 61.90),
    "Show-1": _row(78.93, 80.42, 95.53, 98.02, 99.12, 98.24, 57.35, 44.44, 58.66),
    "VideoCrafter1": _row(79.72, 81.59, 95.10, 98.04, 98.93, 95.67, 62.67, 55.00, 65.46),
    "Pika": _row(80.40, 82.68, 96.76, 98.95, 99.77, 99.51, 63.15, 37.22, 62.33),
    "VideoCrafter2": _row(80.44, 82.20, 96.85, 98.22, 98.41, 97.73, 63.13, 42.50, 67.22),
    "Gen-2": _row(80.58, 82.47, 97.61, 97.61, 99.56, 99.58, 66.96, 18.89, 67.42),
    "AnimateLCM": _row(77.74, 80.68, 96.57, 96.57, 98.41, 98.33, 63.26, 33.33, 62.30),
    "VideoLCM": _row(73.27, 77.65, 96.55, 97.23, 97.33, 97.01, 59.93, 5.56, 66.43),
    "T2V-Turbo": _row(81.01, 82.57, 96.28, 97.02, 97.48, 97.34, 63.04, 49.17, 72.49),
    "Hummingbird, 16 frames": _row(81.35, 83.73, 95.87, 96.77, 95.24, 96.14, 68.04, 79.17, 71.04),
    "Hummingbird, 26 frames": _row(80.31, 83.11, 96.97, 97.73, 97.64, 96.97, 67.82, 50.00, 69.94),
}
