"""What may be claimed from pairs: closed forms, false alarms where nothing differs, power."""

from __future__ import annotations

import math

import numpy as np
import pytest

from hummingbird_bench.statistics import (
    FEWEST,
    StopRule,
    interval,
    log_ratios,
    paired_log_ratio,
    pairs_needed,
    student_quantile,
)
from hummingbird_runtime.errors import InputError, UsageError


@pytest.mark.parametrize(
    ("freedom", "value"), [(1, 12.7062), (2, 4.3027), (5, 2.5706), (19, 2.0930), (1000, 1.9623)]
)
def test_student_quantiles_are_the_tabulated_ones(freedom: int, value: float) -> None:
    assert student_quantile(freedom) == pytest.approx(value, abs=5e-5)


def test_the_interval_of_few_pairs_is_students() -> None:
    ratios = np.array([0.01, 0.03, -0.02, 0.0, 0.02])
    centre, half, _ = interval(ratios)
    assert centre == pytest.approx(ratios.mean())
    assert half == pytest.approx(student_quantile(4) * ratios.std(ddof=1) / math.sqrt(5))


def test_one_slow_outlier_does_not_move_the_estimate() -> None:
    a = [1.0] * 10
    b = [0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 5.0]
    assert paired_log_ratio(a, b).estimate == pytest.approx(2.0)


@pytest.mark.parametrize(
    "bad", [([], []), ([1.0], [1.0, 2.0]), ([0.0], [1.0]), ([math.nan], [1.0])]
)
def test_times_that_make_no_pairs_are_refused(bad: tuple[list[float], list[float]]) -> None:
    with pytest.raises(InputError) as caught:
        log_ratios(*bad)
    assert caught.value.code == "bench.pairs"


def test_one_pair_claims_nothing_however_far_apart() -> None:
    ratio = paired_log_ratio([100.0], [1.0])
    assert not ratio.claims
    assert ratio.verdict == f"too noisy: needs {FEWEST} pairs"


def noise(rng: np.random.Generator, kind: str, scatter: float) -> float:
    """Log of what disturbs one run; two of them make a pair's scatter."""
    each = scatter / math.sqrt(2)
    if kind == "normal":
        return float(rng.normal(0, each))
    if kind == "bursts":  # a neighbour takes the processor now and then
        return float(rng.normal(0, each / 2) + (rng.random() < 0.1) * rng.exponential(3 * each))
    return float(rng.standard_t(3) * each / math.sqrt(3))


def sequential(rng: np.random.Generator, kind: str, scatter: float, effect: float) -> str:
    """A comparison under the verb's own stop rule: 6 to 20 pairs."""
    rule, a, b = StopRule(), [], []
    while True:
        a.append(math.exp(noise(rng, kind, scatter)) * (1 + effect))
        b.append(math.exp(noise(rng, kind, scatter)))
        if rule.is_over([log_ratios(a, b)], 0.0):
            return paired_log_ratio(a, b).verdict


KINDS = ["normal", "bursts", "heavy tails"]


@pytest.mark.parametrize("kind", KINDS)
def test_equal_arms_seldom_claim_a_difference(kind: str) -> None:
    """5 % are allowed; more than 5 of 40 would come once in 70 seeds, and the seed is fixed."""
    rng = np.random.default_rng([40, len(kind)])
    found = [sequential(rng, kind, 0.03, 0.0) for _ in range(40)]
    assert sum(one in ("faster", "slower") for one in found) <= 5


@pytest.mark.parametrize("kind", KINDS)
def test_a_planted_slowdown_of_3_percent_is_found(kind: str) -> None:
    """Nine of ten at a scatter of 3 % and 20 pairs at most; 32 of 40 is that less 2 sigma."""
    rng = np.random.default_rng([3, len(kind)])
    found = [sequential(rng, kind, 0.03, 0.03) for _ in range(40)]
    assert found.count("slower") == 0
    assert found.count("faster") >= 32


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scatter", [0.005, 0.03, 0.2])
def test_false_alarms_at_full_count(kind: str, scatter: float) -> None:
    """Of 400 comparisons 20 are allowed; 33 is 3 sigma more."""
    rng = np.random.default_rng([int(1000 * scatter), len(kind)])
    found = [sequential(rng, kind, scatter, 0.0) for _ in range(400)]
    assert sum(one in ("faster", "slower") for one in found) <= 33


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_power_at_full_count(kind: str) -> None:
    """360 of 400 is nine of ten; 342 is 3 sigma less."""
    rng = np.random.default_rng([99, len(kind)])
    found = [sequential(rng, kind, 0.03, 0.03) for _ in range(400)]
    assert found.count("faster") >= 342


def test_noise_that_hides_3_percent_is_called_so_and_the_pairs_are_named() -> None:
    rng = np.random.default_rng(4)
    found = [sequential(rng, "normal", 0.2, 0.03) for _ in range(20)]
    assert all(one.startswith("too noisy: needs ") for one in found)
    assert pairs_needed(0.2) > 300


def test_asked_pairs_find_the_difference_as_often_as_promised() -> None:
    """80 %, less 3 sigma of 400 trials."""
    rng, scatter = np.random.default_rng(5), 0.04
    count, hits = pairs_needed(scatter), 0
    for _ in range(400):
        centre, half, _ = interval(rng.normal(math.log1p(0.03), scatter, count))
        hits += centre - half > math.log1p(0.003)
    assert hits / 400 >= 0.74


def test_a_rule_that_ends_before_it_begins_is_refused() -> None:
    with pytest.raises(UsageError) as caught:
        StopRule(6, 5)
    assert caught.value.code == "bench.stop_rule"


def test_the_rule_looks_at_width_and_time_alone() -> None:
    narrow = np.log([1.5, 1.5, 1.5, 1.5, 1.5, 1.5])
    wide = np.log([1.0, 2.0, 1.0, 2.0, 1.0, 2.0])
    assert StopRule().is_over([narrow], 0.0)
    assert not StopRule().is_over([narrow, wide], 0.0)
    assert not StopRule().is_over([narrow[:5]], 0.0)
    assert StopRule(minutes=1.0).is_over([wide], 60.0)
