"""Is one model better than another on the same prompts and seeds? A paired bootstrap (Efron 1979).

Resampling whole prompts keeps the clips of one prompt together, which are not independent.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from hummingbird_runtime.errors import UsageError


@dataclass(frozen=True)
class Difference:
    """Mean of b - a and its interval."""

    mean: float
    low: float
    high: float
    n: int
    """Pairs."""

    @property
    def above_zero(self) -> bool:
        """Whether the whole interval lies above 0."""
        return self.low > 0.0


def paired_difference(
    a: ArrayLike,
    b: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Difference:
    """Mean of b - a with its percentile bootstrap interval.

    Args:
        a: [n] scores, or rights and wrongs, of the first model.
        b: [n] of the second, for the same prompts and seeds in the same order.
        groups: [n] what each pair belongs to, such as its prompt; None: pairs are independent.
        confidence: of the interval, between 0 and 1.
        resamples: draws.
        seed: of the draws.

    Raises:
        UsageError: ``feedback.pairs`` when the lengths differ or there is nothing to compare.
    """
    first, second = np.asarray(a, np.float64).ravel(), np.asarray(b, np.float64).ravel()
    owner = np.arange(first.size) if groups is None else np.asarray(groups).ravel()
    if not first.size or first.size != second.size or owner.size != first.size:
        raise UsageError(
            "feedback.pairs",
            f"paired scores, got {first.size}, {second.size} and {owner.size} groups, "
            "expected as many of each, at least one",
            hint="judge both models on the same prompts and seeds",
        )
    _, member = np.unique(owner, return_inverse=True)
    totals = np.bincount(member, weights=second - first)  # (g,)
    sizes = np.bincount(member).astype(np.float64)
    rng = np.random.default_rng(seed)
    means = np.empty(resamples)
    for start in range(0, resamples, 500):
        count = min(500, resamples - start)
        drawn = rng.integers(totals.size, size=(count, totals.size))
        means[start : start + count] = totals[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    tail = (1.0 - confidence) / 2
    low, high = np.quantile(means, [tail, 1.0 - tail])
    return Difference(float((second - first).mean()), float(low), float(high), first.size)
