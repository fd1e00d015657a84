"""The command as a process that is stopped or cut off: its exit code, and no half-written file."""

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

SECONDS = 5.0
posix = pytest.mark.skipif(os.name == "nt", reason="POSIX signals and pipes")
STOPS = {"SIGINT": 130, "SIGTERM": 143}

# Sends the signal to itself at a moment: no waiting and no guessing when that moment is.
AT = """
import os, signal, sys, time
from hummingbird_runtime import atomic, bundle, session, tokenizer
from hummingbird_runtime.cli import clip, main
name, moment, *words = sys.argv[1:]
def before(owner, attribute):
    real, sent = getattr(owner, attribute), []
    def call(*arguments, **options):
        if not sent:  # a second one would end the process at once
            sent.append(os.kill(os.getpid(), getattr(signal, name)))
            time.sleep(0.02)
        return real(*arguments, **options)
    setattr(owner, attribute, call)
before(*{
    "opening": (bundle, "verify_folder"),
    "loading": (session.OnnxRuntimeBackend, "open"),
    "tokenizing": (tokenizer.Tokenizer, "encode"),
    "drawing": (session.OnnxRuntimeSession, "run"),
    "saving": (clip.dataclasses, "replace"),
    "writing": (atomic, "_sync"),
}[moment])
sys.exit(main(words))
"""


def at(*moments: str) -> list:
    """Every moment with one signal; with the other one too in the long lane."""
    return [
        pytest.param(name, moment, marks=[] if (i + j) % 2 == 0 else pytest.mark.storm)
        for i, moment in enumerate(moments)
        for j, name in enumerate(STOPS)
    ]


def line(bundle: Path, *more: object) -> list[str]:
    words = ["generate", "a red ball", "-o", "a.npz", "--fps", "8", "--threads", "1", "-q"]
    return [*words, "--bundle", str(bundle), *map(str, more)]


@posix
@pytest.mark.parametrize(("name", "moment"), at("opening", "loading", "tokenizing", "drawing"))
def test_a_signal_before_the_clip_is_drawn_cancels(
    tmp_path: Path, tiny_bundle_path: Path, name: str, moment: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", AT, name, moment, *line(tiny_bundle_path)],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == STOPS[name], done.stderr
    assert done.stdout == ""
    assert done.stderr.splitlines()[-1].startswith("error[runtime.cancelled]: ")
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


@posix
@pytest.mark.parametrize(("name", "moment"), at("saving", "writing"))
def test_a_signal_while_the_clip_is_saved_leaves_all_or_nothing(
    tmp_path: Path, tiny_bundle_path: Path, name: str, moment: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", AT, name, moment, *line(tiny_bundle_path)],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    left = [path.name for path in tmp_path.iterdir()]
    if done.returncode == 0:
        assert (done.stdout, left) == ("a.npz\n", ["a.npz"])
        with np.load(tmp_path / "a.npz") as stored:
            assert stored["frames"].shape == (6, 32, 32, 3)
    else:
        assert (done.returncode, done.stdout, left) == (STOPS[name], "", []), done.stderr
        assert "Traceback" not in done.stderr


def command(folder: Path, *words: object, **options) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "hummingbird_runtime", *map(str, words)],
        cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options,
    )  # fmt: skip


def check_stop(folder: Path, bundle: Path, name: str, seconds: float) -> None:
    """Any time will do, also before Python has started: then the signal ends it by itself."""
    process = command(folder, *line(bundle, "--num-inference-steps", 50, "--num-frames", 12))
    time.sleep(seconds)
    sent = time.monotonic()
    process.send_signal(getattr(signal, name))
    out, err = process.communicate(timeout=60)
    assert time.monotonic() - sent < SECONDS
    left = [path.name for path in folder.iterdir()]
    if left:  # it was done just before, or between the last rename and the exit
        assert left == ["a.npz"]
        with np.load(folder / "a.npz") as stored:
            assert len(stored["frames"]) == 12
        (folder / "a.npz").unlink()
    if process.returncode == 0:
        assert (out, left) == ("a.npz\n", ["a.npz"])
    else:
        early = ("Fatal Python error: init", "Could not import runpy module")
        started = not any(text in err for text in early)
        assert process.returncode in (STOPS[name], -getattr(signal, name)) or not started, err
        if started and process.returncode > 0 and "importlib" not in err:
            assert err.splitlines()[-1].startswith("error[runtime.cancelled]: "), err


@posix
@pytest.mark.parametrize(("name", "seconds"), [("SIGINT", 0.3), ("SIGTERM", 0.45)])
def test_a_signal_at_some_time(
    tmp_path: Path, tiny_bundle_path: Path, name: str, seconds: float
) -> None:
    check_stop(tmp_path, tiny_bundle_path, name, seconds)


