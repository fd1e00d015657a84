"""What only the C interface has: its library, its table, memory shared with NumPy, no leaks."""

from __future__ import annotations

import ctypes
import gc
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors_file
import styled_bundle
import tiny_onnx

from hummingbird_runtime import TextToVideoPipeline
from hummingbird_runtime.capi import CapiBackend, find_library, library
from hummingbird_runtime.capi.api import API_VERSION, Api, open_api
from hummingbird_runtime.capi.native import RunOptions
from hummingbird_runtime.capi.options import _nnapi_bits, left_out
from hummingbird_runtime.capi.status import NativeError
from hummingbird_runtime.capi.values import (
    COPIED_BYTES,
    ELEMENT_TYPES,
    OwnedValue,
    array_from,
    value_from,
)
from hummingbird_runtime.errors import HummingbirdError, ResourceError
from hummingbird_runtime.session import SessionOptions
from hummingbird_runtime.session_settings import SessionSettings

ONE_THREAD = SessionOptions(threads=1)
PROMPT = "a red ball moving left"
PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096
needs_proc = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="no /proc")


def doubled(folder: Path) -> Path:
    """y = x + x, of any number of float32."""
    path = folder / "model.onnx"
    side = ("float32", ["N"])
    add = tiny_onnx.node("Add", ["x", "x"], ["y"])
    path.write_bytes(tiny_onnx.model([add], [("x", *side)], [("y", *side)]))
    return path


def resident() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


def code_of(action: Any) -> str:
    with pytest.raises(HummingbirdError) as caught:
        action()
    assert "\n" not in str(caught.value)
    return f"{caught.value.code} {caught.value.exit_code}"


def test_the_library_is_found_in_the_installed_wheel_without_importing_it() -> None:
    code = (
        "import sys; from hummingbird_runtime.capi import CapiBackend; "
        "print(CapiBackend().version, 'onnxruntime' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    version, imported = done.stdout.split()
    assert version in find_library()
    assert imported == "False"
    assert done.stderr == ""


def test_a_library_that_is_not_there_or_is_another_one_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert code_of(lambda: CapiBackend(tmp_path / "gone.so")) == "capi.no_library 5"
    (tmp_path / "text.so").write_text("not a library")
    assert code_of(lambda: CapiBackend(tmp_path / "text.so")) == "capi.bad_library 5"
    other = Path(find_library()).with_name("libonnxruntime_providers_shared.so")
    assert code_of(lambda: CapiBackend(other)) == "capi.bad_library 5"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert code_of(CapiBackend) == "capi.no_library 5"


def test_on_android_the_linker_looks_in_the_app(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library.sys, "platform", "android")
    assert find_library() == "libonnxruntime.so"


class FakeBase(ctypes.Structure):
    _fields_ = (
        ("get_api", ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_uint32)),
        ("get_version", ctypes.CFUNCTYPE(ctypes.c_void_p)),  # an address: nothing to convert
    )


@pytest.mark.parametrize(
    ("version", "asked"),
    [(b"1.13.1", []), (b"0.99.0", []), (b"dev", []), (b"1.14.0", [14]), (b"2.0.0", [14])],
)
def test_a_library_that_is_too_old_is_refused(version: bytes, asked: list[int]) -> None:
    """Whoever is old by its name is not even asked, because ONNX Runtime prints when it is."""
    seen: list[int] = []
    types, text = dict(FakeBase._fields_), ctypes.create_string_buffer(version)
    said = types["get_version"](lambda: ctypes.addressof(text))
    base = FakeBase(types["get_api"](seen.append), said)
    with pytest.raises(ResourceError, match=version.decode()) as caught:
        Api(ctypes.addressof(base), base)
    assert caught.value.code == "capi.old_library"
    assert f"1.{API_VERSION}" in str(caught.value)
    assert seen == asked


def test_statuses_become_the_exceptions_of_the_package(tmp_path: Path) -> None:
    api = open_api(find_library())
    with pytest.raises(NativeError, match="doesn't exist") as caught:
        api.create("CreateSession", api.environment, os.fsencode(tmp_path / "gone"), 0)
    assert type(caught.value).__name__ in ("NoSuchFile", "InvalidArgument")
    options = api.create("CreateSessionOptions")
    with pytest.raises(NativeError) as caught:
        api.call("AddSessionConfigEntry", options, b"", b"x")
    assert type(caught.value).__name__ == "InvalidArgument"
    api.release("SessionOptions", options)


