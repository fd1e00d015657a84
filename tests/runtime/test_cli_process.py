"""The command as a process: signals, time limits, pipes, locales."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tiny_bundle
import tiny_onnx

COMMAND = [sys.executable, "-m", "hummingbird_runtime"]
posix = pytest.mark.skipif(os.name == "nt", reason="POSIX signals and pipes")


@pytest.fixture(scope="module")
def slow_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle whose U-Net takes seconds per step, in many nodes."""
    n = tiny_onnx.node
    count = 600
    chain = [n("MatMul", [f"m{i}", "eye"], [f"m{i + 1}"]) for i in range(count)]
    nodes = [
        n("ReduceMean", ["sample"], ["mean"], keepdims=0),
        n("Mul", ["eye", "mean"], ["m0"]),
        *chain,
        n("ReduceMean", [f"m{count}"], ["shift"], keepdims=0),
        n("Add", ["sample", "shift"], ["out_sample"]),
    ]
    unet = tiny_bundle.graphs()["unet"]
    model = tiny_onnx.model(
        nodes,
        [(t.name, t.dtype, t.dims) for t in unet.inputs],
        [(t.name, t.dtype, t.dims) for t in unet.outputs],
        {"eye": np.eye(512, dtype=np.float32)},
    )
    content = {**tiny_bundle.files(), "unet/model.onnx": model}
    return tiny_bundle.write(tmp_path_factory.mktemp("slow") / "bundle", content)


def start(folder: Path, *arguments: object, **options) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, *map(str, arguments)],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def start_slow(folder: Path, bundle: Path, *more: object) -> subprocess.Popen[str]:
    return start(
        folder, "generate", "a red ball", "-o", "a.npz", "--bundle", bundle, "--threads", 1, *more
    )


def inside_onnxruntime(process: subprocess.Popen[str]) -> None:
    """Wait until the process has used a second of its own: it is then running the U-Net."""
    started = time.monotonic()
    while process.poll() is None and time.monotonic() - started < 60:
        fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
        if (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK") > 1.5:
            return
        time.sleep(0.05)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("SIGINT", 130),
        pytest.param("SIGTERM", 143, marks=pytest.mark.slow),
        pytest.param("SIGHUP", 129, marks=pytest.mark.slow),
    ],
)
def test_a_signal_cancels_inside_a_graph_and_leaves_nothing(
    tmp_path: Path, slow_bundle: Path, name: str, code: int
) -> None:
    process = start_slow(tmp_path, slow_bundle, "--num-inference-steps", 50)
    inside_onnxruntime(process)
    sent = time.monotonic()
    process.send_signal(getattr(signal, name))
    out, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert out == ""
    assert err.splitlines()[-1].startswith("error[runtime.cancelled]: ")
    assert "Traceback" not in err
    assert time.monotonic() - sent < 15  # the whole run takes minutes, a node milliseconds
    assert list(tmp_path.iterdir()) == []


def test_the_time_limit_ends_a_run_with_its_own_code(tmp_path: Path, slow_bundle: Path) -> None:
    process = start_slow(tmp_path, slow_bundle, "--timeout", 1)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 7, err
    assert out == ""
    assert err.splitlines()[-1].startswith("error[runtime.time_limit]: ")
    assert list(tmp_path.iterdir()) == []


STUBBORN = """
import sys, time
from pathlib import Path
from hummingbird_runtime.atomic import atomic_file
from hummingbird_runtime.cli import worker
worker._GRACE_S = 0.3
def work(token):
    with atomic_file(Path(sys.argv[1])) as partial:
        partial.write_bytes(b"half")
        print("started", flush=True)
        time.sleep(60)
worker.run_cancellable(work, timeout=float(sys.argv[2]))
"""


@posix
def test_a_second_signal_ends_work_that_does_not_stop(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", STUBBORN, str(tmp_path / "a"), "50"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=10)
    assert process.returncode == 130, err
    assert "error[runtime.cancelled]" in err
    assert list(tmp_path.iterdir()) == []


def test_a_node_that_overstays_the_time_limit_is_not_waited_for(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", STUBBORN, str(tmp_path / "a"), "0.2"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 7, done.stderr
    assert "error[runtime.time_limit]" in done.stderr
    assert list(tmp_path.iterdir()) == []


@posix
def test_a_closed_pipe_ends_quietly_and_not_as_success(tiny_bundle_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [*COMMAND, "info", str(tiny_bundle_path)],
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


def test_unicode_paths_work_in_the_c_locale(tmp_path: Path, tiny_bundle_path: Path) -> None:
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    arguments = ["generate", "a red ball", "-o", "clíp 🐦.npz", "--bundle", str(tiny_bundle_path)]
    done = subprocess.run(
        [*COMMAND, *arguments], cwd=tmp_path, env=environment, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert [path.suffix for path in tmp_path.iterdir()] == [".npz"]


def test_optimised_python_and_warnings_as_errors_change_nothing(
    tmp_path: Path, tiny_bundle_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-O", "-W", "error", "-m", "hummingbird_runtime", "generate", "a red ball",
         "-o", "a.npz", "--bundle", str(tiny_bundle_path)],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "a.npz\n"), done.stderr
