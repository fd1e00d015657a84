"""Gates: an arm whose networks differ from torch in float32 is INVALID."""

from __future__ import annotations

import numpy as np
import pytest

from hummingbird_bench.gate import EXACT_DB, agreement, form_gate, judge


def test_noise_of_a_known_size_gives_its_decibels():
    rng = np.random.default_rng(0)
    want = rng.standard_normal(100_000).astype(np.float32)
    noise = rng.standard_normal(100_000).astype(np.float32)
    snr_db, cosine = agreement(want + 0.1 * noise, want)
    assert snr_db == pytest.approx(20.0, abs=0.1)
    assert cosine == pytest.approx(1 / np.sqrt(1.01), abs=1e-4)


def test_equal_bits_and_broken_numbers_stay_finite():
    want = np.ones(4, np.float32)
    assert agreement(want, want) == (EXACT_DB, pytest.approx(1.0))
    assert agreement(np.full(4, np.nan, np.float32), want) == (-EXACT_DB, 0.0)


@pytest.mark.parametrize(
    ("precision", "snr_db", "passed"),
    [
        ("fp32", 61, True),
        ("fp32", 59, False),
        ("int8", 16, True),
        ("int8", 14, False),
        ("w4", 9, True),
        ("w4", 7, False),
        ("fp8", 59, False),  # a precision that has no gate gets the strictest
    ],
)
def test_each_precision_has_its_own_gate(precision, snr_db, passed):
    assert judge(snr_db, precision) is passed


def test_a_torch_form_is_gated_like_float32():
    assert form_gate({"snr_db": 115.0, "cosine": 1.0, "case": "8x24x32"}).passed
    assert not form_gate({"snr_db": 30.0, "cosine": 1.0, "case": "8x24x32"}).passed
