"""The loop: resuming is bit-equal, budgets pause, what is not finite enters nothing."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from training_runs import PHASES, Regression, regression, same, state

from hummingbird_runtime.errors import ExecutionError, InputError, ResourceError
from hummingbird_train.checkpoint import Checkpoints, save_state
from hummingbird_train.ema import MovingAverage
from hummingbird_train.loop import RunConfig, train
from hummingbird_train.optim import MuonAdam, OptimizerConfig
from hummingbird_train.progress import StepReport
from hummingbird_train.recipe import Phase


def test_a_paused_and_resumed_run_equals_an_unbroken_one_bit_for_bit(tmp_path: Path) -> None:
    assert regression(tmp_path / "whole")
    finished, pauses = False, 0
    while not finished:  # a budget of no time pauses after every step
        finished = regression(tmp_path / "pieces", minutes=0.0)
        pauses += 1
    assert pauses == 11
    assert same(state(tmp_path / "whole"), state(tmp_path / "pieces"))


@pytest.mark.parametrize(
    "options",
    [
        {"precision": "bf16"},
        {"precision": "fp16"},
        {"accumulate": 2},
        {"optimizer": OptimizerConfig(kind="adamw", weight_decay=0.1)},
    ],
    ids=["bf16", "fp16", "accumulated", "adamw"],
)
def test_so_it_is_whatever_the_settings(tmp_path: Path, options: dict[str, object]) -> None:
    assert regression(tmp_path / "whole", **options)
    for _ in range(3):
        assert not regression(tmp_path / "pieces", minutes=0.0, **options)
    assert regression(tmp_path / "pieces", **options)
    assert same(state(tmp_path / "whole"), state(tmp_path / "pieces"))


def test_dropout_is_part_of_the_step_not_of_the_process(tmp_path: Path) -> None:
    regression(tmp_path / "a")
    torch.manual_seed(99)
    torch.rand(17)
    regression(tmp_path / "b")
    regression(tmp_path / "none", objective=Regression(dropout=0.0))
    assert same(state(tmp_path / "a"), state(tmp_path / "b"))
    assert not same(state(tmp_path / "a"), state(tmp_path / "none"))


def test_phases_follow_each_other_and_mix_images_in(tmp_path: Path) -> None:
    objective = Regression()
    regression(tmp_path / "run", objective=objective)
    images = [False] * 6 + [True, False, True, False, True]
    assert objective.seen == list(zip(["one"] * 6 + ["two"] * 5, images, strict=True))


def test_the_state_of_version_0_1_resumes(tmp_path: Path) -> None:
    regression(tmp_path / "whole")
    old = tmp_path / "old"
    regression(tmp_path / "part", minutes=0.0)
    old.mkdir()
    groups, facts = Checkpoints(tmp_path / "part").load(1)
    names = {"weights": "live", "average": "average", "optimizer": "optimizer"}
    flat = {f"{names[g]}.{n}": t for g, table in groups.items() for n, t in table.items()}
    save_state(old / "state.safetensors", flat, {"step": facts["step"]})
    with pytest.raises(InputError, match="optimizer was muon, is adamw"):
        regression(old, optimizer=OptimizerConfig(kind="adamw"))
    objective = Regression()
    assert regression(old, objective=objective)
    assert len(objective.seen) == 10
    assert same(state(old), state(tmp_path / "whole"))


def test_a_non_finite_loss_raises_and_keeps_the_last_state(tmp_path: Path) -> None:
    regression(tmp_path / "run", minutes=0.0)
    before = state(tmp_path / "run")
    with pytest.raises(ExecutionError, match="step 3 of phase one") as caught:
        regression(tmp_path / "run", objective=Regression(fails_at=(2,)))
    assert caught.value.code == "train.non_finite"
    assert same(before, state(tmp_path / "run"))


def test_a_gradient_that_overflows_is_non_finite_too(tmp_path: Path) -> None:
    class Steep(Regression):
        def loss(self, *arguments):  # type: ignore[no-untyped-def]
            loss, numbers = super().loss(*arguments)
            # finite in value, infinite in slope
            return loss + (self.net[0].bias[0] * 0.0).abs().sqrt(), numbers

    with pytest.raises(ExecutionError, match=r"gradient norm (inf|nan)"):
        regression(tmp_path, objective=Steep())


def test_nothing_of_a_skipped_step_enters_weights_average_or_moments(tmp_path: Path) -> None:
    lines: list[str] = []
    objective = Regression(fails_at=(1, 3))
    assert regression(
        tmp_path / "run", (PHASES[0],), objective=objective, skip_non_finite=2, log=lines.append
    )
    # the same six steps with no optimiser step at 1 and 3, by hand
    twin = Regression()
    named = [(f"net.{n}", p) for n, p in twin.net.named_parameters()]
    optimizer, average = MuonAdam(named), MovingAverage(named, RunConfig().ema_decay)
    for step in range(6):
        if step in (1, 3):
            continue
        seeds = np.random.SeedSequence([5, step, 0, 1]).generate_state(1)
        torch.manual_seed(int(seeds[0]))
        loss, _ = twin.loss(PHASES[0], False, np.random.default_rng([5, step, 0]))
        for _, parameter in named:
            parameter.grad = None
        loss.backward()
        norm = float(torch.stack([p.grad.norm() for _, p in named]).norm())
        for _, parameter in named:
            parameter.grad *= min(1.0, 1.0 / (norm + 1e-6))
        optimizer.step(PHASES[0].rate(step))
        average.update(step)
    got = state(tmp_path / "run")
    assert all(torch.equal(got[f"weights/{n}"], p) for n, p in named)
    assert all(torch.equal(got[f"average/{n}"], t) for n, t in average.average.items())
    assert got["optimizer/step_count"] == 4
    assert sum("left out: loss nan" in line for line in lines) == 2


def test_skips_are_counted_over_resumes(tmp_path: Path) -> None:
    assert not regression(
        tmp_path, objective=Regression(fails_at=(0,)), skip_non_finite=1, minutes=0.0
    )
    with pytest.raises(ExecutionError, match="2 such steps, 1 allowed"):
        regression(tmp_path, objective=Regression(fails_at=(1,)), skip_non_finite=1)


def test_a_changed_past_is_refused_and_named(tmp_path: Path) -> None:
    for _ in range(7):
        regression(tmp_path, minutes=0.0)
    one, two = PHASES
    for phases, named in (
        ((dataclasses.replace(one, batch=8), two), "phase one: batch was 4, is 8"),
        ((dataclasses.replace(one, steps=7), two), "phase one: steps was 6, is 7"),
        ((one, dataclasses.replace(two, learning_rate=1.0)), "phase two: learning_rate"),
        ((one,), "phase two is gone"),
    ):
        with pytest.raises(InputError, match=named) as caught:
            regression(tmp_path, phases)
        assert caught.value.code == "train.recipe_changed"
    with pytest.raises(InputError, match=r"ema_decay was 0\.995, is 0\.9"):
        regression(tmp_path, ema_decay=0.9)


def test_the_last_phase_may_grow_and_phases_may_follow(tmp_path: Path) -> None:
    assert regression(tmp_path)
    one, two = PHASES
    three = Phase(name="three", steps=2, batch=1, learning_rate=1e-3)
    objective = Regression()
    assert regression(
        tmp_path, (one, dataclasses.replace(two, steps=6), three), objective=objective
    )
    assert [name for name, _ in objective.seen] == ["two", "three", "three"]


def test_other_weights_than_the_recipe_trains_are_refused(tmp_path: Path) -> None:
    regression(tmp_path, minutes=0.0)

    class Wider(Regression):
        def __init__(self) -> None:
            super().__init__()
            self.net.append(torch.nn.Linear(3, 3))

    with pytest.raises(InputError, match=r"2 trained tensors, the first net\.4\.bias") as caught:
        regression(tmp_path, objective=Wider())
    assert caught.value.code == "train.recipe_changed"


def test_an_objective_may_keep_a_state_of_its_own(tmp_path: Path) -> None:
    class Counting(Regression):
        total = torch.zeros(())

        def loss(self, *arguments):  # type: ignore[no-untyped-def]
            loss, numbers = super().loss(*arguments)
            self.total = self.total + loss.detach()
            return loss, numbers

        def state(self):  # type: ignore[no-untyped-def]
            return {"total": self.total}

        def load_state(self, tensors):  # type: ignore[no-untyped-def]
            self.total = tensors["total"]

    regression(tmp_path / "whole", objective=Counting())
    assert not regression(tmp_path / "pieces", objective=Counting(), minutes=0.0)
    assert regression(tmp_path / "pieces", objective=Counting())
    assert state(tmp_path / "whole")["objective/total"] > 0
    assert same(state(tmp_path / "whole"), state(tmp_path / "pieces"))


def test_samples_are_drawn_from_the_averages_and_disturb_nothing(tmp_path: Path) -> None:
    drawn: dict[int, torch.Tensor] = {}

    class Drawing(Regression):
        def samples(self, folder: Path, step: int) -> None:
            (folder / f"{step}.txt").write_text("x", "utf-8")
            drawn[step] = self.net[0].weight.clone()
            torch.rand(5)

    regression(tmp_path / "run", objective=Drawing(), samples_every=4)
    regression(tmp_path / "none")
    assert sorted(drawn) == [4, 8, 11]
    got = state(tmp_path / "run")
    assert torch.equal(drawn[11], got["average/net.0.weight"])
    assert not torch.equal(drawn[11], got["weights/net.0.weight"])
    assert same(got, state(tmp_path / "none"))
    assert len(list((tmp_path / "run" / "samples").iterdir())) == 3


def test_progress_and_log_tell_the_same(tmp_path: Path) -> None:
    lines: list[str] = []
    reports: list[StepReport] = []
    regression(tmp_path, log=lines.append, progress=reports.append, report_every=0.0)
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text("utf-8").splitlines()]
    assert [row["step"] for row in rows] == [r.step for r in reports] == list(range(1, 12))
    assert all(row["half"] == pytest.approx(row["loss"] / 2) for row in rows)
    assert [row["learning_rate"] for row in rows[:6]] == [PHASES[0].rate(n) for n in range(6)]
    assert lines[-1].startswith("two 11/11 loss ")
    assert (tmp_path / "loss.png").stat().st_size > 1000


def test_the_newest_states_stay(tmp_path: Path) -> None:
    regression(tmp_path, save_every=0.0, keep=3)
    assert Checkpoints(tmp_path).steps() == [9, 10, 11]
    assert {p.name for p in (tmp_path / "checkpoints").iterdir()} == {
        "step_000009", "step_000010", "step_000011"
    }  # fmt: skip


@pytest.mark.parametrize(
    "options",
    [{"precision": "int8"}, {"accumulate": 0}, {"keep": 0}, {"ema_decay": 1.5}],
    ids=lambda options: next(iter(options)),
)
def test_settings_out_of_range_are_named(options: dict[str, object]) -> None:
    with pytest.raises(InputError, match=next(iter(options))) as caught:
        RunConfig(**options)
    assert caught.value.code == "train.config"


def test_without_tensorboard_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "torch.utils.tensorboard", None)
    with pytest.raises(ResourceError, match="tensorboard") as caught:
        regression(tmp_path, tensorboard=True)
    assert caught.value.code == "extra.missing"


def test_the_loss_falls(tmp_path: Path) -> None:
    losses: list[float] = []

    class Watched(Regression):
        def loss(self, *arguments):  # type: ignore[no-untyped-def]
            loss, numbers = super().loss(*arguments)
            losses.append(float(loss.detach()))
            return loss, numbers

    phases = (Phase(name="long", steps=150, batch=32, learning_rate=1e-2, warmup=5),)
    train(Watched(), phases, tmp_path, config=RunConfig())
    assert np.mean(losses[-10:]) < 0.5 * np.mean(losses[:10])
