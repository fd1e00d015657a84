"""The seam to devices: what moves, and that an objective that moves trains as one that does not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from training_runs import Regression, regression, same, state

from hummingbird_train.devices import Placed
from hummingbird_train.recipe import Phase


class Table:
    def __init__(self) -> None:
        self.values = torch.ones(2)

    def to(self, device: torch.device) -> None:
        self.values = self.values.to(device)


class Moving(Regression, Placed):
    def __init__(self) -> None:
        super().__init__()
        self.teacher, self.empty, self.table = nn.Linear(2, 2), torch.zeros(3), Table()
        self.path = Path("unmoved")

    def loss(
        self, phase: Phase, images: bool, rng: np.random.Generator
    ) -> tuple[Tensor, dict[str, float]]:
        count = phase.images_batch if images else phase.batch
        (x,) = self.here(torch.from_numpy(rng.standard_normal((count, 5)).astype(np.float32)))
        loss = (self.net(x) - x[:, :3]).square().mean()
        return loss, {"half": float(loss.detach()) / 2}


def test_networks_tensors_and_what_has_to_move_and_references_stay_good() -> None:
    objective = Moving()
    network = objective.modules["net"]
    objective.to(torch.device("meta"))
    assert objective.device == torch.device("meta")
    assert objective.net is network
    for tensor in (*network.parameters(), objective.teacher.weight, objective.empty):
        assert tensor.is_meta
    assert objective.table.values.is_meta
    moved, nothing = objective.here(torch.ones(2), None)
    assert moved.is_meta
    assert nothing is None


def test_an_objective_that_can_move_trains_the_same(tmp_path: Path) -> None:
    if torch.accelerator.is_available():
        pytest.skip("equality to the last bit is for one device")
    regression(tmp_path / "plain")
    regression(tmp_path / "moving", objective=Moving())
    assert same(state(tmp_path / "plain"), state(tmp_path / "moving"))


@pytest.mark.skipif(not torch.accelerator.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_gpu_is_used_where_there_is_one(tmp_path: Path, precision: str) -> None:
    objective = Moving()
    regression(tmp_path, objective=objective, precision=precision)
    assert objective.net[0].weight.device.type == torch.accelerator.current_accelerator().type
    assert all(bool(t.isfinite().all()) for t in state(tmp_path).values())
