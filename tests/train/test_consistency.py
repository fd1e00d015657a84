"""Consistency distillation in closed form: every number beside its formula in NumPy float64."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from affine_networks import AffineUNet, FixedClips, alphas, close, contexts
from torch import Tensor, nn

from hummingbird_runtime.errors import UsageError
from hummingbird_runtime.sampler import sample
from hummingbird_runtime.schedule import SchedulerConfig
from hummingbird_train.base import world_schedule
from hummingbird_train.consistency import (
    ConsistencyConfig,
    ConsistencyObjective,
    ConsistencyTerms,
    boundary_scalings,
    student_schedule,
)
from hummingbird_train.diffusion import ForwardProcess
from hummingbird_train.guided_teacher import embed
from hummingbird_train.models.unet import UNetConfig
from hummingbird_train.recipe import Phase

PHASE = Phase("few", steps=1, batch=6, learning_rate=0.0, frames=2, stride=3)
WORLD = world_schedule()
PUBLISHED = SchedulerConfig()  # epsilon, no zero-SNR rescale
PAPER = ConsistencyConfig()
TINY = replace(PAPER, form="cfg", guidance=(1.0, 4.0), student_steps=4, substeps=3)


def objective(
    schedule: SchedulerConfig = WORLD,
    config: ConsistencyConfig = PAPER,
    *,
    student: nn.Module | None = None,
    teacher: nn.Module | None = None,
    clips: FixedClips | None = None,
    **options: Any,
) -> ConsistencyObjective:
    shape = replace(UNetConfig.tiny(), time_cond_proj_dim=8)
    return ConsistencyObjective(
        student or AffineUNet(0.3, -0.2, 0.5, 0.7),
        shape,
        teacher or AffineUNet(-0.4, 0.6, 0.1),
        shape,
        contexts,
        clips or FixedClips(None),
        schedule,
        config,
        **options,
    )


def losses(made: ConsistencyObjective, seed: int = 0) -> ConsistencyTerms:
    return made.losses(PHASE, False, np.random.default_rng(seed))


def test_the_shipped_scheduler_samples_the_trained_function() -> None:
    shipped = student_schedule(WORLD, TINY)
    assert (shipped.sampler, shipped.timestep_spacing) == ("lcm", "lcm_origin")
    assert shipped.prediction_type == "v_prediction"
    assert shipped.rescale_betas_zero_snr
    made = objective(config=TINY)
    net = AffineUNet(0.3, -0.2, 0.5)
    context = contexts(["a prompt"])
    conditions = {"fps": torch.tensor([8])}
    seen: list[tuple[np.ndarray, int]] = []

    def denoise(x_t: np.ndarray, t: int) -> np.ndarray:
        seen.append((x_t, t))
        with torch.no_grad():
            return net(torch.from_numpy(x_t), torch.tensor([t]), context, **conditions).numpy()

    rng = np.random.default_rng(3)
    noises = rng.standard_normal((5, 1, 2, 2, 3, 3)).astype(np.float32)
    states = list(sample(denoise, noises[4], shipped, 4, lambda i: noises[i]))
    for (x_t, t), state in zip(seen, states, strict=True):
        got = made.clean(net, torch.from_numpy(x_t), torch.tensor([t]), context, conditions)
        close(got, state.denoised.astype(np.float64))


@pytest.mark.parametrize(
    ("schedule", "config"),
    [
        (PUBLISHED, PAPER),
        (WORLD, PAPER),
        (WORLD, replace(PAPER, form="cfg", guidance=(1.0, 4.0))),
        (WORLD, TINY),
        (PUBLISHED, replace(PAPER, form="embedded", skip=2)),
    ],
    ids=["published", "v, zero SNR", "cfg", "four steps, substeps", "embedded"],
)
def test_student_target_and_loss(schedule: SchedulerConfig, config: ConsistencyConfig) -> None:
    """From the student's recorded input on, everything again in NumPy."""
    made = objective(schedule, config)
    terms = losses(made)
    student, target = made.unet.calls
    assert len(made.teacher.unet.calls) == (1 if config.form == "embedded" else 2) * config.substeps
    alpha = alphas(schedule)
    x = student["x_t"].double().numpy()
    start = terms.t.numpy()
    assert np.array_equal(student["t"].numpy(), start)
    w = terms.w.numpy()
    assert ((w >= config.guidance[0]) & (w <= config.guidance[1])).all()
    text = np.array([len(p) / 10 for p in terms.prompts])

    def wide(values: np.ndarray) -> np.ndarray:
        return np.asarray(values, float).reshape(-1, 1, 1, 1, 1)

    def embedding_mean(scales: np.ndarray) -> np.ndarray:
        row = embed(torch.from_numpy(scales), 8)
        assert row is not None
        return row.double().numpy().mean(1)

    def both(output: np.ndarray, z: np.ndarray, t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        a, s = wide(np.sqrt(alpha[t])), wide(np.sqrt(1 - alpha[t]))
        if schedule.prediction_type == "epsilon":
            return (z - s * output) / a, output
        return a * z - s * output, s * z + a * output

    def clean(z: np.ndarray, t: np.ndarray) -> np.ndarray:
        output = 0.3 * z - 0.2 * wide(text) + 0.5 * wide(t) / 1000 + 0.7 * wide(embedding_mean(w))
        u = 10.0 * t
        x_0, _ = both(output, z, t)
        return wide(0.25 / (u**2 + 0.25)) * z + wide(u / np.sqrt(u**2 + 0.25)) * x_0

    # Guided teacher: output = -0.4 z + 0.6 text + 0.1 t / 1000; the empty prompt's text is 0.
    factor = {"cfg": w, "lcm": 1 + w, "embedded": np.ones_like(w)}[config.form]
    row = made.grid.starts.tolist()
    way = np.stack([made.grid.way[row.index(t)].numpy() for t in start])
    z = x
    for t, lower in zip(way.T[:-1], way.T[1:], strict=True):
        x_0, eps = both(-0.4 * z + 0.6 * wide(factor * text) + 0.1 * wide(t) / 1000, z, t)
        z = wide(np.sqrt(alpha[lower])) * x_0 + wide(np.sqrt(1 - alpha[lower])) * eps
    end = way[:, -1]
    assert np.array_equal(target["t"].numpy(), end)
    # Epsilon at the noisiest timesteps multiplies float32 rounding by up to 14.6, and guidance by
    # up to 16; velocity multiplies nothing.
    tolerance = 1e-4 if schedule.prediction_type == "epsilon" else 2e-6
    close(target["x_t"], z, tolerance)
    f, g = clean(x, start), clean(z, end)
    close(terms.x_0_student, f, tolerance)
    loss = (np.sqrt((f - g) ** 2 + 1e-6) - 1e-3).mean()
    assert terms.loss.item() == pytest.approx(loss, rel=1e-6)
    assert terms.numbers == {"clip": terms.loss.item()}


def test_inputs_are_noised_clips_with_their_conditions() -> None:
    """Equal draws on clips of 0 and of 1: the inputs differ by the signal at t."""
    zero, one = (objective(clips=FixedClips(value)) for value in (0.0, 1.0))
    terms, _ = losses(zero, 4), losses(one, 4)
    a = np.sqrt(alphas(WORLD)[terms.t.numpy()]).reshape(-1, 1, 1, 1, 1)
    difference = one.unet.calls[0]["x_t"] - zero.unet.calls[0]["x_t"]
    close(difference, np.broadcast_to(a, difference.shape))
    noise = zero.unet.calls[0]["x_t"].double().numpy() / np.sqrt(1 - a**2)
    assert abs(noise.std() - 1) < 0.1  # 216 normal numbers: within 2 standard errors
    for call in (*zero.unet.calls, *zero.teacher.unet.calls):
        assert (call["fps"] == 8).all()  # 24 a second at stride 3, for every pass
    embedded = [call["timestep_cond"] for call in zero.unet.calls]
    assert torch.equal(embedded[0], embedded[1])
    assert torch.equal(embedded[0], embed(terms.w, 8))
    none = embed(torch.ones(6), 8)
    assert all(torch.equal(c["timestep_cond"], none) for c in zero.teacher.unet.calls)


def test_timesteps_and_scales_cover_their_ranges() -> None:
    made = objective()
    drawn = [losses(made, seed) for seed in range(80)]
    t = torch.cat([d.t for d in drawn])
    assert set(t.tolist()) == set(range(19, 1000, 20))
    w = torch.cat([d.w for d in drawn])
    assert w.min() < 5.1 < 14.9 < w.max()
    assert torch.equal(losses(made, 3).x_0_student, drawn[3].x_0_student)  # by the generator alone


class PerfectPoint(nn.Module):
    """The velocity of data that is one point: v = a eps - s mu with eps = (x - a mu) / s."""

    def __init__(self, mu: float) -> None:
        super().__init__()
        self.mu = nn.Parameter(torch.tensor(mu))
        self.tables = ForwardProcess(WORLD)

    def forward(self, sample: Tensor, timestep: Tensor, context: Tensor, **_: Any) -> Tensor:
        a, s = self.tables.coefficients(timestep)
        return a * (sample - a * self.mu) / s - s * self.mu


class PerfectNormal(nn.Module):
    """Velocity of data N(0, sigma^2), or with ``exact`` of its probability flow's end at t = 0."""

    def __init__(self, sigma: float, *, exact: bool) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.0))
        self.sigma, self.exact, self.tables = sigma, exact, ForwardProcess(WORLD)

    def forward(self, sample: Tensor, timestep: Tensor, context: Tensor, **_: Any) -> Tensor:
        a, s = self.tables.coefficients(timestep)
        variance = a**2 * self.sigma**2 + s**2
        x_0 = a * self.sigma**2 / variance * sample
        if self.exact:
            a_0, s_0 = self.tables.coefficients(torch.zeros_like(timestep))
            x_0 = ((a_0**2 * self.sigma**2 + s_0**2) / variance).sqrt() * sample
        return self.scale * (a * sample - x_0) / s