@pytest.mark.parametrize("dtype", ELEMENT_TYPES)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 4), (2, 3, 4)])
def test_a_tensor_is_the_memory_of_its_array(dtype: str, shape: tuple[int, ...]) -> None:
    api = open_api(find_library())
    array = (np.arange(np.prod(shape)) % 2).reshape(shape).astype(dtype)
    value = OwnedValue(api, value_from(api, array))
    assert api.create("GetTensorMutableData", value.handle) == array.ctypes.data
    got = array_from(value)
    assert (got.dtype, got.shape) == (array.dtype, shape)
    np.testing.assert_array_equal(got, array)


def test_text_is_no_tensor() -> None:
    api = open_api(find_library())
    assert code_of(lambda: value_from(api, np.array(["a"]))) == "runtime.input_mismatch 3"


def test_large_outputs_are_views_that_outlive_the_session_and_small_ones_are_copies(
    tmp_path: Path,
) -> None:
    session = CapiBackend().open(doubled(tmp_path), ONE_THREAD)
    small = session.run({"x": np.ones(COPIED_BYTES // 4, np.float32)})["y"]
    large = session.run({"x": np.arange(COPIED_BYTES, dtype=np.float32)})["y"]
    assert small.flags.owndata
    assert isinstance(large.base, OwnedValue)
    session.close()
    del session
    again = CapiBackend().open(doubled(tmp_path), ONE_THREAD)
    again.run({"x": np.zeros(COPIED_BYTES, np.float32)})  # would land in freed memory
    np.testing.assert_array_equal(large, 2 * np.arange(COPIED_BYTES, dtype=np.float32))
    large += 1  # and it is ours to write


def test_inputs_that_are_not_in_c_order_are_taken_as_they_read(tmp_path: Path) -> None:
    session = CapiBackend().open(doubled(tmp_path), ONE_THREAD)
    x = np.arange(20, dtype=np.float32)[::2]
    np.testing.assert_array_equal(session.run({"x": x})["y"], 2 * x)


@needs_proc
def test_a_thousand_runs_leave_no_memory_behind(tmp_path: Path) -> None:
    backend, path = CapiBackend(), doubled(tmp_path)
    session = backend.open(path, ONE_THREAD)
    x = np.ones(2 * COPIED_BYTES, np.float32)  # 8 MiB a run, as a view

    def runs(count: int) -> None:
        for _ in range(count):
            session.run({"x": x[: COPIED_BYTES // 4]})
        for _ in range(count // 20):
            session.run({"x": x})

    runs(100)
    before = resident()
    runs(1000)
    # 50 leaked outputs alone would be 400 MiB, 1000 leaked statuses or options some 100 KiB each
    assert resident() - before < 8 * 2**20


@needs_proc
def test_opening_and_failing_leave_no_memory_behind(tmp_path: Path) -> None:
    backend, path = CapiBackend(), doubled(tmp_path)
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"\xff" * 64)

    def cycle(count: int) -> None:
        for _ in range(count):
            backend.open(path, ONE_THREAD).close()
            assert code_of(lambda: backend.open(broken, ONE_THREAD)).startswith("bundle.")

    cycle(20)
    before = resident()
    cycle(100)
    assert resident() - before < 8 * 2**20  # a session of this graph takes about 300 KiB


def test_a_cancel_that_comes_after_the_run_touches_nothing_freed() -> None:
    options = RunOptions(open_api(find_library()))
    terminate = options.terminate
    del options
    gc.collect()
    terminate()


@pytest.mark.parametrize("name", ["tiny", pytest.param("built-in", marks=pytest.mark.slow)])
def test_latents_equal_those_of_the_package_bit_for_bit(tiny_bundle_path: Path, name: str) -> None:
    path = tiny_bundle_path if name == "tiny" else None
    latents = []
    for backend in (None, CapiBackend()):
        with TextToVideoPipeline.from_pretrained(path, threads=1, backend=backend) as pipe:
            latents.append(
                pipe(PROMPT, seed=7, num_frames=4, num_inference_steps=2, output_type="latent")
            )
    np.testing.assert_array_equal(*latents)


def test_frames_of_a_style_equal_those_of_the_package(tmp_path: Path) -> None:
    bundle = styled_bundle.write(tmp_path / "bundle")
    style = safetensors_file.write(
        tmp_path / "ink.safetensors", styled_bundle.factors(), styled_bundle.FORMAT
    )
    clips = {}
    for name, backend in (("package", None), ("C", CapiBackend())):
        for strength in (0.0, 1.0):
            with TextToVideoPipeline.from_pretrained(
                bundle, style=style, style_strength=strength, threads=1, backend=backend
            ) as pipe:
                clips[name, strength] = pipe(PROMPT, output_type="np")
    np.testing.assert_array_equal(clips["C", 1.0], clips["package", 1.0])
    assert not np.array_equal(clips["C", 1.0], clips["C", 0.0])


def test_settings_reach_the_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple] = []
    real = Api.call

    def call(self: Api, name: str, *arguments: Any) -> None:
        if all(isinstance(value, int | bytes) for value in arguments):
            seen.append((name, *arguments[1:]))
        real(self, name, *arguments)

    monkeypatch.setattr(Api, "call", call)
    settings = SessionSettings(
        memory_reuse=False,
        memory_pattern=False,
        cpu_arena=False,
        optimization="basic",
        prepacking=False,
        disabled_optimizers=("ConstantFolding",),
    )
    config = {"session.intra_op.allow_spinning": "0"}
    options = SessionOptions(threads=3, settings=settings, config=config)
    session = CapiBackend().open(doubled(tmp_path), options)
    assert {
        ("SetSessionLogSeverityLevel", 4),
        ("SetIntraOpNumThreads", 3),
        ("DisableMemPattern",),
        ("DisableCpuMemArena",),
        ("SetSessionGraphOptimizationLevel", 1),
        ("AddSessionConfigEntry", b"session.disable_prepacking", b"1"),
        ("AddSessionConfigEntry", b"session.intra_op.allow_spinning", b"0"),
        (
            "AddSessionConfigEntry",
            b"optimization.disable_specified_optimizers",
            b"ConstantFolding",
        ),
    } <= set(seen)
    assert session.left_out == ("memory_reuse",)
    assert session.run({"x": np.ones(2, np.float32)})["y"].tolist() == [2, 2]
    assert left_out(ONE_THREAD) == ()


def test_an_entry_that_onnx_runtime_refuses_is_one_line(tmp_path: Path) -> None:
    options = SessionOptions(config={"x" * 2000: "1"})
    assert code_of(lambda: CapiBackend().open(doubled(tmp_path), options)).endswith((" 3", " 6"))


def test_a_provider_that_takes_no_node_is_an_error_without_the_cpu(tmp_path: Path) -> None:
    backend, azure = CapiBackend(), "AzureExecutionProvider"
    if azure not in backend.available_providers():
        pytest.skip("this build has no second provider")
    alone = SessionOptions(providers=(azure,))
    path = doubled(tmp_path)
    assert code_of(lambda: backend.open(path, alone)) == "provider.unsupported_nodes 5"
    both = SessionOptions(providers=(azure, "CPUExecutionProvider"), threads=1)
    assert backend.open(path, both).run({"x": np.ones(1, np.float32)})["y"] == 2


def test_nnapi_takes_its_options_as_bits() -> None:
    assert _nnapi_bits({}) == 0
    assert _nnapi_bits({"use_fp16": "1", "use_nchw": "0", "cpu_disabled": "1"}) == 5
    assert code_of(lambda: _nnapi_bits({"fast": "1"})) == "provider.unavailable 5"


def test_the_pipeline_closes_one_graph_before_it_opens_the_next(tiny_bundle_path: Path) -> None:
    with TextToVideoPipeline.from_pretrained(
        tiny_bundle_path, backend=CapiBackend(), low_memory=True, threads=1
    ) as pipe:
        video = pipe(PROMPT, seed=3)
    assert (
        video.frames.shape[0]
        == json.loads((tiny_bundle_path / "manifest.json").read_text("utf-8"))["model"]["frames"][
            "default"
        ]
    )
