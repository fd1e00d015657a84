"""The paired bootstrap against what is known of means."""

from __future__ import annotations

import numpy as np
import pytest

from hummingbird_runtime.errors import UsageError
from hummingbird_train.feedback.statistics import paired_difference


def test_the_interval_is_that_of_the_mean_difference():
    rng = np.random.default_rng(0)
    a = rng.normal(size=800)
    b = a + 0.3 + rng.normal(scale=0.5, size=800)
    got = paired_difference(a, b)
    half = 1.96 * (b - a).std() / 800**0.5  # normal theory; the pairs' common part cancels
    assert got.mean == pytest.approx((b - a).mean(), abs=1e-12)
    assert got.low == pytest.approx(got.mean - half, abs=0.1 * half)
    assert got.high == pytest.approx(got.mean + half, abs=0.1 * half)
    assert got.above_zero
    assert not paired_difference(b, a).above_zero


def test_clips_of_one_prompt_count_as_one_when_they_agree():
    rng = np.random.default_rng(1)
    b = rng.integers(2, size=50).repeat(8)
    groups = np.arange(50).repeat(8)
    alone = paired_difference(np.zeros(400), b)
    together = paired_difference(np.zeros(400), b, groups=groups)
    wider = (together.high - together.low) / (alone.high - alone.low)
    assert wider == pytest.approx(8**0.5, rel=0.1)


def test_equal_answers_have_no_interval():
    got = paired_difference([1, 0, 1], [1, 0, 1])
    assert (got.mean, got.low, got.high, got.n) == (0.0, 0.0, 0.0, 3)
    assert not got.above_zero


def test_pairs_that_do_not_pair_up_are_refused():
    with pytest.raises(UsageError) as error:
        paired_difference([1.0], [1.0, 2.0])
    assert error.value.code == "feedback.pairs"
