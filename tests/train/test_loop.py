"""The loop: resuming is bit-equal, budgets pause, a non-finite loss stops with the state kept."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hummingbird_runtime.errors import ExecutionError, InputError
from hummingbird_train.checkpoint import load_state
from hummingbird_train.loop import RunConfig, train
from hummingbird_train.recipe import Phase

PHASES = (
    Phase(name="one", steps=6, batch=4, learning_rate=1e-2, warmup=2),
    Phase(name="two", steps=5, batch=4, learning_rate=5e-3, images_every=2, images_batch=2),
)


class Regression:
    """A two-layer network on random data; NaN from a chosen step on."""

    def __init__(self, *, fails_at: int | None = None) -> None:
        torch.manual_seed(3)
        self.net = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3))
        self.modules: Mapping[str, nn.Module] = {"net": self.net}
        self.calls, self.fails_at = 0, fails_at
        self.seen: list[tuple[str, bool]] = []

    def loss(
        self, phase: Phase, images: bool, rng: np.random.Generator
    ) -> tuple[Tensor, dict[str, float]]:
        count = phase.images_batch if images else phase.batch
        self.seen.append((phase.name, images))
        x = torch.from_numpy(rng.standard_normal((count, 5)).astype(np.float32))
        loss = (self.net(x) - x[:, :3]).square().mean()
        if self.calls == self.fails_at:
            loss = loss * float("nan")
        self.calls += 1
        return loss, {}

    def save(self, folder: Path, weights: Mapping[str, Tensor]) -> None:
        (folder / "saved").write_text(str(len(weights)), "utf-8")


def state(folder: Path) -> dict[str, Tensor]:
    return load_state(folder / "state.safetensors")[0]


def run(folder: Path, objective: Regression, **options: float) -> bool:
    folder.mkdir(exist_ok=True)
    return train(objective, PHASES, folder, config=RunConfig(seed=5), **options)


def test_a_paused_and_resumed_run_equals_an_unbroken_one_bit_for_bit(tmp_path: Path) -> None:
    assert run(tmp_path / "whole", Regression())
    finished, pauses = False, 0
    while not finished:  # a budget of no time pauses after every step, in a fresh process's state
        finished = run(tmp_path / "pieces", Regression(), minutes=0.0)
        pauses += 1
    assert pauses == 11
    whole, pieces = state(tmp_path / "whole"), state(tmp_path / "pieces")
    assert whole.keys() == pieces.keys()
    for name, tensor in whole.items():
        assert torch.equal(tensor, pieces[name]), name


def test_phases_follow_each_other_and_mix_images_in(tmp_path: Path) -> None:
    objective = Regression()
    run(tmp_path / "run", objective)
    images = [False] * 6 + [True, False, True, False, True]
    assert objective.seen == list(zip(["one"] * 6 + ["two"] * 5, images, strict=True))


def test_a_non_finite_loss_raises_and_keeps_the_last_state(tmp_path: Path) -> None:
    run(tmp_path / "run", Regression(), minutes=0.0)
    before = state(tmp_path / "run")
    with pytest.raises(ExecutionError) as caught:
        run(tmp_path / "run", Regression(fails_at=2))
    assert caught.value.code == "train.non_finite"
    after = state(tmp_path / "run")
    assert all(torch.equal(before[n], after[n]) for n in before)


def test_a_damaged_state_is_refused_by_name(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    run(folder, Regression(), minutes=0.0)
    (folder / "state.safetensors").write_bytes(b"not a safetensors file")
    with pytest.raises(InputError) as caught:
        run(folder, Regression())
    assert caught.value.code == "checkpoint.corrupt"


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
