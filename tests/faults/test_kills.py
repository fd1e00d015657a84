"""A process killed while it writes leaves the old output, the new one or none, never a torn one.

One child process loads the writers and forks a copy of itself for every kill.
"""

from __future__ import annotations

import os
import random
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from clip_files import LIGHT, TORCH, WRITERS, content, installed

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")
PARTIAL = ".hummingbird-"

FORKER = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from clip_files import WRITERS
from disk_calls import watched
import tempfile
warm = Path(tempfile.mkdtemp(dir=sys.argv[2]))
for kind in sys.argv[3:]:  # import everything once, before the first fork
    WRITERS[kind].write(warm / WRITERS[kind].name, 0)
def kill_at(number):
    def act(n, name):
        if n == number:
            os.kill(os.getpid(), signal.SIGKILL)
    return act
print("ready", flush=True)
for line in sys.stdin:
    kind, folder, number = line.rstrip("\\n").split("\\t")
    writer, target = WRITERS[kind], Path(folder, WRITERS[kind].name)
    child = os.fork()
    if child == 0:
        if number == "0":
            print(os.getpid(), flush=True)
            for variant in range(1_000_000):
                writer.write(target, variant % 2)
        else:
            with watched(Path(folder), kill_at(int(number))):
                writer.write(target, 1)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    print("end", os.waitstatus_to_exitcode(status), flush=True)
"""


class Forker:
    """The child process; every request is one write in a forked copy of it."""

    def __init__(self, folder: Path, kinds: list[str]) -> None:
        support = Path(__file__).parents[1] / "support"
        single = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        self.process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", FORKER, support, folder, *kinds],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
            env={**os.environ, **single},
        )  # fmt: skip
        assert self._line(300) == "ready"  # torch is slow to load

    def killed_at_step(self, kind: str, folder: Path, number: int) -> bool:
        """Write variant 1 and die right before watched call ``number``; False past the last."""
        self._ask(kind, folder, number)
        return self._line() == f"end {-signal.SIGKILL}"

    def killed_after(self, kind: str, folder: Path, seconds: float) -> None:
        """Write variants 0, 1, 0, .. over each other until the kill."""
        self._ask(kind, folder, 0)
        child = int(self._line())
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
        assert self._line() == f"end {-signal.SIGKILL}"

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait(30)
        self.process.stdout.close()

    def _ask(self, kind: str, folder: Path, number: int) -> None:
        self.process.stdin.write(f"{kind}\t{folder}\t{number}\n")

    def _line(self, seconds: float = 60) -> str:
        assert select.select([self.process.stdout], [], [], seconds)[0], "the child does not answer"
        return self.process.stdout.readline().strip()


@pytest.fixture(scope="module")
def light(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forker]:
    forker = Forker(tmp_path_factory.mktemp("light"), [kind for kind in LIGHT if installed(kind)])
    yield forker
    forker.close()


@pytest.fixture(scope="module")
def torch_too(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forker]:
    pytest.importorskip("torch")
    forker = Forker(tmp_path_factory.mktemp("torch"), TORCH)
    yield forker
    forker.close()


@pytest.fixture(params=WRITERS)
def kind(request: pytest.FixtureRequest) -> str:
    pytest.importorskip(WRITERS[request.param].needs)
    return request.param


@pytest.fixture
def forker(kind: str, request: pytest.FixtureRequest) -> Forker:
    return request.getfixturevalue("torch_too" if kind in TORCH else "light")


def variants(folder: Path, kind: str) -> list[dict[str, bytes]]:
    """What variants 0 and 1 should look like."""
    whole = []
    for variant in (0, 1):
        WRITERS[kind].write(folder / WRITERS[kind].name, variant)
        whole.append(content(folder / WRITERS[kind].name))
    assert whole[0] != whole[1]
    return whole


def leftovers(folder: Path) -> list[Path]:
    """Stale partial outputs; nothing else may lie beside the target."""
    return [path for path in folder.iterdir() if path.name.startswith(PARTIAL)]


def test_a_kill_before_every_step_leaves_old_or_new(
    tmp_path: Path, kind: str, forker: Forker
) -> None:
    reference, folder = tmp_path / "reference", tmp_path / "here"
    reference.mkdir()
    folder.mkdir()
    old, new = variants(reference, kind)
    target = folder / WRITERS[kind].name
    WRITERS[kind].write(target, 0)
    seen = []
    for number in range(1, 200):
        if not forker.killed_at_step(kind, folder, number):
            break
        found = content(target)
        if found is None and kind == "folder":  # killed between the two moves
            (aside,) = folder.glob(f"{PARTIAL}*.old")
            assert content(aside) == old
            aside.rename(target)
            found = old
        assert found in (old, new), number
        seen.append(found == new)
        if found == new:
            WRITERS[kind].write(target, 0)
        for path in leftovers(folder):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        assert list(folder.iterdir()) == [target]
    assert content(target) == new
    assert number > 5
    assert seen == sorted(seen)  # old up to one step, new from it on


def check_random_kills(tmp_path: Path, kind: str, forker: Forker, count: int) -> None:
    reference, folder = tmp_path / "reference", tmp_path / "here"
    reference.mkdir()
    folder.mkdir()
    whole = variants(reference, kind)
    target = folder / WRITERS[kind].name
    rng = random.Random(kind)
    for i in range(count):
        forker.killed_after(kind, folder, rng.uniform(0.0, 0.06))
        found = content(target)
        assert found in (*whole, None), i
        assert set(folder.iterdir()) - set(leftovers(folder)) <= {target}
    left = leftovers(folder)
    WRITERS[kind].write(target, 1)  # what the kills left behind is in nobody's way
    assert content(target) == whole[1]
    assert leftovers(folder) == left


def test_3_kills_at_random_times(tmp_path: Path, kind: str, forker: Forker) -> None:
    check_random_kills(tmp_path, kind, forker, 3)


@pytest.mark.storm
def test_20_kills_at_random_times(tmp_path: Path, kind: str, forker: Forker) -> None:
    check_random_kills(tmp_path, kind, forker, 20)