def test_perfect_networks_of_one_point_agree_with_themselves() -> None:
    """Both see the point: the loss is the boundary term alone, about 7e-6 of x at t = 19."""
    made = objective(student=PerfectPoint(0.7), teacher=PerfectPoint(0.7))
    made.grid.starts, made.grid.way = made.grid.starts[1:], made.grid.way[1:]  # t = 19 ends at x_t
    terms = losses(made)
    assert terms.loss.item() < 1e-8
    wrong = objective(student=PerfectPoint(0.6), teacher=PerfectPoint(0.7))
    wrong.grid.starts, wrong.grid.way = wrong.grid.starts[1:], wrong.grid.way[1:]
    # The same wrong point everywhere is consistent too: only t = 19 -> 0 says which is right.
    assert losses(wrong).loss.item() < 1e-8
    bound = objective(
        config=replace(PAPER, student_steps=1),
        student=PerfectPoint(0.6),
        teacher=PerfectPoint(0.7),
    )
    x_end = math.sqrt(alphas(WORLD)[0]) * 0.7
    got = losses(bound)
    assert (got.x_0_student - 0.6).abs().max().item() < 1e-5
    # f of t = 999 is 0.6, the target sqrt(a_0) 0.7 + sqrt(1 - a_0) eps: 0.1 apart on average
    assert got.loss.item() == pytest.approx(abs(x_end - 0.6), abs=0.01)


