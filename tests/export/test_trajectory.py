"""Trajectories are the runtime's own sampler, recorded."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hummingbird_export.trajectory import (
    Case,
    Settings,
    final_latent,
    random_cases,
    trajectory,
)
from hummingbird_runtime.errors import ExecutionError
from hummingbird_runtime.guidance import guidance_embedding
from hummingbird_runtime.noise import noise
from hummingbird_runtime.sampler import sample
from hummingbird_runtime.schedule import SchedulerConfig

LCM = SchedulerConfig()
SETTINGS = Settings(LCM, (4, 3, 8, 8), guidance_dim=16, guidance=5.0, fps=12)
CASE = Case(np.full((1, 5, 6), 0.5, np.float32), seed=7)


def network(feeds) -> np.ndarray:
    return (0.3 * feeds["sample"] + feeds["encoder_hidden_states"].mean()).astype(np.float32)


def test_the_recorded_inputs_are_what_a_graph_takes() -> None:
    run = trajectory(network, CASE, SETTINGS)
    assert [int(feeds["timestep"]) for feeds in run.feeds] == [999, 759, 519, 279]
    first = run.feeds[0]
    np.testing.assert_array_equal(first["sample"], noise(7, 0, 3, 4, 8, 8))
    np.testing.assert_array_equal(first["timestep_cond"], guidance_embedding(5.0, 16))
    assert first["fps"].tolist() == [12]
    assert {name: str(array.dtype) for name, array in first.items()} == {
        "sample": "float32",
        "timestep": "int64",
        "encoder_hidden_states": "float32",
        "fps": "int64",
        "timestep_cond": "float32",
    }


def test_the_latent_is_the_runtimes_last_denoised() -> None:
    def denoise(x: np.ndarray, t: int) -> np.ndarray:
        return (0.3 * x + np.float32(0.5)).astype(np.float32)

    states = list(
        sample(denoise, noise(7, 0, 3, 4, 8, 8), LCM, 4, lambda i: noise(7, 1 + i, 3, 4, 8, 8))
    )
    np.testing.assert_array_equal(final_latent(network, CASE, SETTINGS), states[-1].denoised)


def test_classifier_free_guidance_asks_twice_and_mixes() -> None:
    negative = np.full((1, 5, 6), -0.5, np.float32)
    settings = replace(SETTINGS, negative=negative, guidance=3.0, guidance_dim=None)
    run = trajectory(network, CASE, settings)
    assert len(run.feeds) == 8
    assert "timestep_cond" not in run.feeds[0]
    asked = [float(feeds["encoder_hidden_states"].mean()) for feeds in run.feeds]
    assert asked == [0.5, -0.5] * 4
    # -0.5 + 3 (0.5 + 0.5) = 2.5: the same as one network with that constant
    alone = final_latent(network, Case(np.full((1, 5, 6), 2.5, np.float32), 7), SETTINGS)
    np.testing.assert_allclose(run.latent, alone, rtol=1e-4, atol=1e-4)


def test_cases_differ_in_prompt_and_seed_and_are_repeatable() -> None:
    cases = random_cases(3, 5, 6, seed=4)
    assert [case.seed for case in cases] == [4, 5, 6]
    assert len({case.context.tobytes() for case in cases}) == 3
    np.testing.assert_array_equal(cases[2].context, random_cases(3, 5, 6, seed=4)[2].context)


def test_a_latent_that_is_not_finite_is_refused() -> None:
    with pytest.raises(ExecutionError, match="latent after step 1 of 4") as caught:
        final_latent(lambda feeds: network(feeds) * np.float32(np.inf), CASE, SETTINGS)
    assert caught.value.code == "numeric.non_finite"