@posix
@pytest.mark.storm
@pytest.mark.parametrize("name", STOPS)
def test_a_signal_at_20_times(tmp_path: Path, tiny_bundle_path: Path, name: str) -> None:
    for i in range(20):
        check_stop(tmp_path, tiny_bundle_path, name, 0.06 * i)


@posix
@pytest.mark.parametrize("more", [(), ("--json",)])
def test_a_closed_pipe_keeps_the_clip_and_says_so_by_the_exit_code(
    tmp_path: Path, tiny_bundle_path: Path, more: tuple[str, ...]
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "hummingbird_runtime", *line(tiny_bundle_path, *more)],
        cwd=tmp_path, stdout=writer, stderr=subprocess.PIPE, text=True, check=False, timeout=60,
    )  # fmt: skip
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]


@posix
@pytest.mark.parametrize("closed", [(1,), (2,), (0, 1, 2)])
def test_closed_streams_are_no_failure(
    tmp_path: Path, tiny_bundle_path: Path, closed: tuple[int, ...]
) -> None:
    closing = "import os, sys\n" + "".join(f"os.close({number})\n" for number in closed)
    start = closing + "os.execv(sys.argv[1], sys.argv[1:])"
    words = line(tiny_bundle_path, "--guidance-scale", "9")
    words.remove("-q")  # so that there is something to say
    done = subprocess.run(
        [sys.executable, "-c", start, sys.executable, "-m", "hummingbird_runtime", *words],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]
    with np.load(tmp_path / "a.npz") as stored:
        assert stored["frames"].shape == (6, 32, 32, 3)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("words", [["--version"], ["info", "BUNDLE"]])
def test_a_full_stdout_is_a_resource_error(tiny_bundle_path: Path, words: list[str]) -> None:
    words = [str(tiny_bundle_path) if word == "BUNDLE" else word for word in words]
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "hummingbird_runtime", *words],
            stdout=full, stderr=subprocess.PIPE, text=True, check=False, timeout=60,
        )  # fmt: skip
    assert done.returncode == 5, done.stderr
    assert done.stderr.splitlines()[-1].startswith("error[resource.system]: ")
    assert "Traceback" not in done.stderr


@pytest.fixture(scope="module")
def endless_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that needs some 20 ms for each of 50 steps, in many small nodes."""
    n = tiny_onnx.node
    count = 400
    unet = tiny_bundle.graphs()["unet"]
    nodes = [
        n("ReduceMean", ["sample"], ["mean"], keepdims=0),
        n("Mul", ["eye", "mean"], ["m0"]),
        *(n("MatMul", [f"m{i}", "eye"], [f"m{i + 1}"]) for i in range(count)),
        n("ReduceMean", [f"m{count}"], ["shift"], keepdims=0),
        n("Add", ["sample", "shift"], ["out_sample"]),
    ]
    model = tiny_onnx.model(
        nodes,
        [(t.name, t.dtype, t.dims) for t in unet.inputs],
        [(t.name, t.dtype, t.dims) for t in unet.outputs],
        {"eye": np.eye(256, dtype=np.float32)},
    )
    content = {**tiny_bundle.files(), "unet/model.onnx": model}
    return tiny_bundle.write(tmp_path_factory.mktemp("endless") / "bundle", content)


@pytest.mark.parametrize("seconds", ["0.000001", "0.2"])
def test_the_time_limit_leaves_nothing(tmp_path: Path, endless_bundle: Path, seconds: str) -> None:
    more = ("--timeout", seconds, "--num-inference-steps", 50)
    process = command(tmp_path, *line(endless_bundle, *more))
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (7, ""), err
    assert err.splitlines()[-1].startswith("error[runtime.time_limit]: ")
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "exit_code", "error"),
    [
        ([], 2, "usage.no_verb"),
        (["generate", "p", "-o", "a.png", "--steps", "4"], 2, "usage.arguments"),
        (["generate", "p", "-o", "no/a.png"], 5, "output.folder_missing"),
        (["generate", "p", "-o", "a.png", "--bundle", "nowhere"], 3, "bundle.not_found"),
        pytest.param(
            ["generate", b"a \xff\xfe ball", "-o", "a.png", "--bundle", "TINY"], 3,
            "prompt.encoding", marks=posix,
        ),
        (["generate", "p", "-o", "a.png", "--bundle", "TINY", "--width", "17"], 3, "request.size"),
    ],
)  # fmt: skip
def test_a_real_process_fails_as_the_function_does(
    tmp_path: Path, tiny_bundle_path: Path, words: list, exit_code: int, error: str
) -> None:
    words = [str(tiny_bundle_path) if word == "TINY" else word for word in words]
    done = subprocess.run(
        [sys.executable, "-m", "hummingbird_runtime", *words],
        cwd=tmp_path, capture_output=True, check=False, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (exit_code, b"")
    assert done.stderr.splitlines()[-1].startswith(f"error[{error}]: ".encode())
    assert b"Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []
