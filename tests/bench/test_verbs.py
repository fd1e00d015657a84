"""`hummingbird bench run` and `compare` from outside: abuse, signals, and a stopwatch."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hummingbird_bench.child import Child
from hummingbird_bench.compare_verb import main as compare
from hummingbird_bench.run_verb import main as run
from hummingbird_bench.workload import find_workload, read_workloads
from hummingbird_runtime.errors import HummingbirdError

EXTERNAL = """
[arm.command]
kind = "external"
model = "tiny"
command = {command}
steps = 1
passes_per_step = 1
sampler = "ddim"
eta = 0.0
frames = 1
height = 64
width = 64
precision = "fp32"
provider = "none"
threads = 4
decoder = "full"
prompt = "a red circle"
seed = 1
"""


def external(folder: Path, program: str) -> str:
    """A workload file whose arm is a program of Python."""
    path = folder / "workload.toml"
    path.write_text(EXTERNAL.format(command=json.dumps([sys.executable, "-S", "-c", program])))
    return str(path)


def test_nothing_is_measured_by_no_runs() -> None:
    with pytest.raises(HummingbirdError) as caught:
        run(["built-in", "--rounds", "0"])
    assert caught.value.code == "bench.no_runs"
    with pytest.raises(HummingbirdError) as caught:
        compare(["built-in-steps", "--pairs", "0"])
    assert caught.value.code == "bench.no_runs"


def test_a_command_that_fails_is_no_measurement(tmp_path: Path) -> None:
    with pytest.raises(HummingbirdError) as caught:
        run([external(tmp_path, "import sys; sys.exit(9)"), "--rounds", "1", "-q"])
    assert caught.value.code == "bench.arm_failed"
    assert "exit status 9" in str(caught.value)
    log = Path(str(caught.value.hint).removeprefix("its log is "))
    assert log.is_file()  # what the error names is there to be read
    shutil.rmtree(log.parent.parent)


@pytest.mark.slow
def test_unlike_work_gets_no_ratio(capsys: pytest.CaptureFixture[str]) -> None:
    """Four steps and eight, and nobody said that this is what the comparison is about."""
    with pytest.raises(HummingbirdError) as caught:
        compare(["built-in-steps", "--pairs", "1", "-q"])
    assert caught.value.code == "bench.unlike_work"
    assert "steps" in str(caught.value)
    assert not capsys.readouterr().out


def test_a_precision_that_the_bundle_does_not_have_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HummingbirdError) as caught:
        run(["built-in", "--set", 'precision="int8"', "--folder", str(tmp_path / "run"), "-q"])
    assert caught.value.code == "bench.arm_failed"
    assert "bench.precision" in str(caught.value)


def test_seconds_are_those_of_a_stopwatch_outside(tmp_path: Path) -> None:
    """Within 5 %: what an arm says of a clip, and what its caller waits for it."""
    (work,) = read_workloads(find_workload("built-in"), {"frames": 52})  # long beside a wake-up
    told, waited = [], []
    with Child(work, tmp_path, "arm", limit_s=120.0) as child:
        child.open().run(0, "first")
        for number in range(1, 6):
            start = time.perf_counter()
            told.append(child.run(number, "steady").wall_s)
            waited.append(time.perf_counter() - start)
    apart = sorted(outside / inside for outside, inside in zip(waited, told, strict=True))
    assert 1.0 <= apart[2] <= 1.05


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGINT", 130)])
def test_a_signal_ends_the_arms_too(name: str, code: int, tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    program = f"import os, time; open({str(pid)!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    arguments = ["bench", "run", external(tmp_path, program), "--rounds", "1", "-q"]
    main = "import sys; from hummingbird_runtime.cli import main; sys.exit(main())"
    with subprocess.Popen(
        [sys.executable, "-c", main, *arguments], stderr=subprocess.PIPE, text=True
    ) as process:
        until = time.monotonic() + 30
        while not (pid.exists() and pid.read_text()) and time.monotonic() < until:
            time.sleep(0.02)
        process.send_signal(getattr(signal, name))
        _, said = process.communicate(timeout=30)
    assert process.returncode == code, said
    for _ in range(100):
        state = Path(f"/proc/{pid.read_text()}/stat")
        if not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z":
            break
        time.sleep(0.05)
    else:
        pytest.fail("the command of the arm still runs")
