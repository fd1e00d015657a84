"""What pairs of runs prove: a ratio of times, its 95 % interval, and whether it may be claimed.

Pairs are compared by the logarithm of their ratio; its trimmed mean and Yuen's standard error feed
a studentized bootstrap whose quantile never falls below Student's, so that few pairs do not make
an interval too narrow. A difference is claimed only where as many pairs ran as the scatter asks
for.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hummingbird_runtime.errors import InputError, UsageError

RESOLUTION = 0.03
"""Difference of times that a comparison must be able to find."""

NEGLIGIBLE = 0.003
"""Difference that is never claimed: an interval must clear it, not just 1."""

LEVEL = 0.95
POWER_Z = 0.8416
"""Normal quantile of 80 %: how surely the asked number of pairs finds a difference."""

FEWEST = 3
"""Pairs below which nothing is claimed, however far apart the times are."""

_TRIM = 0.1
_RESAMPLES = 1999
_SMALL = 8
_SEED = 20240827
_MANY = 10**6

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Ratio:
    """Seconds of ``a`` over seconds of ``b``: above 1, ``b`` is faster."""

    estimate: float
    low: float
    """lower end of the 95 % interval"""
    high: float
    """upper end"""
    pairs: int
    verdict: str
    """``faster`` or ``slower`` (of ``b``), ``no difference``, ``too noisy: needs N pairs``"""
    scatter: float
    """standard deviation of one pair's log-ratio, robust"""

    @property
    def claims(self) -> bool:
        """Whether it says that one of the two is faster."""
        return self.verdict in ("faster", "slower")


@dataclass(frozen=True)
class StopRule:
    """When a comparison has enough pairs; chosen before the first of them runs.

    It looks at the width of the interval, never at what the interval says.

    Raises:
        UsageError: ``bench.stop_rule``.
    """

    fewest: int = 6
    """pairs that run in any case"""
    most: int = 20
    """pairs after which it ends in any case"""
    half_width: float = 0.01
    """half the interval of the log-ratio at which it ends"""
    minutes: float | None = None
    """time after which no further pair is begun; None is no limit"""

    def __post_init__(self) -> None:
        if not 1 <= self.fewest <= self.most or not self.half_width >= 0.0:
            raise UsageError(
                "bench.stop_rule",
                f"got {self.fewest} to {self.most} pairs, half-width {self.half_width:g}, expected "
                "at least 1 pair, no fewer at most than at least, and a width of 0 or more",
                hint="correct --pairs",
            )

    def text(self) -> str:
        """The rule as a sentence for a report."""
        limit = "" if self.minutes is None else f", or {self.minutes:g} minutes are over"
        if self.fewest == self.most:
            return f"Fixed beforehand: exactly {self.most} pairs{limit}."
        return (
            f"Fixed beforehand: at least {self.fewest} pairs, until the 95 % interval is within "
            f"{self.half_width:.1%} of the estimate on either side, {self.most} pairs ran{limit}."
        )

    def is_over(self, log_ratios: Sequence[Array], seconds: float) -> bool:
        """Whether no further pair is to run.

        Args:
            log_ratios: of each comparison, one per finished pair.
            seconds: since the first pair began.
        """
        done = min((len(ratios) for ratios in log_ratios), default=self.most)
        if done >= self.most or (self.minutes is not None and seconds >= 60.0 * self.minutes):
            return True
        return done >= self.fewest and all(
            interval(ratios)[1] <= self.half_width for ratios in log_ratios
        )


def log_ratios(a: Sequence[float], b: Sequence[float]) -> Array:
    """Logarithm of seconds of ``a`` over seconds of ``b`` by pair: float64 [n].

    Raises:
        InputError: ``bench.pairs`` for no or unequally many values, or one that is no time.
    """
    one, other = np.asarray(a, np.float64), np.asarray(b, np.float64)
    good = one.shape == other.shape and one.ndim == 1 and one.size > 0
    if not good or not (np.isfinite([one, other]).all() and min(one.min(), other.min()) > 0):
        raise InputError(
            "bench.pairs",
            f"got {one.size} and {other.size} times, expected as many of both, all above 0 s",
            hint="pair each run of one arm with one of the other",
        )
    found: Array = np.log(one) - np.log(other)
    return found