def test_perfect_networks_of_a_normal_agree_ever_better_on_finer_grids() -> None:
    """The student is the exact flow; what is left is the solver's error, of second order."""
    found = []
    for steps in (25, 50, 100, 200):
        made = objective(
            config=replace(PAPER, solver_steps=steps, huber_c=1.0),
            student=PerfectNormal(0.6, exact=True),
            teacher=PerfectNormal(0.6, exact=False),
        )
        pairs = made.grid.timesteps > 200  # near t = 0 the schedule's own steps are coarse
        made.grid.starts, made.grid.way = made.grid.starts[pairs], made.grid.way[pairs]
        found.append(np.mean([losses(made, seed).loss.item() for seed in range(4)]))
    assert found[1] < 1e-5
    # Huber with c = 1 is quadratic here, the error per step quadratic in its length: 2^4 = 16 a
    # halving; 8 leaves room for the step at t = 999, where the schedule ends abruptly.
    assert all(a / b > 8 for a, b in pairwise(found)), found


def test_gradients_reach_the_student_alone() -> None:
    made = objective()
    terms = losses(made)
    assert [call["grad"] for call in made.unet.calls] == [True, False]
    assert not any(call["grad"] for call in made.teacher.unet.calls)
    assert terms.x_0_student.requires_grad
    assert not terms.context.requires_grad
    terms.loss.backward()
    assert all(p.grad is not None and p.grad != 0 for p in made.unet.parameters())
    assert all(p.grad is None for p in made.teacher.unet.parameters())


