"""Pieces of consistency distillation beside their formulas in NumPy: terms, loss, solver grid."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from affine_networks import alphas, close

from hummingbird_runtime.errors import UsageError
from hummingbird_runtime.sampler import sample
from hummingbird_runtime.schedule import SchedulerConfig, timesteps
from hummingbird_train.base import world_schedule
from hummingbird_train.consistency import (
    ConsistencyConfig,
    SolverGrid,
    boundary_scalings,
    predicted_x0_eps,
    pseudo_huber,
    student_schedule,
)
from hummingbird_train.diffusion import ForwardProcess
from hummingbird_train.guided_teacher import embed

WORLD = world_schedule()
PUBLISHED = SchedulerConfig()  # epsilon, no zero-SNR rescale


def test_boundary_scalings() -> None:
    t = torch.tensor([0, 1, 19, 279, 999])
    c_skip, c_out = boundary_scalings(t)
    u = 10.0 * np.array([0, 1, 19, 279, 999])
    close(c_skip, 0.25 / (u**2 + 0.25))
    close(c_out, u / np.sqrt(u**2 + 0.25))
    assert (c_skip[0], c_out[0]) == (1.0, 0.0)  # the identity at t = 0
    c_skip, c_out = boundary_scalings(torch.tensor([2]), sigma_data=1.5, timestep_scaling=0.25)
    close(c_skip, np.array([2.25 / (0.25 + 2.25)]))
    close(c_out, np.array([0.5 / math.sqrt(2.5)]))


def test_pseudo_huber() -> None:
    a = torch.tensor([[0.0, 0.001, -0.5], [2.0, 1e-5, 0.0]])
    b = torch.tensor([[0.0, 0.0, 0.25], [-1.0, 0.0, 0.003]])
    d = np.array([0.0, 0.001, -0.75, 3.0, 1e-5, -0.003])
    for c in (1e-3, 0.5):
        expected = (np.sqrt(d**2 + c**2) - c).mean()
        close(pseudo_huber(a, b, c), expected, 1e-7)
    assert float(pseudo_huber(a, a)) == 0.0
    tiny = pseudo_huber(torch.tensor([1e-5]), torch.tensor([0.0]))
    # The plain form would leave two digits of 5e-8 in float32.
    assert float(tiny) == pytest.approx(math.sqrt(1e-10 + 1e-6) - 1e-3, rel=1e-5)


def test_w_embedding() -> None:
    w = torch.tensor([7.5, 5.0], dtype=torch.float64)
    row = embed(w, 256)
    assert row is not None
    # Published values of w = 7.5 at dims 0, 1, 64, 127, 128, 129, 192, 255.
    expected = [
        -.851236, .842131, -.072438, .681639, -.524783, .539273, -.997373, .731689
    ]  # fmt: skip
    close(row[0, [0, 1, 64, 127, 128, 129, 192, 255]], np.array(expected), 2e-6)
    rate = np.float32(math.log(10000.0)) / np.float32(127)
    # At thousands of radians the rounding is part of the definition: float32 products.
    exponent = (np.arange(128, dtype=np.float32) * -rate).astype(np.float64)
    angle = (np.float32(5000.0) * np.exp(exponent).astype(np.float32)).astype(np.float64)
    close(row[1], np.concatenate([np.sin(angle), np.cos(angle)]))
    assert embed(w, None) is None


@pytest.mark.parametrize("schedule", [WORLD, PUBLISHED], ids=["v, zero SNR", "epsilon"])
def test_clean_latent_and_noise_of_an_output(schedule: SchedulerConfig) -> None:
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((2, 3, 1, 2, 2, 2)).astype(np.float32)
    t = np.array([19, 519, 998])
    alpha = alphas(schedule)[t].reshape(-1, 1, 1, 1, 1)
    a, s = np.sqrt(alpha), np.sqrt(1 - alpha)
    x_0, eps = predicted_x0_eps(
        ForwardProcess(schedule), torch.from_numpy(y), torch.from_numpy(x), torch.from_numpy(t)
    )
    if schedule.prediction_type == "epsilon":
        # x_0 at t = 998 is 14.6 times the inputs: float32 keeps 1e-6 of that.
        close(x_0, (x - s * y) / a, 2e-5)
        close(eps, y)
    else:
        close(x_0, a * x - s * y)
        close(eps, s * x + a * y)


@pytest.mark.parametrize("schedule", [WORLD, PUBLISHED], ids=["zero SNR", "published"])
def test_ddim_step_to_the_next_lower_grid_timestep(schedule: SchedulerConfig) -> None:
    grid = SolverGrid(ForwardProcess(schedule))
    assert grid.timesteps.tolist() == list(range(19, 1000, 20))
    rng = np.random.default_rng(2)
    x_0, eps = rng.standard_normal((2, 4, 1, 2, 2, 2)).astype(np.float32)
    got = grid.ddim_step(torch.from_numpy(x_0), torch.from_numpy(eps), torch.tensor([0, 1, 25, 49]))
    alpha = alphas(schedule)[[0, 19, 499, 979]].reshape(-1, 1, 1, 1, 1)
    close(got, np.sqrt(alpha) * x_0 + np.sqrt(1 - alpha) * eps)


def test_pairs_of_the_grid() -> None:
    process = ForwardProcess(WORLD)
    paper = SolverGrid(process)
    assert torch.equal(paper.starts, paper.timesteps)
    assert paper.ends.tolist() == [0, *range(19, 980, 20)]
    assert paper.way.tolist() == [[a, b] for a, b in zip(paper.starts, paper.ends, strict=True)]
    skipping = SolverGrid(process, skip=3, substeps=3)
    assert skipping.way[:4].tolist()[2:] == [[59, 39, 20, 0], [79, 59, 39, 19]]
    tiny = SolverGrid(process, student_steps=4, substeps=3)
    assert tiny.way.tolist() == [
        [279, 186, 93, 0], [519, 439, 359, 279], [759, 679, 599, 519], [999, 919, 839, 759]
    ]  # fmt: skip


@pytest.mark.parametrize(
    "options", [{"steps": 0}, {"steps": 1001}, {"skip": 51}, {"student_steps": 51},
                {"substeps": 0}, {"substeps": 20}]
)  # fmt: skip
def test_grids_without_meaning_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(UsageError) as caught:
        SolverGrid(ForwardProcess(WORLD), **options)
    assert caught.value.code == "train.solver_grid"


@pytest.mark.parametrize("steps", [1, 2, 4, 8])
def test_trained_timesteps_are_those_of_the_sampler(steps: int) -> None:
    shipped = student_schedule(WORLD, ConsistencyConfig(student_steps=steps))
    visited: list[int] = []

    def denoise(x_t: np.ndarray, t: int) -> np.ndarray:
        visited.append(t)
        return x_t

    x = np.zeros((1, 1, 1, 1, 1), np.float32)
    list(sample(denoise, x, shipped, steps, lambda i: x))
    assert visited == timesteps(shipped, steps).tolist()
    grid = SolverGrid(ForwardProcess(WORLD), student_steps=steps)
    assert sorted(visited) == grid.starts.tolist()
    assert set(visited) <= set(SolverGrid(ForwardProcess(WORLD)).timesteps.tolist())
    if steps == 4:
        assert visited == [999, 759, 519, 279]
