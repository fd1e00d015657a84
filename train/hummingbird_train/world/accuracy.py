"""Per-attribute accuracy of clips against their scenes, with 95 % Wilson intervals and chance.

``all`` is the share of clips with every attribute right. An attribute the judge left undecided
counts as wrong. Chance is the share that a generator deaf to the prompt, but right about what the
world contains, would reach.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from math import prod, sqrt

import numpy as np
from numpy.typing import NDArray

from hummingbird_runtime.errors import UsageError
from hummingbird_train.world.judge import ATTRIBUTES, JUDGE_VERSION, Judgement, judge
from hummingbird_train.world.scene import BACKGROUNDS, COLOURS, MOTIONS, SHAPES, SIZES, Scene

ALL = "all"
_Z = 1.959963984540054  # 97.5 % quantile of the normal distribution


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    attribute: str
    right: int
    n: int
    accuracy: float
    low: float
    """Lower end of the 95 % Wilson interval."""
    high: float
    chance: float


@dataclass(frozen=True)
class AccuracyTable:
    """Accuracy of one set of clips, and who judged it."""

    rows: tuple[Row, ...]
    n: int
    tier: int
    judge_version: int = JUDGE_VERSION

    def accuracy(self, attribute: str) -> float:
        """Accuracy of one attribute, or of ``"all"``."""
        return next(row.accuracy for row in self.rows if row.attribute == attribute)

    def to_json(self) -> dict[str, object]:
        """Plain numbers for a report file."""
        return asdict(self)

    def to_markdown(self) -> str:
        """The table as printed in documents."""
        lines = [
            f"judge_version {self.judge_version}, tier {self.tier}, n = {self.n}",
            "",
            "| attribute | accuracy | 95 % interval | chance |",
            "|---|---|---|---|",
        ]
        lines += [
            f"| {row.attribute} | {row.accuracy:.3f} | {row.low:.3f}-{row.high:.3f} "
            f"| {row.chance:.3f} |"
            for row in self.rows
        ]
        return "\n".join(lines)


def measure(clips: Iterable[NDArray[np.uint8]], scenes: Sequence[Scene]) -> AccuracyTable:
    """Judge clips, one per scene, and count.

    Args:
        clips: uint8 [f, 64, 64, 3] each; may be a generator.
        scenes: what each clip should show; all of one tier.

    Raises:
        UsageError: no scenes, scenes of two tiers, or another number of clips than scenes.
    """
    return count([judge(clip) for clip in clips], scenes)


def count(judgements: Sequence[Judgement], scenes: Sequence[Scene]) -> AccuracyTable:
    """Count right answers; see ``measure``."""
    tiers = sorted({scene.tier for scene in scenes})
    if len(tiers) != 1 or len(judgements) != len(scenes):
        raise UsageError(
            "world.accuracy",
            f"clips and scenes do not match, got {len(judgements)} clips, {len(scenes)} scenes "
            f"of tiers {tiers}, expected one clip per scene and one tier",
            hint="measure each tier by itself",
        )
    n = len(scenes)
    right = dict.fromkeys((*ATTRIBUTES, ALL), 0)
    for judgement, scene in zip(judgements, scenes, strict=True):
        answers = correct(judgement, scene)
        for name, good in answers.items():
            right[name] += good
        right[ALL] += all(answers.values())
    by_chance = chance(tiers[0])
    rows = tuple(
        Row(name, hits, n, hits / n, *wilson(hits, n), by_chance[name])
        for name, hits in right.items()
    )
    return AccuracyTable(rows=rows, n=n, tier=tiers[0])


def correct(judgement: Judgement, scene: Scene) -> dict[str, bool]:
    """Tell for each attribute whether the judge read what the scene asked for."""
    return {name: getattr(judgement, name) == getattr(scene, name) for name in ATTRIBUTES}


def chance(tier: int = 1) -> dict[str, float]:
    """Accuracy of guessing uniformly, per attribute and for all five at once."""
    choices = {
        "shape": len(SHAPES[tier]),
        "colour": len(COLOURS),
        "size": len(SIZES),
        "motion": len(MOTIONS[tier]),
        "background": len(BACKGROUNDS[tier]),
    }
    return {name: 1 / k for name, k in choices.items()} | {ALL: 1 / prod(choices.values())}


def wilson(right: int, n: int) -> tuple[float, float]:
    """95 % interval of a share (Wilson 1927): inside [0, 1], and honest at 0 and at n."""
    if not 0 <= right <= n or n < 1:
        raise UsageError(
            "world.share",
            f"not a share, got {right} of {n}, expected 0 <= right <= n and n >= 1",
            hint="pass counts",
        )
    share, z2 = right / n, _Z * _Z
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z / (1 + z2 / n) * sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    return (0.0 if right == 0 else middle - half), (1.0 if right == n else middle + half)
