"""Per-attribute accuracy of judged clips, with 95 % Wilson intervals and chance levels.

``all`` is the share of clips with every attribute right. An attribute that the judge left undecided
counts as wrong. Chance is what a generator would reach that is deaf to the prompt and draws clips
of the world uniformly.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod, sqrt

from hummingbird_train.world.judge import ATTRIBUTES, JUDGE_VERSION, Judgement
from hummingbird_train.world.scene import BACKGROUNDS, COLOURS, MOTIONS, SHAPES, SIZES, Scene

ALL = "all"
_Z = 1.959963984540054  # 97.5 % quantile of the normal distribution


@dataclass(frozen=True)
class Accuracy:
    """How many of n answers are right."""

    right: int
    n: int

    @property
    def share(self) -> float:
        """Share of right answers, 0 to 1; NaN when there is none to count."""
        return self.right / self.n if self.n else float("nan")

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the share (Wilson 1927): inside [0, 1], and honest at both ends."""
        if not self.n:
            return 0.0, 1.0
        z2_n = _Z * _Z / self.n
        middle = (self.share + z2_n / 2) / (1 + z2_n)
        half = _Z / (1 + z2_n) * sqrt(self.share * (1 - self.share) / self.n + z2_n / 4 / self.n)
        return max(middle - half, 0.0), min(middle + half, 1.0)


def correct(judgement: Judgement, scene: Scene) -> dict[str, bool]:
    """Tell for each attribute, and for all together, whether the judge read what was asked for."""
    right = {name: getattr(judgement, name) == getattr(scene, name) for name in ATTRIBUTES}
    return right | {ALL: all(right.values())}


def accuracies(judged: Iterable[tuple[Scene, Judgement]]) -> dict[str, Accuracy]:
    """Count right answers, by attribute and under ``"all"``.

    Args:
        judged: what each clip should show, and what the judge read in it.
    """
    right = dict.fromkeys((*ATTRIBUTES, ALL), 0)
    n = 0
    for scene, judgement in judged:
        n += 1
        for name, good in correct(judgement, scene).items():
            right[name] += good
    return {name: Accuracy(hits, n) for name, hits in right.items()}


def chance(tier: int = 1) -> dict[str, float]:
    """Accuracy of guessing uniformly, by attribute and under ``"all"``."""
    choices = {
        "shape": len(SHAPES[tier]),
        "colour": len(COLOURS),
        "size": len(SIZES),
        "motion": len(MOTIONS[tier]),
        "background": len(BACKGROUNDS[tier]),
    }
    return {name: 1 / k for name, k in choices.items()} | {ALL: 1 / prod(choices.values())}


def markdown(rows: Mapping[str, Mapping[str, Accuracy]], tier: int = 1) -> str:
    """Print a table: one line per row of accuracies, the chance levels last.

    Args:
        rows: what was judged -> its accuracies.
        tier: tier of the judged scenes.
    """
    columns = (*ATTRIBUTES, ALL)
    by_chance = chance(tier)
    lines = [
        f"Share right with 95 % Wilson interval; tier {tier}, judge v{JUDGE_VERSION}.",
        "",
        f"| clips | n | {' | '.join(columns)} |",
        "|---" * (len(columns) + 2) + "|",
    ]
    for label, row in rows.items():
        cells = []
        for name in columns:
            low, high = row[name].interval
            cells.append(f"{row[name].share:.3f} ({low:.3f}-{high:.3f})")
        lines.append(f"| {label} | {row[ALL].n} | {' | '.join(cells)} |")
    guesses = " | ".join(
        f"{by_chance[name]:.3f}" if name != ALL else f"{by_chance[name]:.1g}" for name in columns
    )
    lines.append(f"| chance | | {guesses} |")
    return "\n".join(lines)