def test_the_gradient_treats_the_target_as_a_constant() -> None:
    made = objective()
    terms = losses(made)
    terms.loss.backward()
    student, target = made.unet.calls
    with torch.no_grad():
        g = made.clean(
            made.unet, target["x_t"], target["t"], terms.context, terms.conditions
        ).double()
        x, t = student["x_t"].double(), student["t"]
    f = terms.x_0_student.detach().double()
    # df/dp of f = c_skip x + c_out (a x - s p x): -c_out s x
    s = torch.from_numpy(np.sqrt(1 - alphas(WORLD)[t.numpy()])).view(-1, 1, 1, 1, 1)
    c_out = boundary_scalings(t)[1].double().view(-1, 1, 1, 1, 1)
    d = f - g
    expected = (d / (d**2 + 1e-6).sqrt() * (-c_out * s * x)).mean()
    assert made.unet.p.grad.item() == pytest.approx(float(expected), rel=1e-4)


def test_only_named_parameters_are_trained() -> None:
    made = objective(trainable=["p", "k*"])
    losses(made).loss.backward()
    assert {n for n, p in made.unet.named_parameters() if p.grad is not None} == {"p", "k"}
    with pytest.raises(UsageError) as caught:
        objective(trainable=["p", "lora*"])
    assert caught.value.code == "train.parameters"


def test_an_averaged_target_follows_the_student_and_is_resumed() -> None:
    config = replace(PAPER, target_decay=0.75)
    made = objective(config=config)
    assert made.target is not None
    with torch.no_grad():
        made.unet.p.fill_(1.3)
    losses(made)
    assert made.target.p.item() == pytest.approx(0.75 * 0.3 + 0.25 * 1.3)
    assert len(made.unet.calls) == len(made.target.calls) == 1
    other = objective(config=config)
    other.load_state({n: t.detach().clone() for n, t in made.state().items()})
    assert other.target is not None
    assert other.target.p.item() == made.target.p.item()
    assert objective().state() == {}


def test_a_range_of_guidance_needs_an_embedding() -> None:
    shape = replace(UNetConfig.tiny(), time_cond_proj_dim=None)
    arguments = (contexts, FixedClips(None), WORLD)
    nets = AffineUNet(0.1, 0.1, 0.1), shape, AffineUNet(0.1, 0.1, 0.1), shape
    with pytest.raises(UsageError) as caught:
        ConsistencyObjective(*nets, *arguments, PAPER)
    assert caught.value.code == "train.guidance"
    one = ConsistencyObjective(*nets, *arguments, replace(PAPER, guidance=(2.0, 2.0)))
    losses(one)
    assert one.unet.calls[0]["timestep_cond"] is None
    with pytest.raises(UsageError):
        ConsistencyObjective(
            *nets, *arguments, replace(PAPER, guidance=(2.0, 2.0), form="embedded")
        )
