"""Schedule tables against the published values, and their properties for every configuration."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hummingbird_runtime.errors import InputError
from hummingbird_runtime.schedule import (
    DynamicRescale,
    SchedulerConfig,
    alphas_cumprod,
    boundary_scalings,
    max_steps,
    rescale_factors,
    timesteps,
    to_x0_eps,
)

ZERO_SNR = SchedulerConfig(
    prediction_type="v_prediction",
    rescale_betas_zero_snr=True,
    timestep_spacing="trailing",
    sampler="ddim",
)
VIDEOCRAFTER2 = SchedulerConfig(
    timestep_spacing="leading+1", sampler="ddim", eta=1.0, dynamic_rescale=DynamicRescale()
)


def test_cumulative_alphas_have_the_published_values() -> None:
    published = {
        19: 0.982244, 159: 0.814990, 279: 0.625729, 399: 0.426086, 499: 0.277670,
        519: 0.251578, 639: 0.125911, 759: 0.0522129, 879: 0.0175342, 999: 0.00466010,
    }  # fmt: skip
    alphas = alphas_cumprod(SchedulerConfig())
    assert alphas.dtype == np.float64
    got = alphas[list(published)]
    np.testing.assert_allclose(got, list(published.values()), rtol=4e-6)  # six printed digits


@pytest.mark.parametrize(
    ("n", "expected"),
    [
        (1, [999]),
        (2, [999, 499]),
        (3, [999, 679, 359]),
        (4, [999, 759, 519, 279]),
        (5, [999, 799, 599, 399, 199]),
        (6, [999, 839, 679, 519, 359, 199]),
        (8, [999, 879, 759, 639, 519, 399, 279, 159]),
        (16, list(range(999, 98, -60))),
        (50, list(range(999, 18, -20))),
    ],
)
def test_lcm_timesteps_are_the_published_ones(n: int, expected: list[int]) -> None:
    assert timesteps(SchedulerConfig(), n).tolist() == expected


def test_videocrafter2_timesteps_are_the_published_ones() -> None:
    assert timesteps(VIDEOCRAFTER2, 50).tolist() == list(range(981, 0, -20))


def test_trailing_timesteps_follow_the_published_formula() -> None:
    for n in (1, 2, 4, 8, 25, 50, 250, 1000):
        formula = np.round(np.arange(1000, 0, -1000 / n)).astype(np.int64) - 1
        assert timesteps(ZERO_SNR, n).tolist() == formula.tolist()


@given(
    st.sampled_from(["lcm_origin", "trailing", "leading+1"]),
    st.integers(2, 1200),
    st.integers(1, 1200),
    st.data(),
)
def test_timesteps_fall_strictly_inside_the_training_range(
    spacing: str, total: int, origin: int, data: st.DataObject
) -> None:
    config = SchedulerConfig(
        num_train_timesteps=total,
        timestep_spacing=spacing,
        original_inference_steps=min(origin, total),
    )
    n = data.draw(st.integers(1, max_steps(config)))
    steps = timesteps(config, n)
    assert steps.dtype == np.int64
    assert steps.shape == (n,)
    assert (np.diff(steps) < 0).all()
    assert steps[0] < total
    assert steps[-1] >= 0


@pytest.mark.parametrize("n", [-1, 0, 51, 1001, 10**9])
def test_impossible_numbers_of_steps_are_refused(n: int) -> None:
    with pytest.raises(InputError, match=r"expected 1\.\.50") as caught:
        timesteps(SchedulerConfig(), n)
    assert caught.value.code == "request.steps"


def test_zero_snr_ends_without_signal_and_keeps_the_start() -> None:
    alphas, plain = alphas_cumprod(ZERO_SNR), alphas_cumprod(SchedulerConfig())
    assert alphas[-1] == 0.0
    assert alphas[0] == pytest.approx(plain[0], rel=1e-12)
    assert (np.diff(alphas) < 0).all()


@given(st.floats(0, 1), st.floats(-3, 3), st.floats(-3, 3))
def test_v_prediction_is_undone_exactly(alpha: float, x_0: float, eps: float) -> None:
    a, s = math.sqrt(alpha), math.sqrt(1 - alpha)
    got = to_x0_eps(a * eps - s * x_0, a * x_0 + s * eps, alpha, "v_prediction")
    np.testing.assert_allclose(got, (x_0, eps), atol=1e-14)  # a rotation: rounding only


@given(st.floats(1e-3, 1), st.floats(-3, 3), st.floats(-3, 3))
def test_eps_prediction_is_undone(alpha: float, x_0: float, eps: float) -> None:
    x_t = math.sqrt(alpha) * x_0 + math.sqrt(1 - alpha) * eps
    got = to_x0_eps(eps, x_t, alpha, "epsilon")
    np.testing.assert_allclose(got, (x_0, eps), atol=1e-12)  # division by sqrt(1e-3) magnifies


def test_conversions_keep_float32() -> None:
    x = np.ones(3, np.float32)
    for kind in ("epsilon", "v_prediction"):
        assert {y.dtype for y in to_x0_eps(x, x, np.float64(0.25), kind)} == {np.dtype("f4")}


def test_rescale_falls_from_one_to_its_base() -> None:
    factors = rescale_factors(VIDEOCRAFTER2)
    assert factors[0] == 1.0
    np.testing.assert_allclose(factors[[1, 399, 400, 999]], [1 - 0.3 / 399, 0.7, 0.7, 0.7])
    assert (rescale_factors(SchedulerConfig()) == 1.0).all()


def test_boundary_terms_are_the_consistency_functions() -> None:
    c_skip, c_out = boundary_scalings(SchedulerConfig(), 279)
    assert c_skip == pytest.approx(0.25 / (2790.0**2 + 0.25))
    assert c_out == pytest.approx(2790.0 / math.sqrt(2790.0**2 + 0.25))
    assert boundary_scalings(SchedulerConfig(), 0) == (1.0, 0.0)


@pytest.mark.parametrize("config", [SchedulerConfig(), ZERO_SNR, VIDEOCRAFTER2])
def test_a_configuration_survives_json(config: SchedulerConfig) -> None:
    data = json.loads(json.dumps(config.to_json()))
    assert SchedulerConfig.from_json({**data, "_class_name": "a note"}) == config


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"prediction_type": "epsilon", "rescale_betas_zero_snr": True}, "scheduler.invalid"),
        ({"eta": 0.5}, "scheduler.invalid"),
        ({"dynamic_rescale": {"base": 0.7, "turning_step": 400}}, "scheduler.invalid"),
        ({"sampler": "ddim", "dynamic_rescale": {"base": 0.0}}, "scheduler.invalid"),
        ({"sampler": "ddim", "dynamic_rescale": {"turning_step": 2000}}, "scheduler.invalid"),
        ({"sampler": "ddim", "eta": 1.5}, "scheduler.invalid"),
        ({"num_train_timesteps": 1}, "scheduler.invalid"),
        ({"beta_start": 0.5, "beta_end": 0.1}, "scheduler.invalid"),
        ({"beta_end": 1.0}, "scheduler.invalid"),
        ({"original_inference_steps": 0}, "scheduler.invalid"),
        ({"sigma_data": 0.0}, "scheduler.invalid"),
        ({"timestep_scaling": -1.0}, "scheduler.invalid"),
        ({"sampler": "euler"}, "bundle.manifest_invalid"),
        ({"num_train_timesteps": True}, "bundle.manifest_invalid"),
        ({"beta_end": "0.012"}, "bundle.manifest_invalid"),
        ({"betas": 3}, "bundle.manifest_invalid"),
    ],
)
def test_meaningless_configurations_are_refused(changes: dict, code: str) -> None:
    with pytest.raises(InputError) as caught:
        SchedulerConfig.from_json(changes)
    assert caught.value.code == code
    assert caught.value.hint


def test_nan_is_no_beta() -> None:
    with pytest.raises(InputError, match="beta"):
        SchedulerConfig(beta_start=math.nan)
    with pytest.raises(InputError, match="sampler"):
        SchedulerConfig(sampler="euler")
