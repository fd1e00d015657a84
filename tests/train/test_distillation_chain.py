"""Both stages on data whose perfect denoiser is known: the 4-step student beats its teacher.

Latents are single numbers, a normal around -1 or +1. The teacher is the exact conditional mean, so
whatever the student gains at four steps comes from the consistency stage.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hummingbird_runtime.sampler import sample
from hummingbird_train.base import world_schedule
from hummingbird_train.consistency import (
    ConsistencyConfig,
    ConsistencyObjective,
    student_schedule,
)
from hummingbird_train.diffusion import ForwardProcess
from hummingbird_train.distillation import DistillationConfig, DistillationObjective
from hummingbird_train.models.unet import UNetConfig
from hummingbird_train.recipe import Phase

SIGMA = 0.1
SCHEDULE = world_schedule()
PHASE = Phase("chain", steps=1, batch=256, learning_rate=0.0)
SHAPE = replace(UNetConfig.tiny(), time_cond_proj_dim=None)  # one guidance scale, none embedded
NUMBERS = ConsistencyConfig(form="cfg", guidance=(1.0, 1.0), student_steps=4, substeps=8)


def contexts(prompts: Sequence[str]) -> Tensor:
    """Empty ones: nothing is asked for."""
    return torch.zeros(len(prompts), 1, 1)


class TwoModes:
    """Latents of one number each."""

    scaling_factor = 1.0
    fps = 8

    def __len__(self) -> int:
        return 1

    def sample(
        self, rng: np.random.Generator, count: int, frames: int, stride: int
    ) -> tuple[Tensor, np.ndarray, list[str]]:
        x = rng.choice([-1.0, 1.0], count) + SIGMA * rng.standard_normal(count)
        latents = torch.from_numpy(x.astype(np.float32)).view(-1, 1, 1, 1, 1)
        return latents, np.zeros((count, frames), np.int64), ["a"] * count


class ExactTeacher(nn.Module):
    """Velocity of E[x_0 | x_t] for the two modes."""

    tables = ForwardProcess(SCHEDULE)

    def forward(self, sample: Tensor, timestep: Tensor, context: Tensor, **_: Any) -> Tensor:
        a, s = self.tables.coefficients(timestep.expand(len(sample)))
        variance = a**2 * SIGMA**2 + s**2
        share = torch.sigmoid(2 * a * sample / variance)  # of the mode at +1
        mean = 2 * share - 1
        x_0 = mean + a * SIGMA**2 / variance * (sample - a * mean)
        return (a * sample - x_0) / s


class Student(nn.Module):
    """A small network of x_t and t."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(10, 96), nn.SiLU(), nn.Linear(96, 96), nn.SiLU(), nn.Linear(96, 1)
        )

    def forward(self, sample: Tensor, timestep: Tensor, context: Tensor, **_: Any) -> Tensor:
        x = sample.view(-1, 1)
        t = timestep.expand(len(x)).view(-1, 1) / 1000
        waves = [f(k * torch.pi * t) for k in (1, 2, 4) for f in (torch.sin, torch.cos)]
        features = torch.cat([x, x * t, x.clamp(-1, 1), t, *waves], dim=1)
        return self.layers(features).view_as(sample)


def fit(objective: Any, steps: int, rate: float) -> None:
    optimizer = torch.optim.Adam(objective.unet.parameters(), lr=rate)
    for step in range(steps):
        loss, _ = objective.loss(PHASE, False, np.random.default_rng([7, step]))
        for group in optimizer.param_groups:
            group["lr"] = rate * (1 - step / steps)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def drawn(net: nn.Module) -> np.ndarray:
    """2000 numbers from four steps of the shipped sampler, sorted."""
    rng = np.random.default_rng(11)
    noises = rng.standard_normal((4, 2000, 1, 1, 1, 1)).astype(np.float32)
    context = contexts(["a"])

    def denoise(x_t: np.ndarray, t: int) -> np.ndarray:
        with torch.no_grad():
            return net(torch.from_numpy(x_t), torch.tensor([t]), context).numpy()

    scheduler = student_schedule(SCHEDULE, NUMBERS)
    states = list(sample(denoise, noises[3], scheduler, 4, lambda i: noises[i]))
    return np.sort(states[-1].denoised.ravel())


def distance(values: np.ndarray) -> float:
    """Wasserstein-1 distance to the data, between sorted samples."""
    rng = np.random.default_rng(12)
    n = len(values)
    data = np.repeat([-1.0, 1.0], n // 2) + SIGMA * rng.standard_normal(n)
    return float(np.abs(values - np.sort(data)).mean())


@pytest.mark.slow
def test_the_chain_makes_a_better_sampler_of_four_steps_than_its_teacher() -> None:
    torch.manual_seed(0)
    student, teacher = Student(), ExactTeacher()
    parts = (student, SHAPE, teacher, SHAPE, contexts, TwoModes(), SCHEDULE)
    free = distance(drawn(teacher))
    fit(DistillationObjective(*parts, DistillationConfig(guidance=(1.0, 1.0))), 600, 4e-3)
    copied = distance(drawn(student))
    fit(ConsistencyObjective(*parts, NUMBERS), 600, 2e-3)
    distilled = distance(drawn(student))
    # Stage 1 makes a copy, about as good as the teacher; stage 2 more than halves the distance.
    assert abs(copied - free) < 0.5 * free, (free, copied, distilled)
    assert distilled < 0.5 * free, (free, copied, distilled)
