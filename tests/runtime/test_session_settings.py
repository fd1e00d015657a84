"""How a bundle wants its graphs opened reaches ONNX Runtime, and the caller's word wins."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest
import tiny_bundle
import tiny_onnx
from fake_graphs import PROMPT, FakeBackend

from hummingbird_runtime import TextToVideoPipeline
from hummingbird_runtime.native_options import native_options
from hummingbird_runtime.placement import RECORD
from hummingbird_runtime.session import CPU, OnnxRuntimeBackend, SessionOptions
from hummingbird_runtime.session_settings import OPTIMIZERS, SessionSettings

PREPACKING = "session.disable_prepacking"
EVERYTHING = SessionSettings(
    memory_reuse=False,
    memory_pattern=False,
    cpu_arena=False,
    optimization="basic",
    prepacking=False,
    disabled_optimizers=OPTIMIZERS,
)


class Recorder:
    """Stands in for ``onnxruntime.SessionOptions`` and remembers what was set, and nothing else."""

    def __init__(self) -> None:
        self.__dict__["seen"] = {}

    def __setattr__(self, name: str, value: object) -> None:
        self.seen[name] = value

    def add_session_config_entry(self, key: str, value: str) -> None:
        assert isinstance(value, str)
        self.seen[key] = value

    def add_provider(self, name: str, options: dict[str, str]) -> None:
        self.seen.setdefault("providers", []).append((name, options))


LEVELS = SimpleNamespace(
    ORT_DISABLE_ALL=0, ORT_ENABLE_BASIC=1, ORT_ENABLE_EXTENDED=2, ORT_ENABLE_LAYOUT=3,
    ORT_ENABLE_ALL=99,
)  # fmt: skip
FAKE = SimpleNamespace(SessionOptions=Recorder, GraphOptimizationLevel=LEVELS)


def recorded(settings: SessionSettings, **options: Any) -> dict[str, Any]:
    seen = native_options(FAKE, SessionOptions(settings=settings, **options))[0].seen
    assert seen.pop("log_severity_level") == 4
    return seen


def test_nothing_said_leaves_every_default_alone() -> None:
    assert recorded(SessionSettings()) == {}


@pytest.mark.parametrize("value", [True, False])
@pytest.mark.parametrize(
    ("name", "native"),
    [
        ("memory_reuse", "enable_mem_reuse"),
        ("memory_pattern", "enable_mem_pattern"),
        ("cpu_arena", "enable_cpu_mem_arena"),
    ],
)
def test_each_switch_reaches_its_own_option(name: str, native: str, value: bool) -> None:
    assert recorded(SessionSettings(**{name: value})) == {native: value}


@pytest.mark.parametrize(
    ("name", "level"),
    [("disabled", 0), ("basic", 1), ("extended", 2), ("layout", 3), ("all", 99)],
)
def test_each_level_has_its_name(name: Any, level: int) -> None:
    assert recorded(SessionSettings(optimization=name)) == {"graph_optimization_level": level}


def test_prepacking_is_a_configuration_entry_that_the_callers_own_overrides() -> None:
    assert recorded(SessionSettings(prepacking=False)) == {PREPACKING: "1"}
    assert recorded(SessionSettings(prepacking=True)) == {PREPACKING: "0"}
    assert recorded(SessionSettings(prepacking=False), config={PREPACKING: "0"}) == {
        PREPACKING: "0"
    }


def test_providers_threads_and_entries_are_kept() -> None:
    seen = recorded(SessionSettings(), providers=("X",), threads=3, config={"a": "b"})
    assert seen == {
        "intra_op_num_threads": 3, "session.disable_cpu_ep_fallback": "1", "a": "b",
        RECORD: "1", "providers": [("X", {})],
    }  # fmt: skip
    beside = recorded(SessionSettings(), providers=("X", CPU))
    assert beside == {RECORD: "1", "providers": [("X", {})]}


def test_onnx_runtime_takes_all_of_them() -> None:
    native, _ = native_options(onnxruntime, SessionOptions(settings=EVERYTHING))
    assert not native.enable_mem_reuse
    assert not native.enable_mem_pattern
    assert not native.enable_cpu_mem_arena
    level = onnxruntime.GraphOptimizationLevel
    assert native.graph_optimization_level == level.ORT_ENABLE_BASIC
    assert native.get_session_config_entry(PREPACKING) == "1"
    untouched, _ = native_options(onnxruntime, SessionOptions())
    assert untouched.enable_mem_reuse
    assert untouched.graph_optimization_level == level.ORT_ENABLE_ALL
    for name in ("disabled", "basic", "extended", "layout", "all"):
        settings = SessionSettings(optimization=name)
        native_options(onnxruntime, SessionOptions(settings=settings))


def test_disabled_optimizers_are_left_out_of_the_rewriting(tmp_path: Path) -> None:
    """Two constants added in the graph: with folding, ONNX Runtime keeps their sum alone."""
    nodes = [
        tiny_onnx.node("Add", ["a", "b"], ["ab"]),
        tiny_onnx.node("Mul", ["x", "ab"], ["y"]),
    ]
    side = ("float32", ["N"])
    constants = {name: np.ones(1, np.float32) for name in "ab"}
    path = tmp_path / "model.onnx"
    path.write_bytes(tiny_onnx.model(nodes, [("x", *side)], [("y", *side)], constants))
    written = {}
    for name, disabled in (("folded", ()), ("kept", OPTIMIZERS)):
        out = tmp_path / f"{name}.onnx"
        native, _ = native_options(onnxruntime, SessionOptions())
        native.optimized_model_filepath = str(out)
        patched = SimpleNamespace(**vars(onnxruntime) | {"SessionOptions": lambda n=native: n})
        settings = SessionSettings(disabled_optimizers=disabled)
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(__import__("sys").modules, "onnxruntime", patched)
            session = OnnxRuntimeBackend().open(path, SessionOptions(settings=settings))
        assert session.run({"x": np.ones(2, np.float32)})["y"].tolist() == [2, 2]
        written[name] = out.read_bytes().count(b"Add")
    assert written["folded"] < written["kept"]


def opened(path: Path, **arguments: Any) -> dict[str, SessionSettings]:
    """Settings that each graph was opened with, by role."""
    backend, seen = FakeBackend(), {}
    real_open = backend.open

    def note(path: Path, options: SessionOptions) -> Any:
        seen[path.parent.name] = options.settings
        return real_open(path, options)

    backend.open = note
    with TextToVideoPipeline.from_pretrained(path, backend=backend, **arguments) as pipe:
        pipe(PROMPT)
    return seen


@pytest.fixture
def frugal(tmp_path: Path) -> Path:
    graphs = tiny_bundle.graphs()
    graphs["unet"] = dataclasses.replace(graphs["unet"], session=EVERYTHING)
    return tiny_bundle.write(tmp_path / "frugal", graphs=graphs)


def test_each_graph_is_opened_with_its_own_settings(frugal: Path) -> None:
    assert opened(frugal) == {
        "text_encoder": SessionSettings(), "unet": EVERYTHING, "vae_decoder": SessionSettings()
    }  # fmt: skip


def test_what_the_caller_says_wins_and_the_rest_stays_the_bundles(frugal: Path) -> None:
    mine = SessionSettings(memory_reuse=True, optimization="all")
    seen = opened(frugal, session_settings=mine)
    assert seen["unet"] == dataclasses.replace(EVERYTHING, memory_reuse=True, optimization="all")
    assert seen["vae_decoder"] == mine


def test_a_bundle_with_settings_draws_what_it_draws_without(
    frugal: Path, tiny_bundle_path: Path
) -> None:
    clips = []
    for path in (frugal, tiny_bundle_path):
        with TextToVideoPipeline.from_pretrained(path, threads=1) as pipe:
            clips.append(pipe(PROMPT, seed=3).frames)
    np.testing.assert_array_equal(*clips)
