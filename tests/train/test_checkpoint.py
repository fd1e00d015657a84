"""States on disk: complete or not there, the newest few, damage named."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import torch
from disk_calls import watched

from hummingbird_runtime.errors import InputError, ResourceError
from hummingbird_train.checkpoint import Checkpoints


def groups(step: int) -> dict[str, dict[str, torch.Tensor]]:
    return {
        "weights": {"a.b": torch.full((3, 4), float(step)), "scalar": torch.tensor(step)},
        "optimizer": {"first.a.b": torch.arange(5.0) * step},
    }


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(7, groups(7), {"phases": [{"name": "x"}]})
    loaded, facts = checkpoints.load(7)
    assert facts == {"step": 7, "phases": [{"name": "x"}]}
    assert {g: set(t) for g, t in loaded.items()} == {g: set(t) for g, t in groups(7).items()}
    for group, tensors in groups(7).items():
        for name, tensor in tensors.items():
            assert torch.equal(loaded[group][name], tensor)
    assert not [p for p in tmp_path.rglob("*") if p.suffix in (".pt", ".pkl", ".pickle", ".bin")]


def test_the_newest_stay_in_order_of_steps_not_of_names(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=2)
    for step in (5, 999_999, 1_000_000):
        checkpoints.save(step, groups(step), {})
    assert checkpoints.steps() == [999_999, 1_000_000]


def test_a_folder_without_done_is_nothing_and_goes(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, groups(1), {})
    (checkpoints.save(2, groups(2), {}) / "DONE").unlink()
    (checkpoints.folder / ".hummingbird-0123.partial").mkdir()
    (checkpoints.folder / "notes.txt").write_text("mine", "utf-8")
    assert checkpoints.steps() == [1]
    checkpoints.clean()
    assert {p.name for p in checkpoints.folder.iterdir()} == {"step_000001", "notes.txt"}
    checkpoints.save(2, groups(2), {})
    assert checkpoints.steps() == [1, 2]


@pytest.mark.parametrize(
    "name", ["weights.safetensors", "optimizer.safetensors", "state.json", "DONE"]
)
@pytest.mark.parametrize("damage", ["flipped", "cut", "gone"])
def test_damage_is_named(tmp_path: Path, name: str, damage: str) -> None:
    checkpoints = Checkpoints(tmp_path)
    path = checkpoints.save(3, groups(3), {}) / name
    data = bytearray(path.read_bytes())
    data[len(data) * 2 // 3] ^= 4
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(data if damage == "flipped" else data[:-9])
    with pytest.raises(InputError, match="step_000003") as caught:
        checkpoints.load(3)
    assert caught.value.code == "checkpoint.corrupt"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO], ids=["ENOSPC", "EIO"])
def test_a_write_may_fail_at_every_step_and_the_old_state_stays(
    tmp_path: Path, number: int
) -> None:
    checkpoints = Checkpoints(tmp_path, keep=1)
    checkpoints.save(1, groups(1), {})
    finished = []
    for failing in range(1, 200):

        def act(n: int, name: str, failing: int = failing) -> None:
            if n == failing:
                raise OSError(number, os.strerror(number))

        error = None
        with watched(tmp_path, act) as calls:
            try:
                checkpoints.save(2, groups(2), {})
            except ResourceError as caught:
                error = caught
        left = checkpoints.steps()
        assert left in ([1], [1, 2], [2]), calls
        for step in left:
            loaded, _ = checkpoints.load(step)
            assert torch.equal(loaded["weights"]["a.b"], groups(step)["weights"]["a.b"])
        if failing > len(calls):
            break
        assert error is not None, calls
        assert error.code in ("output.disk_full", "output.write_failed")
        finished.append(2 in left)
        checkpoints.clean()
        if 2 in left:  # only the sync of the folder has failed
            Checkpoints(tmp_path, keep=2).save(1, groups(1), {})
            (checkpoints.folder / "step_000002" / "DONE").unlink()
            checkpoints.clean()
    assert error is None
    assert checkpoints.steps() == [2]
    assert failing > 10
    assert finished == sorted(finished)  # old up to one step, new from it on
