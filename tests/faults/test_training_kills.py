"""A training run killed at any moment goes on from its last state and ends where it would have.

One child process loads torch and forks a copy of itself for every run.
"""

from __future__ import annotations

import contextlib
import os
import random
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from training_runs import Regression, regression, same, state  # noqa: E402

from hummingbird_runtime.errors import ResourceError  # noqa: E402
from hummingbird_train.checkpoint import Checkpoints  # noqa: E402
from hummingbird_train.progress import read_log  # noqa: E402
from hummingbird_train.recipe import Phase  # noqa: E402

posix = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")

STEPS = 40
PHASES = (Phase(name="long", steps=STEPS, batch=4, learning_rate=1e-2, warmup=5),)

FORKER = f"""
import os, signal, sys, tempfile
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from training_runs import regression
from disk_calls import watched
from hummingbird_train import parallel
from hummingbird_train.recipe import Phase
PHASES = (Phase(name="long", steps={STEPS}, batch=4, learning_rate=1e-2, warmup=5),)
def run(folder):
    regression(folder, PHASES, save_every=0.0, report_every=0.0)
import accelerate, PIL.Image, PIL.ImageDraw, PIL.ImageFont  # once, before the first fork
def kill_at(number):
    def act(n, name):
        if n == number:
            os.kill(os.getpid(), signal.SIGKILL)
    return act
print("ready", flush=True)
for line in sys.stdin:
    folder, number = line.rstrip("\\n").split("\\t")
    child = os.fork()
    if child == 0:
        parallel._PARENT = os.getppid()  # or it would take itself for an orphan
        try:
            if number == "0":
                print(os.getpid(), flush=True)
                run(Path(folder))
            else:
                with watched(Path(folder), kill_at(int(number))):
                    run(Path(folder))
            os._exit(0)
        finally:
            os._exit(7)
    status = os.waitpid(child, 0)[1]
    print("end", os.waitstatus_to_exitcode(status), flush=True)
"""


class Trainer:
    """The child process; every request is one run in a forked copy of it."""

    def __init__(self) -> None:
        support = Path(__file__).parents[1] / "support"
        single = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        self.process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", FORKER, support],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
            env={**os.environ, **single},
        )  # fmt: skip
        assert self._line(300) == "ready"  # torch is slow to load

    def run(self, folder: Path, *, seconds: float) -> bool:
        """Train until the end (True) or until a SIGKILL after that time."""
        self._ask(folder, 0)
        child = int(self._line())
        time.sleep(seconds)
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        return self._end()

    def run_until_call(self, folder: Path, number: int) -> bool:
        """Train until the end (True) or until right before that call that writes."""
        self._ask(folder, number)
        return self._end()

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait(30)
        self.process.stdout.close()

    def _end(self) -> bool:
        said = self._line()
        assert said in ("end 0", f"end {-signal.SIGKILL}"), said
        return said == "end 0"

    def _ask(self, folder: Path, number: int) -> None:
        self.process.stdin.write(f"{folder}\t{number}\n")

    def _line(self, seconds: float = 120) -> str:
        assert select.select([self.process.stdout], [], [], seconds)[0], "the child does not answer"
        return self.process.stdout.readline().strip()


@pytest.fixture(scope="module")
def trainer() -> Iterator[Trainer]:
    trainer = Trainer()
    yield trainer
    trainer.close()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    folder = tmp_path_factory.mktemp("undisturbed")
    regression(folder, PHASES)
    return state(folder)


def check_whole(folder: Path, undisturbed: dict[str, torch.Tensor]) -> None:
    assert same(state(folder), undisturbed)
    assert sorted(p.name for p in (folder / "checkpoints").iterdir()) == [
        f"step_{STEPS - 1:06d}", f"step_{STEPS:06d}"
    ]  # fmt: skip
    assert (folder / "saved").read_text("utf-8") == "4"
    steps = [row["step"] for row in read_log(folder)]
    assert steps == sorted(set(steps))


def check_kills(
    folder: Path, trainer: Trainer, undisturbed: dict[str, torch.Tensor], count: int
) -> None:
    """Kill ``count`` times, starting over where a run got through."""
    folder.mkdir()
    rng = random.Random(count)
    reached = runs = 0
    for _ in range(count):
        if trainer.run(folder / str(runs), seconds=rng.uniform(0.05, 0.4)):
            check_whole(folder / str(runs), undisturbed)
            reached, runs = 0, runs + 1
            continue
        steps = Checkpoints(folder / str(runs)).steps()
        for step in steps:  # whatever says that it is complete, is
            Checkpoints(folder / str(runs)).load(step)
        assert max(steps, default=0) >= reached
        reached = max(steps, default=0)
    assert trainer.run_until_call(folder / str(runs), 10**9)
    check_whole(folder / str(runs), undisturbed)


@posix
def test_3_kills_at_random_times_change_nothing(
    tmp_path: Path, trainer: Trainer, undisturbed: dict[str, torch.Tensor]
) -> None:
    check_kills(tmp_path / "runs", trainer, undisturbed, 3)


@posix
@pytest.mark.storm
def test_20_kills_at_random_times_change_nothing(
    tmp_path: Path, trainer: Trainer, undisturbed: dict[str, torch.Tensor]
) -> None:
    check_kills(tmp_path / "runs", trainer, undisturbed, 20)


@posix
@pytest.mark.storm
def test_a_kill_before_every_call_of_a_save_changes_nothing(
    tmp_path: Path, trainer: Trainer, undisturbed: dict[str, torch.Tensor]
) -> None:
    folder = tmp_path / "run"
    for number in range(1, 72):  # the 40 steps are not done by then
        assert not trainer.run_until_call(folder, number)
        for step in Checkpoints(folder).steps():
            Checkpoints(folder).load(step)
    assert trainer.run_until_call(folder, 10**9)
    check_whole(folder, undisturbed)


@posix
@pytest.mark.parametrize("limit", [0, 300, 700])
def test_a_disk_that_takes_no_more_leaves_the_last_state(tmp_path: Path, limit: int) -> None:
    import resource

    regression(tmp_path, minutes=0.0)
    before = state(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        with pytest.raises(ResourceError) as caught:
            regression(tmp_path, objective=Regression())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.code.startswith("output.")
    assert same(before, state(tmp_path))
    assert regression(tmp_path)
    regression(tmp_path.with_name("whole"))
    assert same(state(tmp_path), state(tmp_path.with_name("whole")))
