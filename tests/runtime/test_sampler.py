"""The solvers against trajectories of the published implementations, and against closed forms."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import safetensors_file

from hummingbird_runtime.sampler import StepState, ddim_step, lcm_step, sample
from hummingbird_runtime.schedule import (
    DynamicRescale,
    SchedulerConfig,
    alphas_cumprod,
    boundary_scalings,
    timesteps,
    to_x0_eps,
)

DATA = Path(__file__).parent / "data"
DDIM = SchedulerConfig(
    sampler="ddim", timestep_spacing="leading+1", dynamic_rescale=DynamicRescale()
)
ZERO_SNR = SchedulerConfig(
    prediction_type="v_prediction",
    rescale_betas_zero_snr=True,
    timestep_spacing="trailing",
    sampler="ddim",
)


def fake_network(x: np.ndarray, t: int) -> np.ndarray:
    return (0.6 * x + 0.3 * np.sin(3 * x + t / 100)).astype(np.float32)


def relative(got: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(got - expected) / np.linalg.norm(expected))


def replay(file: str, prefix: str, config: SchedulerConfig) -> tuple[list[StepState], dict]:
    stored = {
        name.removeprefix(prefix): array
        for name, array in safetensors_file.read(DATA / file).items()
        if name.startswith(prefix)
    }
    count = len(stored["timesteps"])
    noise = stored["step_noise"]
    states = list(sample(fake_network, stored["initial_noise"], config, count, noise.__getitem__))
    return states, stored


@pytest.mark.parametrize("count", [1, 2, 4])
def test_lcm_retraces_the_published_trajectory(count: int) -> None:
    states, stored = replay("lcm_scheduler.safetensors", f"steps{count}.", SchedulerConfig())
    assert [state.timestep for state in states] == stored["timesteps"].tolist()
    for state, denoised in zip(states, stored["denoised"], strict=True):
        assert relative(state.denoised, denoised) < 1e-6
    for state, x_next in zip(states[:-1], stored["prev_samples"], strict=False):
        assert relative(state.x_t, x_next) < 1e-6


def test_lcm_step_equals_the_published_last_step_too() -> None:
    """Upstream re-noises after its last step and throws that away; the step function can, too."""
    states, stored = replay("lcm_scheduler.safetensors", "steps4.", SchedulerConfig())
    x_t, t = stored["prev_samples"][2], 279
    alpha = float(alphas_cumprod(SchedulerConfig())[t])
    x_0, _ = to_x0_eps(fake_network(x_t, t), x_t, alpha, "epsilon")
    x_next, denoised = lcm_step(x_0, x_t, t, alpha, stored["step_noise"][3], SchedulerConfig())
    assert relative(x_next, stored["prev_samples"][3]) < 1e-6
    assert relative(denoised, states[3].denoised) < 1e-6


@pytest.mark.parametrize(("prefix", "eta"), [("steps5.eta0.0.", 0.0), ("steps10.eta1.0.", 1.0)])
def test_ddim_retraces_the_published_trajectory(prefix: str, eta: float) -> None:
    config = dataclasses.replace(DDIM, eta=eta)
    states, stored = replay("ddim_scheduler.safetensors", prefix, config)
    assert [state.timestep for state in states] == stored["timesteps"].tolist()
    for state, x_0, x_next in zip(states, stored["pred_x0"], stored["prev_samples"], strict=True):
        assert relative(state.denoised, x_0) < 1e-5
        assert relative(state.x_t, x_next) < 1e-5


@pytest.mark.parametrize("count", [1, 4, 8])
def test_ddim_with_a_perfect_v_network_walks_the_straight_line(count: int) -> None:
    """For one data point x* the ideal v is a eps - s x*; then x stays a' x* + s' x_T."""
    rng = np.random.default_rng(0)
    x_T = rng.normal(size=(1, 4, 3, 4, 4)).astype(np.float32)
    target = rng.normal(size=x_T.shape).astype(np.float32)
    alphas = alphas_cumprod(ZERO_SNR)

    def network(x_t: np.ndarray, t: int) -> np.ndarray:
        a, s = math.sqrt(alphas[t]), math.sqrt(1 - alphas[t])
        eps = (x_t - a * target) / s
        return (a * eps - s * target).astype(np.float32)

    states = list(sample(network, x_T, ZERO_SNR, count, lambda i: pytest.fail("eta is 0")))
    landed = [*timesteps(ZERO_SNR, count)[1:], 0]
    for state, t in zip(states, landed, strict=True):
        line = math.sqrt(alphas[t]) * target + math.sqrt(1 - alphas[t]) * x_T
        # float32 rounding, magnified by 1/s = 5 at most on the last steps
        np.testing.assert_allclose(state.x_t, line, atol=2e-5)
        np.testing.assert_allclose(state.denoised, target, atol=2e-5)


@pytest.mark.parametrize("count", [1, 4, 8])
def test_ddim_on_gaussian_data_scales_by_the_closed_form(count: int) -> None:
    """Data N(0, c^2): E[x_0 | x_t] = k x_t, so every step multiplies by a' k + s' (1 - a k) / s."""
    c2, x_T = 0.25, np.linspace(-2, 2, 9, dtype=np.float32)
    alphas = alphas_cumprod(ZERO_SNR)

    def gain(t: int) -> tuple[float, float]:
        a, s = math.sqrt(alphas[t]), math.sqrt(1 - alphas[t])
        k = a * c2 / (alphas[t] * c2 + 1 - alphas[t])
        return k, (1 - a * k) / s

    def network(x_t: np.ndarray, t: int) -> np.ndarray:
        a, s = math.sqrt(alphas[t]), math.sqrt(1 - alphas[t])
        k, e = gain(t)
        return ((a * e - s * k) * x_t).astype(np.float32)

    steps, scale = timesteps(ZERO_SNR, count).tolist(), 1.0
    states = list(sample(network, x_T, ZERO_SNR, count, lambda i: pytest.fail("eta is 0")))
    for state, t, t_next in zip(states, steps, [*steps[1:], 0], strict=True):
        k, e = gain(t)
        np.testing.assert_allclose(state.denoised, k * scale * x_T, atol=1e-5)
        scale *= math.sqrt(alphas[t_next]) * k + math.sqrt(1 - alphas[t_next]) * e
        np.testing.assert_allclose(state.x_t, scale * x_T, atol=1e-5)


@pytest.mark.parametrize("count", [1, 4, 8])
def test_lcm_with_a_perfect_v_network_at_zero_snr(count: int) -> None:
    config = dataclasses.replace(ZERO_SNR, sampler="lcm")
    alphas = alphas_cumprod(config)
    rng = np.random.default_rng(1)
    x_T, target = rng.normal(size=(2, 4, 8)).astype(np.float32)
    noises = rng.normal(size=(count, 4, 8)).astype(np.float32)

    def network(x_t: np.ndarray, t: int) -> np.ndarray:
        a, s = math.sqrt(alphas[t]), math.sqrt(1 - alphas[t])
        return (a * (x_t - a * target) / s - s * target).astype(np.float32)

    steps, x_t = timesteps(config, count).tolist(), x_T
    for i, state in enumerate(sample(network, x_T, config, count, noises.__getitem__)):
        c_skip, c_out = boundary_scalings(config, steps[i])
        denoised = c_out * target + c_skip * x_t
        np.testing.assert_allclose(state.denoised, denoised, atol=1e-5)
        x_t = denoised
        if i + 1 < count:
            alpha = alphas[steps[i + 1]]
            x_t = math.sqrt(alpha) * denoised + math.sqrt(1 - alpha) * noises[i]
        np.testing.assert_allclose(state.x_t, x_t, atol=1e-5)


def test_noise_is_asked_for_only_when_it_is_used() -> None:
    asked: list[int] = []
    x = np.ones((2, 2), np.float32)

    def noise(i: int) -> np.ndarray:
        asked.append(i)
        return x

    list(sample(fake_network, x, SchedulerConfig(), 4, noise))
    assert asked == [0, 1, 2]
    asked.clear()
    list(sample(fake_network, x, DDIM, 3, noise))
    assert asked == []
    list(sample(fake_network, x, dataclasses.replace(DDIM, eta=1.0), 3, noise))
    assert asked == [0, 1, 2]


def test_the_loop_keeps_float32_and_leaves_its_input_alone() -> None:
    x_T = np.ones((2, 2), np.float32)
    for config in (SchedulerConfig(), DDIM):
        for state in sample(fake_network, x_T, config, 3, lambda i: x_T):
            assert state.x_t.dtype == state.denoised.dtype == np.float32
    assert (x_T == 1).all()


def test_ancestral_ddim_ignores_its_input_once_the_signal_is_gone() -> None:
    """At a = 0 and eta = 1 all noise is fresh: sigma^2 = 1 - a', so eps has no weight."""
    x_0, eps, z = np.ones(3), np.full(3, 7.0), np.full(3, 0.5)
    x_next, _ = ddim_step(x_0, eps, 0.0, 0.36, eta=1.0, noise=z)
    np.testing.assert_allclose(x_next, 0.6 * x_0 + 0.8 * z, rtol=1e-12)
