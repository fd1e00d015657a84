"""Graphs in a process of their own: the same numbers, typed failures, nothing left behind."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import lowered_networks as nets
import numpy as np
import pytest

from hummingbird_export import calibration_process, graph_process
from hummingbird_export import compile as compiling
from hummingbird_export.calibration_process import calibrate_apart
from hummingbird_export.graph_process import GraphProcess
from hummingbird_export.quantize import calibrate
from hummingbird_export.storage import save_graph
from hummingbird_export.wrappers import Feeds, example_feeds, unet_graph
from hummingbird_runtime.errors import ExecutionError, ResourceError
from hummingbird_runtime.manifest import SessionSettings

posix = pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
SETTINGS = SessionSettings(
    memory_reuse=False,
    memory_pattern=False,
    cpu_arena=True,
    optimization="basic",
    prepacking=False,
    disabled_optimizers=("ConstantFolding",),
)


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``unet/model.onnx`` of a small U-Net in pieces."""
    folder = tmp_path_factory.mktemp("graphs") / "unet"
    folder.mkdir()
    return save_graph(nets.lower(nets.unet("one"), nets.FORMS["pieces"]), folder)


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Temporary files go here, and are gone after every test."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    assert list(folder.iterdir()) == []


def feeds(seed: int = 0, **sizes: int) -> Feeds:
    _, signature = unet_graph(nets.unet("one"), tokens=nets.TOKENS)
    return example_feeds(signature, {"F": 4, "h": 3, "w": 2} | sizes, seed=seed)


def test_it_gives_what_a_session_in_this_process_gives(graph: Path):
    with compiling.opened(graph, SETTINGS) as here, GraphProcess(graph, SETTINGS) as there:
        assert not isinstance(here, GraphProcess)
        for seed, frames in enumerate((3, 5)):
            asked = feeds(seed, F=frames)
            np.testing.assert_allclose(there(asked), here(asked), rtol=1e-5, atol=1e-6)
        child = there._child
        peak = there.peak_memory()
        assert child.poll() is None
    assert child.poll() is not None
    assert peak is None or 2**20 < peak < 2**34


def test_a_large_graph_is_opened_apart(graph: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(compiling, "EXTERNAL_THRESHOLD", 0)
    with compiling.opened(graph, SessionSettings()) as run:
        assert isinstance(run, GraphProcess)
        assert run(feeds()).shape == (1, 4, 4, 3, 2)


def test_every_setting_reaches_the_session(
    graph: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch
):
    questions = []

    def ask(self: GraphProcess, question: dict) -> dict:
        questions.append(json.loads(json.dumps(question)))
        return {}

    with monkeypatch.context() as patch:
        patch.setattr(GraphProcess, "_ask", ask)
        with GraphProcess(graph, SETTINGS, threads=1):
            pass
    assert all(value not in (None, ()) for value in dataclasses.asdict(SETTINGS).values())
    opened = []
    monkeypatch.setattr(
        graph_process.OnnxRuntimeBackend, "open", lambda self, *arguments: opened.append(arguments)
    )
    graph_process._answer(questions[0], {})
    ((path, options),) = opened
    assert (path, options.settings, options.threads) == (graph, SETTINGS, 1)


def test_settings_are_the_childs_business(graph: Path):
    wrong = dataclasses.replace(SETTINGS, optimization="nonsense")  # type: ignore[arg-type]
    with pytest.raises(ExecutionError, match="'nonsense'; the file is"), GraphProcess(graph, wrong):
        pass


@posix
@pytest.mark.parametrize("busy", [False, True], ids=["idle", "busy"])
def test_a_child_that_dies_is_a_typed_error(graph: Path, busy: bool):
    with GraphProcess(graph) as process:
        child = process._child
        if busy:  # stopped, so that it cannot be faster than the kill
            os.kill(child.pid, signal.SIGSTOP)
            threading.Timer(0.2, os.kill, (child.pid, signal.SIGKILL)).start()
        else:
            child.kill()
            child.wait()
        with pytest.raises(ExecutionError, match="graph unet: its process ended with") as caught:
            process(feeds())
        assert caught.value.code == "export.verify"
        assert f"status -{signal.SIGKILL:d}" in str(caught.value)


def test_a_broken_file_is_a_typed_error_and_ends_the_child(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    children = []
    start = subprocess.Popen

    def started(*arguments, **options) -> subprocess.Popen:
        children.append(start(*arguments, **options))
        return children[-1]

    monkeypatch.setattr(subprocess, "Popen", started)
    path = tmp_path / "vae_decoder" / "model.onnx"
    path.parent.mkdir()
    path.write_bytes(b"no graph at all")
    with pytest.raises(ExecutionError, match="graph vae_decoder: ") as caught, GraphProcess(path):
        pass
    assert caught.value.code == "export.verify"
    assert "\n" not in str(caught.value)
    assert len(children) == 1
    assert children[0].poll() is not None


def test_a_run_that_fails_is_typed_and_the_next_one_works(graph: Path):
    asked = feeds()
    with GraphProcess(graph) as process:
        with pytest.raises(ExecutionError, match="graph unet: ") as caught:
            process({**asked, "encoder_hidden_states": np.zeros((1, 5, 7), np.float32)})
        assert caught.value.code == "export.verify"
        assert process(asked).shape == (1, 4, 4, 3, 2)


def test_an_error_of_the_caller_ends_the_child(graph: Path):
    process = GraphProcess(graph)
    with pytest.raises(ZeroDivisionError), process:
        raise ZeroDivisionError
    assert process._child.poll() is not None


def test_no_process_is_a_resource_error(graph: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*arguments, **options):
        raise OSError("too many processes")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    with pytest.raises(ResourceError, match="too many processes") as caught, GraphProcess(graph):
        pass
    assert caught.value.code == "export.process"


def test_calibration_apart_observes_the_same(graph: Path):
    samples = [feeds(1), feeds(2, F=6)]
    here, there = calibrate(graph, samples), calibrate_apart(graph, samples)
    assert here.keys() == there.keys()
    assert here
    for name, seen in here.items():
        assert (seen.values, seen.rank) == (there[name].values, there[name].rank)
        for side in ("source", "result"):
            for statistic in ("low", "high", "mean", "square"):
                np.testing.assert_allclose(
                    getattr(getattr(there[name], side), statistic),
                    getattr(getattr(seen, side), statistic),
                    rtol=1e-4, atol=1e-5, err_msg=name,
                )  # fmt: skip


@pytest.mark.slow
def test_a_calibration_that_fails_tells_the_childs_last_words(graph: Path):
    wrong = {**feeds(), "encoder_hidden_states": np.full((1, 5, 6), np.nan, np.float32)}
    with pytest.raises(ExecutionError, match="not finite") as caught:
        calibrate_apart(graph, [wrong])
    assert caught.value.code == "export.calibration"
    assert calibration_process.__name__.endswith("process")
