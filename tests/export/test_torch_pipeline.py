"""The torch oracle: published trajectories, closed-form constants, the runtime's embedding."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors_file
import torch

from hummingbird_export.random_models import LCM, TINY_DDIM, VIDEOCRAFTER2_DDIM
from hummingbird_export.torch_pipeline import guidance_sinusoids
from hummingbird_export.torch_sampler import cumulative_alphas, inference_times, sample
from hummingbird_runtime import schedule
from hummingbird_runtime.guidance import guidance_embedding
from hummingbird_runtime.schedule import SchedulerConfig

VECTORS = Path(__file__).parents[1] / "runtime" / "data"


def fake_network(x: torch.Tensor, t: int) -> torch.Tensor:
    return 0.6 * x + 0.3 * torch.sin(3 * x + t / 100)


@pytest.mark.parametrize(
    ("file", "prefix", "config", "result"),
    [
        ("lcm_scheduler.safetensors", "steps1.", LCM, "denoised"),
        ("lcm_scheduler.safetensors", "steps2.", LCM, "denoised"),
        ("lcm_scheduler.safetensors", "steps4.", LCM, "denoised"),
        ("ddim_scheduler.safetensors", "steps5.eta0.0.", replace(VIDEOCRAFTER2_DDIM, eta=0.0),
         "pred_x0"),
        ("ddim_scheduler.safetensors", "steps10.eta1.0.", VIDEOCRAFTER2_DDIM, "pred_x0"),
    ],
)  # fmt: skip
def test_solvers_retrace_the_published_trajectories(
    file: str, prefix: str, config: SchedulerConfig, result: str
):
    stored = {
        name.removeprefix(prefix): array.copy()
        for name, array in safetensors_file.read(VECTORS / file).items()
        if name.startswith(prefix)
    }
    steps = len(stored["timesteps"])
    assert inference_times(config, steps) == stored["timesteps"].tolist()
    noise = torch.from_numpy(stored["step_noise"])
    start = torch.from_numpy(stored["initial_noise"])
    cleans = sample(fake_network, start, config, steps, noise.__getitem__)
    for clean, expected in zip(cleans, torch.from_numpy(stored[result]), strict=True):
        # float32 states of both sides are rounded at different places
        assert torch.linalg.norm(clean - expected) <= 1e-5 * torch.linalg.norm(expected)


def test_cumulative_alphas_have_their_known_values():
    bar = cumulative_alphas(LCM)
    known = {19: 0.982244, 279: 0.625729, 519: 0.251578, 759: 0.0522129, 999: 0.00466010}
    for t, value in known.items():
        assert float(bar[t]) == pytest.approx(value, rel=2e-6)
    zero = cumulative_alphas(TINY_DDIM)
    assert float(zero[-1]) == 0.0
    assert float(zero[0]) == pytest.approx(float(bar[0]), rel=1e-12)


@pytest.mark.parametrize("config", [LCM, VIDEOCRAFTER2_DDIM, TINY_DDIM])
@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5, 8, 16, 50])
def test_both_implementations_agree_on_schedules(config: SchedulerConfig, steps: int):
    assert inference_times(config, steps) == schedule.timesteps(config, steps).tolist()
    np.testing.assert_allclose(
        cumulative_alphas(config).numpy(), schedule.alphas_cumprod(config), rtol=1e-12, atol=1e-15
    )


@pytest.mark.parametrize("w", [0.0, 1.0, 7.5, 12.25])
def test_both_implementations_agree_on_the_guidance_embedding(w: float):
    got = guidance_sinusoids(w, 256).numpy()
    # A last-bit difference of exp becomes up to 1e-3 radians at 7500 radians.
    np.testing.assert_allclose(got, guidance_embedding(w, 256), atol=1e-3)
    if w == 7.5:
        known = {0: -0.851236, 64: -0.072438, 128: -0.524783, 255: 0.731689}
        for dim, value in known.items():
            assert float(got[0, dim]) == pytest.approx(value, abs=1e-4)
