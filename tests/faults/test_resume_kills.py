"""kill -9 of a run that keeps a checkpoint: at most one step is lost, the frames are the same."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tiny_bundle

from hummingbird_runtime import builtin_bundle
from hummingbird_runtime.resume import read_saved_run

pytestmark = pytest.mark.skipif(os.name == "nt", reason="SIGKILL and fork")

SUPPORT = Path(__file__).parents[1] / "support"
STEPS = 4

# Dies right before file call number n of a run, for n = 1, 2, .. until a run survives; after each
# death another run goes on from the file. Graphs are plain functions: forking costs nothing then.
AT_EVERY_CALL = """
import hashlib, json, os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import disk_calls, fake_graphs
from hummingbird_runtime import events, resume
bundle, folder = sys.argv[2], Path(sys.argv[3])
file = folder / "run.npz"
pipe = fake_graphs.pipeline(bundle)
whole = pipe(fake_graphs.PROMPT, seed=3).frames.tobytes()
def run(act):
    told = 0
    def step(event):
        (folder.parent / "told").write_text(str(event.i + 1))
    with disk_calls.watched(folder, act):
        pipe(fake_graphs.PROMPT, seed=3, checkpoint=file, callback_on_step_end=step)
def die_at(number):
    def act(count, name):
        if count == number:
            os.kill(os.getpid(), signal.SIGKILL)
    return act
for number in range(1, 200):
    (folder.parent / "told").write_text("0")
    child = os.fork()
    if child == 0:
        run(die_at(number))
        os._exit(0)
    killed = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    told = int((folder.parent / "told").read_text())
    kept = resume.read_saved_run(file).steps_done if file.exists() else 0
    taken = []
    frames = None
    for event in pipe.stream(fake_graphs.PROMPT, seed=3, checkpoint=file):
        if isinstance(event, events.Step):
            taken.append(event.i)
        elif isinstance(event, events.Done):
            frames = event.video.frames.tobytes()
    print(json.dumps([killed, told, kept, taken, frames == whole, file.exists()]))
    if not killed:
        break
"""


def test_a_kill_before_every_file_call_loses_at_most_one_step(
    tmp_path: Path, tiny_bundle_path: Path
) -> None:
    folder = tmp_path / "here"
    folder.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", AT_EVERY_CALL, str(SUPPORT), str(tiny_bundle_path), str(folder)],
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(lines) > 4 * STEPS  # opening, writing, syncing and renaming, each step
    for killed, told, kept, taken, equal, left in lines:
        assert equal
        assert not left
        if killed:
            assert kept >= told  # a step is told once it is safe
            assert taken == list(range(kept, STEPS))
    assert [line[0] for line in lines] == [True] * (len(lines) - 1) + [False]
    assert {line[2] for line in lines} == set(range(STEPS + 1))


# Kills itself after a step, or runs to the end and saves the frames.
REAL = """
import os, signal, sys
import numpy as np
from hummingbird_runtime import TextToVideoPipeline, events
bundle, file, out, last = sys.argv[1], sys.argv[2] or None, sys.argv[3], int(sys.argv[4])
taken = []
with TextToVideoPipeline.from_pretrained(bundle, threads=1) as pipe:
    for event in pipe.stream("a small red circle", seed=9, checkpoint=file):
        if isinstance(event, events.Step):
            taken.append(event.i)
            if event.i + 1 == last:
                os.kill(os.getpid(), signal.SIGKILL)
        elif isinstance(event, events.Done):
            np.save(out, event.video.frames)
print(len(taken))
"""


def real(bundle: Path, file: object, out: Path, last: int = 0) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", REAL, str(bundle), str(file), str(out), str(last)],
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip


def check_steps(bundle: Path, folder: Path, steps: list[int]) -> None:
    assert real(bundle, "", folder / "whole.npy").returncode == 0
    whole = np.load(folder / "whole.npy")
    for step in steps:
        file, out = folder / "run.npz", folder / f"{step}.npy"
        assert real(bundle, file, out, step).returncode == -signal.SIGKILL
        assert read_saved_run(file).steps_done == step
        resumed = real(bundle, file, out)
        assert resumed.returncode == 0, resumed.stderr
        assert int(resumed.stdout) == STEPS - step
        np.testing.assert_array_equal(np.load(out), whole)
        assert not file.exists()


def test_a_killed_process_goes_on_in_another(tmp_path: Path, tiny_bundle_path: Path) -> None:
    check_steps(tiny_bundle_path, tmp_path, [2])


@pytest.mark.storm
def test_the_built_in_model_goes_on_after_every_step(tmp_path: Path) -> None:
    check_steps(builtin_bundle(), tmp_path, list(range(1, STEPS + 1)))


@pytest.mark.storm
def test_20_kills_at_random_times_in_one_clip(tmp_path: Path) -> None:
    """The command, killed again and again: each time it goes on, and the clip is the same."""
    words = [
        "generate",
        "a small red circle",
        "--num-inference-steps",
        "30",
        "--threads",
        "1",
        "-q",
    ]
    command = [sys.executable, "-m", "hummingbird_runtime", *words]
    file, out, whole = (tmp_path / name for name in ("run.npz", "out.npz", "whole.npz"))
    begin = time.monotonic()
    assert subprocess.run([*command, "-o", str(whole)], check=False).returncode == 0
    took = time.monotonic() - begin
    rng, kills, before = random.Random(1), 0, 0
    for _ in range(60):
        process = subprocess.Popen([*command, "-o", str(out), "--resume", str(file)])
        try:
            process.wait(took * rng.uniform(0.2, 0.55) if kills < 20 else 300)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills += 1
            steps = read_saved_run(file).steps_done if file.exists() else 0
            assert steps >= before
            before = steps
            continue
        assert process.returncode == 0
        break
    assert kills >= 3
    assert out.read_bytes() == whole.read_bytes()
    assert not file.exists()


def test_a_kill_while_the_disk_is_written_leaves_a_whole_file(tmp_path: Path) -> None:
    """Real graphs, the process killed from outside at any time."""
    bundle = tiny_bundle.write(tmp_path / "bundle")
    file = tmp_path / "run.npz"
    command = [
        sys.executable, "-m", "hummingbird_runtime", "generate", "a red ball", "-q",
        "--bundle", str(bundle), "--num-inference-steps", "50", "--num-frames", "12",
        "--height", "64", "--width", "64", "--force",
        "-o", str(tmp_path / "a.npz"), "--resume", str(file),
    ]  # fmt: skip
    for _ in range(2):
        process = subprocess.Popen(command)
        limit = time.monotonic() + 60
        while not file.exists() and process.poll() is None and time.monotonic() < limit:
            time.sleep(0.001)
        process.kill()
        process.wait()
        if file.exists():
            assert 1 <= read_saved_run(file).steps_done <= 50
    assert subprocess.run(command, check=False).returncode == 0
    assert not file.exists()
