"""Quality gates: closed forms of the figures, and that a bad graph cannot pass."""

from __future__ import annotations

import numpy as np
import pytest

from hummingbird_export.gates import (
    GATES,
    IDENTICAL,
    Quality,
    check_quality,
    compare,
    cosine,
    gate,
    snr_db,
)
from hummingbird_export.trajectory import Settings, final_latents, random_cases
from hummingbird_runtime.errors import ExecutionError
from hummingbird_runtime.schedule import SchedulerConfig

SETTINGS = Settings(SchedulerConfig(), (4, 3, 8, 8))
CASES = random_cases(3, 5, 6)


def network(feeds):
    return np.tanh(feeds["sample"] + feeds["encoder_hidden_states"].mean()).astype(np.float32)


def test_decibels_and_cosine_are_their_definitions() -> None:
    want = np.random.default_rng(0).standard_normal((1, 4, 3, 8, 8)).astype(np.float32)
    assert snr_db(1.1 * want, want) == pytest.approx(20, abs=1e-3)
    assert snr_db(np.zeros_like(want), want) == pytest.approx(0)
    assert snr_db(want, want) == IDENTICAL
    assert snr_db(np.full_like(want, np.nan), want) == -IDENTICAL
    assert cosine(3 * want, want) == pytest.approx(1)
    assert cosine(-want, want) == pytest.approx(-1)
    assert cosine(np.zeros_like(want), want) == 0


def test_mean_and_worst_are_over_the_cases() -> None:
    want = np.ones((1, 1, 1, 10, 10), np.float32)
    quality = compare([1.1 * want, 1.01 * want], [want, want])
    assert quality.to_json() == {"snr_db_mean": 30.0, "snr_db_worst": 20.0, "cosine": 1.0}


@pytest.mark.parametrize("precision", sorted(GATES))
def test_a_gate_has_two_edges(precision: str) -> None:
    least = GATES[precision]
    check_quality(Quality((least.worst_db, 2 * least.mean_db - least.worst_db), 0.9), precision)
    for bad in (
        Quality((least.mean_db - 0.1, least.mean_db - 0.1), 0.9),
        Quality((least.worst_db - 0.1, 99.0), 0.9),
    ):
        with pytest.raises(ExecutionError, match=rf"expected at least {least.mean_db:g} and") as c:
            check_quality(bad, precision)
        assert c.value.code == "export.quality"
    check_quality(Quality((0.0,), 0.0), "fp32")  # no gate


def test_the_gate_samples_the_candidate() -> None:
    references = list(final_latents(network, CASES, SETTINGS))
    good = gate(lambda feeds: network(feeds) * np.float32(1.001), references, CASES, SETTINGS, "w4")
    assert 40 < good.worst_db < 80
    assert len(good.snr_db) == len(CASES)
    with pytest.raises(ExecutionError, match="int8 U-Net: final latents against float32, got SNR"):
        gate(lambda feeds: 0.5 * network(feeds), references, CASES, SETTINGS, "int8")
