"""Ranks: two equal one on the joined batch, sharded or not; errors and deaths come back typed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor
from training_runs import CLIPS, Clips, die, same, state, train_clips, train_clips_paused

from hummingbird_runtime.errors import ExecutionError, InputError, UsageError
from hummingbird_train.loop import RunConfig, train
from hummingbird_train.models.weights import load_model
from hummingbird_train.optim import OptimizerConfig
from hummingbird_train.parallel import Layout, launch

COMMITTED = Path(__file__).parents[2] / "train" / "accelerate"
TOLERANCE = 1e-6  # float32 sums in another order, five steps; measured values stand in docs/log.md


def joined(folder: Path, kind: str) -> dict[str, Tensor]:
    folder.mkdir()
    config = RunConfig(seed=5, optimizer=OptimizerConfig(kind=kind))
    assert train(Clips(joined=2), CLIPS, folder, config=config)
    return state(folder)


def farthest(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    names = [n for n in a if n.startswith(("weights/", "average/"))]
    assert names
    assert a.keys() == b.keys()
    return max(float((a[n] - b[n]).abs().max()) for n in names)


@pytest.mark.parametrize("kind", ["muon", "adamw"])
def test_accumulated_micro_batches_equal_the_joined_batch(tmp_path: Path, kind: str) -> None:
    reference = joined(tmp_path / "joined", kind)
    train_clips(tmp_path / "two", kind, {"accumulate": 2})
    assert farthest(state(tmp_path / "two"), reference) <= TOLERANCE
    train_clips(tmp_path / "one", kind, {})
    assert farthest(state(tmp_path / "one"), reference) > 100 * TOLERANCE  # half of the batch


def test_checkpointed_blocks_change_nothing(tmp_path: Path) -> None:
    train_clips(tmp_path / "plain", "muon", {})
    train_clips(tmp_path / "again", "muon", {"checkpointing": True})
    assert same(state(tmp_path / "plain"), state(tmp_path / "again"))


def test_checkpointing_leaves_the_objective_as_it_was(tmp_path: Path) -> None:
    objective = Clips()
    train(objective, CLIPS, tmp_path, config=RunConfig(checkpointing=True))
    assert not any("forward" in vars(module) for module in objective.unet.modules())


def test_two_ranks_equal_one_on_the_joined_batch(tmp_path: Path) -> None:
    reference = joined(tmp_path / "joined", "muon")
    launch(train_clips, 2, tmp_path / "ranks", "muon", {})
    assert farthest(state(tmp_path / "ranks"), reference) <= TOLERANCE


@pytest.mark.slow
def test_two_sharded_ranks_equal_one_on_the_joined_batch(tmp_path: Path) -> None:
    reference = joined(tmp_path / "joined", "adamw")
    launch(train_clips, Layout(2, "fsdp2"), tmp_path / "ranks", "adamw", {})
    sharded = state(tmp_path / "ranks")
    assert farthest(sharded, reference) <= TOLERANCE
    saved = load_model(tmp_path / "ranks" / "unet.safetensors").state_dict()
    assert all(torch.equal(t, sharded[f"average/unet.{n}"]) for n, t in saved.items())


@pytest.mark.slow
def test_a_sharded_run_resumes_bit_for_bit_and_goes_on_in_one_process(tmp_path: Path) -> None:
    launch(train_clips, Layout(2, "fsdp2"), tmp_path / "whole", "adamw", {})
    launch(train_clips_paused, Layout(2, "fsdp2"), tmp_path / "pieces")
    launch(train_clips, Layout(2, "fsdp2"), tmp_path / "pieces", "adamw", {})
    assert same(state(tmp_path / "whole"), state(tmp_path / "pieces"))
    launch(train_clips_paused, Layout(2, "fsdp2"), tmp_path / "alone")
    train_clips(tmp_path / "alone", "adamw", {"accumulate": 2})
    assert farthest(state(tmp_path / "alone"), state(tmp_path / "whole")) <= TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("sharding", ["none", "fsdp2"])
def test_half_precision_and_checkpointing_work_on_two_ranks(tmp_path: Path, sharding: str) -> None:
    layout = Layout(2, sharding)
    launch(train_clips, layout, tmp_path, "adamw", {"precision": "bf16", "checkpointing": True})
    assert all(bool(t.isfinite().all()) for t in state(tmp_path).values())


@pytest.mark.slow
def test_ranks_of_another_launcher_are_used_as_they_are(tmp_path: Path) -> None:
    reference = joined(tmp_path / "joined", "muon")
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\n"
        f"sys.path.insert(0, {str(Path(__file__).parents[1] / 'support')!r})\n"
        "from pathlib import Path\n"
        "from training_runs import train_clips\n"
        "from hummingbird_train.parallel import launch\n"
        "launch(train_clips, 7, Path(sys.argv[1]), 'muon', {})\n",
        "utf-8",
    )
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    done = subprocess.run(
        [*torchrun, "--nproc-per-node", "2", script, tmp_path / "ranks"],
        capture_output=True, text=True, timeout=600, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert farthest(state(tmp_path / "ranks"), reference) <= TOLERANCE


@pytest.mark.slow
def test_muon_refuses_sharded_weights_in_the_words_of_the_rank(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="adamw") as caught:
        launch(train_clips, Layout(1, "fsdp2"), tmp_path, "muon", {})
    assert caught.value.code == "train.sharded_muon"
    assert "adamw" in caught.value.hint


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="SIGKILL is POSIX")
def test_a_killed_rank_ends_the_run_with_a_typed_error(tmp_path: Path) -> None:
    with pytest.raises(ExecutionError) as caught:
        launch(die, 1, tmp_path)
    assert caught.value.code == "train.rank_died"


@pytest.mark.parametrize(
    ("name", "layout"),
    [
        ("cpu2", Layout(2, "none")),
        ("ddp4", Layout(4, "none")),
        ("fsdp2_4", Layout(4, "fsdp2")),
    ],
)
def test_the_committed_layouts_mean_what_their_names_say(name: str, layout: Layout) -> None:
    assert Layout.read(COMMITTED / f"{name}.yaml") == layout


@pytest.mark.parametrize("name", ["cpu2", "ddp4", "fsdp2_4"])
def test_accelerate_itself_reads_the_committed_layouts(name: str) -> None:
    config = pytest.importorskip("accelerate.commands.config.config_args")
    loaded = config.load_config_from_file(str(COMMITTED / f"{name}.yaml"))
    assert loaded.num_processes == Layout.read(COMMITTED / f"{name}.yaml").processes


@pytest.mark.parametrize(
    "text", ["", "[1", "distributed_type: FSDP\nnum_processes: 2", "num_processes: 2"]
)
def test_another_layout_file_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "layout.yaml"
    path.write_text(text, "utf-8")
    with pytest.raises(InputError) as caught:
        Layout.read(path)
    assert caught.value.code == "train.layout"
