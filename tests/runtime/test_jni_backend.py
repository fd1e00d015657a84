"""Graphs through ``ai.onnxruntime``, against a compiled stub of those classes.

The stub refuses what the real classes refuse and counts what is not closed. It runs in a child
process, because a Java machine stays in a process and handles its signals.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hummingbird_runtime.errors import ResourceError
from hummingbird_runtime.jni_backend import JavaBackend

SOURCES = Path(__file__).parents[1] / "support" / "java"
MODEL = "model\ninput x FLOAT N 4\ninput t INT64\noutput y FLOAT N 4\noutput u INT64\n"

START = """
import sys, json, threading, time
from pathlib import Path
import jnius_config
jnius_config.set_classpath(sys.argv[1])
import numpy as np
from hummingbird_runtime.cancel import CancelToken
from hummingbird_runtime.errors import HummingbirdError
from hummingbird_runtime.jni_backend import JavaBackend
from hummingbird_runtime.session_options import SessionOptions
from hummingbird_runtime.session_settings import SessionSettings
ONE = SessionOptions(threads=1)
folder = Path(sys.argv[2])
feeds = {"x": np.arange(8, dtype=np.float32).reshape(2, 4), "t": np.array(5)}

def stub():
    from jnius import autoclass
    return autoclass("ai.onnxruntime.OrtEnvironment")

def opened(text, options=ONE):
    (folder / "model.onnx").write_text(text)
    return JavaBackend().open(folder / "model.onnx", options)

def code(action):
    try:
        action()
    except HummingbirdError as error:
        assert "\\n" not in str(error), error
        return [error.code, error.exit_code]
"""


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if importlib.util.find_spec("jnius") is None:
        pytest.skip("pyjnius is not installed")
    if shutil.which("javac") is None:
        pytest.skip("no Java compiler")
    out = tmp_path_factory.mktemp("classes")
    files = [str(path) for path in SOURCES.rglob("*.java")]
    subprocess.run(["javac", "-d", str(out), *files], check=True, timeout=300)
    return out


def answer(classes: Path, folder: Path, code: str) -> object:
    done = subprocess.run(
        [sys.executable, "-c", START + code, str(classes), str(folder)],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_a_graph_runs_tells_its_signature_and_leaves_nothing_open(
    classes: Path, tmp_path: Path
) -> None:
    code = f"""
session = opened({MODEL!r})
out = session.run(feeds)
for _ in range(20):
    session.run(feeds)
during = stub().alive
session.close()
signature = [[t.name, t.dtype, list(t.dims)] for t in (*session.inputs, *session.outputs)]
same = [np.array_equal(out["y"], 2 * feeds["x"]), int(out["u"]), out["y"].dtype.name]
print(json.dumps([signature, same, during, stub().alive, code(lambda: session.run(feeds))]))
"""
    signature, same, during, after, closed = answer(classes, tmp_path, code)
    assert signature == [
        ["x", "float32", ["N", 4]], ["t", "int64", []],
        ["y", "float32", ["N", 4]], ["u", "int64", []],
    ]  # fmt: skip
    assert same == [True, 5, "float32"]
    assert (during, after) == (1, 0)  # the session, then nothing
    assert closed == ["runtime.closed", 2]


def test_failures_are_typed_and_leave_nothing_open(classes: Path, tmp_path: Path) -> None:
    code = f"""
bad = [code(lambda: opened("broken"))]
session = opened({MODEL + "fail"!r})
bad.append(code(lambda: session.run(feeds)))
bad.append(code(lambda: session.run({{"x": feeds["x"]}})))
session.close()
xnnpack = SessionOptions(providers=("XnnpackExecutionProvider",))
bad.append(code(lambda: opened({MODEL!r}, xnnpack)))
styled = ONE.for_graph(SessionSettings(), {{"w": np.ones(1, np.float32)}})
bad.append(code(lambda: opened({MODEL!r}, styled)))
print(json.dumps([bad, stub().alive]))
"""
    bad, alive = answer(classes, tmp_path, code)
    assert bad == [
        ["bundle.graph_unreadable", 3],
        ["runtime.run_failed", 6],
        ["runtime.input_mismatch", 3],
        ["provider.unavailable", 5],
        ["provider.unavailable", 5],
    ]
    assert alive == 0


def test_a_cancel_from_another_thread_stops_the_run(classes: Path, tmp_path: Path) -> None:
    code = f"""
session, token = opened({MODEL + "slow"!r}), CancelToken()
threading.Timer(0.1, token.cancel).start()
start = time.monotonic()
stopped = code(lambda: session.run(feeds, cancel=token))
token.cancel()  # the run is over, its options are closed
session.close()
print(json.dumps([stopped, time.monotonic() - start, stub().alive]))
"""
    stopped, seconds, alive = answer(classes, tmp_path, code)
    assert stopped == ["runtime.cancelled", 130]
    assert seconds < 5  # the stub would wait for ten
    assert alive == 0


def test_settings_reach_java(classes: Path, tmp_path: Path) -> None:
    code = f"""
settings = SessionSettings(memory_reuse=False, memory_pattern=False, cpu_arena=False,
                           optimization="basic", prepacking=False)
options = SessionOptions(threads=3, settings=settings, config={{"a": "b"}})
session = opened({MODEL!r}, options)
print(json.dumps([stub().told.splitlines(), list(session.left_out)]))
"""
    told, left_out = answer(classes, tmp_path, code)
    assert sorted(told) == [
        "a=b", "arena=false", "level=BASIC_OPT", "log=ORT_LOGGING_LEVEL_FATAL", "pattern=false",
        "session.disable_prepacking=1", "threads=3",
    ]  # fmt: skip
    assert left_out == ["memory_reuse"]


def test_missing_classes_are_named(classes: Path, tmp_path: Path) -> None:
    code = "print(json.dumps(code(JavaBackend)))"
    empty = tmp_path / "empty"
    empty.mkdir()
    assert answer(empty, tmp_path, code) == ["jni.no_class", 5]


def test_without_pyjnius_the_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jnius", None)
    with pytest.raises(ResourceError, match="jni") as caught:
        JavaBackend()
    assert caught.value.code == "extra.missing"
