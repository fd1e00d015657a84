"""The bundle's sampler as a diffusers scheduler, against the runtime and diffusers' own solvers."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest

from hummingbird_runtime import InputError, SchedulerConfig, UsageError
from hummingbird_runtime.noise import noise
from hummingbird_runtime.sampler import sample
from hummingbird_runtime.scheduler_config import DynamicRescale

pytestmark = pytest.mark.interop

V_DDIM = SchedulerConfig(
    sampler="ddim",
    timestep_spacing="trailing",
    prediction_type="v_prediction",
    rescale_betas_zero_snr=True,
)
RESCALED = SchedulerConfig(
    sampler="ddim", timestep_spacing="leading+1", eta=1.0, dynamic_rescale=DynamicRescale()
)
CONFIGS = {"lcm": SchedulerConfig(), "v ddim": V_DDIM, "ancestral, rescaled": RESCALED}


def draw(i: int) -> np.ndarray:
    return noise(7, i, 2, 4, 3, 5)


def network(x, t: int):
    """Any smooth function of both arguments; NumPy arrays and tensors alike."""
    return 0.7 * x - 0.1 * x * x + 0.001 * t


def run(scheduler, steps: int, **extra):
    import torch

    scheduler.set_timesteps(steps)
    x_t = torch.from_numpy(draw(0)) * scheduler.init_noise_sigma
    for t in scheduler.timesteps:
        x_t = scheduler.step(network(x_t, int(t)), t, x_t, **extra).prev_sample
    return x_t.numpy()


@pytest.mark.parametrize("steps", [1, 4, 7])
@pytest.mark.parametrize("name", CONFIGS)
def test_steps_are_those_of_the_runtime(optimum: ModuleType, name: str, steps: int):
    import torch

    config = CONFIGS[name]
    *_, last = sample(network, draw(0), config, steps, lambda i: draw(1 + i))
    mine = run(
        optimum.BundleScheduler(config), steps, noise_fn=lambda i: torch.from_numpy(draw(1 + i))
    )
    np.testing.assert_allclose(mine, last.denoised, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("steps", [1, 4, 10])
def test_diffusers_ddim_from_its_config_takes_the_same_steps(optimum: ModuleType, steps: int):
    from diffusers import DDIMScheduler

    mine = optimum.BundleScheduler(V_DDIM)
    theirs = DDIMScheduler.from_config(mine.config)
    # 1000 alphas multiplied in float32 there, in float64 here
    np.testing.assert_allclose(run(theirs, steps), run(mine, steps), rtol=1e-4, atol=1e-4)
    assert mine.timesteps.tolist() == theirs.timesteps.tolist()


def test_diffusers_lcm_at_our_timesteps_takes_the_same_steps(
    optimum: ModuleType, monkeypatch: pytest.MonkeyPatch
):
    """diffusers' own choice of timesteps differs, so they are handed over, and so is the noise."""
    import torch
    from diffusers import LCMScheduler
    from diffusers.schedulers import scheduling_lcm

    mine = optimum.BundleScheduler(SchedulerConfig())
    expected = run(mine, 4, noise_fn=lambda i: torch.from_numpy(draw(1 + i)))
    theirs = LCMScheduler.from_config(mine.config)
    draws = iter(torch.from_numpy(draw(1 + i)) for i in range(3))
    monkeypatch.setattr(scheduling_lcm, "randn_tensor", lambda *_, **__: next(draws))
    choose = theirs.set_timesteps
    monkeypatch.setattr(theirs, "set_timesteps", lambda _: choose(timesteps=[999, 759, 519, 279]))
    # float32 alphas there; x0 at timestep 999 is a quotient by sqrt(alpha) = 0.07
    np.testing.assert_allclose(run(theirs, 4), expected, rtol=1e-4, atol=1e-4)
    assert next(draws, None) is None


def test_without_given_noise_a_generator_decides(optimum: ModuleType):
    import torch

    scheduler = optimum.BundleScheduler(SchedulerConfig())
    results = [run(scheduler, 4, generator=torch.Generator().manual_seed(s)) for s in (1, 1, 2)]
    assert np.array_equal(results[0], results[1])
    assert not np.array_equal(results[0], results[2])


def test_wrong_steps_are_refused(optimum: ModuleType):
    scheduler = optimum.BundleScheduler(SchedulerConfig())
    with pytest.raises(InputError) as caught:
        scheduler.set_timesteps(51)
    assert caught.value.code == "request.steps"
    scheduler.set_timesteps(4)
    x = draw(0)
    with pytest.raises(UsageError) as caught:
        scheduler.step(x, 500, x)
    assert caught.value.code == "interop.timestep"