def paired_log_ratio(a: Sequence[float], b: Sequence[float]) -> Ratio:
    """Compare two arms by pairs of runs.

    Args:
        a: seconds of the first arm, in the order in which it ran.
        b: seconds of the second arm; ``b[i]`` ran beside ``a[i]``.

    Raises:
        InputError: ``bench.pairs``.
    """
    ratios = log_ratios(a, b)
    centre, half, spread = interval(ratios)
    return Ratio(
        estimate=math.exp(centre),
        low=math.exp(centre - half),
        high=math.exp(centre + half),
        pairs=ratios.size,
        verdict=_verdict(centre, half, spread, ratios.size),
        scatter=spread,
    )


def interval(ratios: Array) -> tuple[float, float, float]:
    """Centre, half-width and scatter of log-ratios: the interval is centre -+ half-width.

    One pair has no width; nothing is ever claimed from it.

    Args:
        ratios: float64 [n], n at least 1.
    """
    count = ratios.size
    centre, error = (float(one[0]) for one in _trimmed(ratios[None]))
    if count == 1:
        return centre, 0.0, 0.0
    cut = int(_TRIM * count)
    quantile = student_quantile(count - 2 * cut - 1)
    if count >= _SMALL and error > 0:
        quantile = max(quantile, _bootstrap_quantile(ratios, centre))
    return centre, quantile * error, error * math.sqrt(count)


def pairs_needed(scatter: float, effect: float = RESOLUTION) -> int:
    """Pairs that find a difference of ``effect`` four times out of five.

    Args:
        scatter: standard deviation of one pair's log-ratio.
        effect: share by which times differ, above ``NEGLIGIBLE``.
    """
    distance = math.log1p(effect) - math.log1p(NEGLIGIBLE)
    if scatter * 2 > distance * math.sqrt(_MANY):
        return _MANY
    count = FEWEST
    while scatter * (student_quantile(count - 1) + POWER_Z) > distance * math.sqrt(count):
        count += max(1, count // 64)
    return count


@functools.lru_cache(maxsize=4096)
def student_quantile(freedom: int, level: float = LEVEL) -> float:
    """The t with P(-t < T < t) = level: bisection of the closed form for whole degrees of freedom.

    Source: Abramowitz and Stegun, 26.7.3 and 26.7.4.
    """
    low, high = 0.0, 1.0
    while _student_inside(high, freedom) < level:
        high *= 2.0
    for _ in range(60):
        middle = (low + high) / 2.0
        low, high = (middle, high) if _student_inside(middle, freedom) < level else (low, middle)
    return high


def _student_inside(t: float, freedom: int) -> float:
    """P(|T| < t)."""
    angle = math.atan(t / math.sqrt(freedom))
    cos2, sine = math.cos(angle) ** 2, math.sin(angle)
    odd = freedom % 2
    term = math.cos(angle) if odd else 1.0
    total = 0.0
    for k in range(freedom // 2):
        total += term
        term *= cos2 * ((2 * k + 2) / (2 * k + 3) if odd else (2 * k + 1) / (2 * k + 2))
    return 2.0 / math.pi * (angle + sine * total) if odd else sine * total


def _trimmed(rows: Array) -> tuple[Array, Array]:
    """Trimmed mean and Yuen's standard error of each row: [r, n] -> [r], [r]."""
    count = rows.shape[1]
    cut = int(_TRIM * count)
    ordered = np.sort(rows, axis=1)
    mean = ordered[:, cut : count - cut].mean(axis=1)
    if count == 1:
        return mean, np.zeros_like(mean)
    winsorized = np.clip(ordered, ordered[:, cut, None], ordered[:, count - cut - 1, None])
    kept = count - 2 * cut
    squares = ((winsorized - winsorized.mean(axis=1, keepdims=True)) ** 2).sum(axis=1)
    return mean, np.sqrt(squares / (kept * (kept - 1)))


def _bootstrap_quantile(ratios: Array, centre: float) -> float:
    """95 % quantile of |mean* - mean| / error* over resamples: a symmetric bootstrap-t."""
    # RandomState's stream is frozen for good, so a report's figures can be computed again
    picks = np.random.RandomState(_SEED).randint(0, ratios.size, (_RESAMPLES, ratios.size))
    means, errors = _trimmed(ratios[picks])
    usable = errors > 1e-3 * float(np.median(errors))
    return float(np.quantile(np.abs(means - centre)[usable] / errors[usable], LEVEL))


def _verdict(centre: float, half: float, scatter: float, count: int) -> str:
    clear = max(abs(centre) - half, 0.0)
    needed = pairs_needed(scatter, max(RESOLUTION, math.expm1(clear)))
    if count < max(needed, FEWEST):
        return f"too noisy: needs {needed} pairs"
    if clear <= math.log1p(NEGLIGIBLE):
        return "no difference"
    return "faster" if centre > 0 else "slower"
