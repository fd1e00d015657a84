"""Graphs opened and run: signatures, cancel, strict providers, typed errors without C++ paths."""

from __future__ import annotations

import dataclasses
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import tiny_bundle
import tiny_onnx

from hummingbird_runtime.cancel import CancelToken
from hummingbird_runtime.errors import (
    Cancelled,
    ExecutionError,
    HummingbirdError,
    InputError,
    IntegrityError,
    ResourceError,
    UsageError,
)
from hummingbird_runtime.manifest import Tensor
from hummingbird_runtime.session import CPU, OnnxRuntimeBackend, Session, SessionOptions
from hummingbird_runtime.session_errors import load_error, plain_text, run_error
from hummingbird_runtime.signature import check_signature

ONE_THREAD = SessionOptions(threads=1)
X = ("x", "float32", ["B", 4])
Y = ("y", "float32", ["B", 4])


def opened(folder: Path, model: bytes, options: SessionOptions = ONE_THREAD) -> Session:
    path = folder / "model.onnx"
    path.write_bytes(model)
    return OnnxRuntimeBackend().open(path, options)


def relu(**options) -> bytes:
    return tiny_onnx.model([tiny_onnx.node("Relu", ["x"], ["y"])], [X], [Y], **options)


def slow_model(nodes: int) -> bytes:
    """A chain of matrix products; each takes about a millisecond."""
    weight = np.eye(256, dtype=np.float32)
    names = ["x", *(f"t{i}" for i in range(nodes - 1)), "y"]
    chain = [tiny_onnx.node("MatMul", [names[i], "w"], [names[i + 1]]) for i in range(nodes)]
    sides = [(name, "float32", ["N", 256]) for name in ("x", "y")]
    return tiny_onnx.model(chain, sides[:1], sides[1:], {"w": weight})


def refusal(folder: Path, model: bytes, options: SessionOptions = ONE_THREAD) -> HummingbirdError:
    with pytest.raises(HummingbirdError) as caught:
        opened(folder, model, options)
    text = str(caught.value)
    assert "\n" not in text
    assert ".cc:" not in text
    assert "onnxruntime::" not in text
    assert "ONNXRuntimeError" not in text
    return caught.value


def test_a_graph_runs_and_tells_its_signature(tmp_path: Path) -> None:
    session = opened(tmp_path, relu())
    assert session.inputs == (Tensor("x", "float32", ("B", 4)),)
    assert session.outputs == (Tensor("y", "float32", ("B", 4)),)
    x = np.array([[-1, 2, -3, 4]], np.float32)
    np.testing.assert_array_equal(session.run({"x": x})["y"], np.maximum(x, 0))


@pytest.mark.parametrize(
    ("feeds", "named"),
    [
        ({}, "inputs"),
        ({"z": np.zeros((1, 4), np.float32)}, "inputs"),
        ({"x": np.zeros((1, 4), np.float64)}, "input x"),
        ({"x": np.zeros((1, 4), np.float16)}, "input x"),
        ({"x": np.zeros((1, 5), np.float32)}, "input x"),
        ({"x": np.zeros(4, np.float32)}, "input x"),
    ],
)
def test_feeds_that_do_not_fit_are_refused_before_the_run(
    tmp_path: Path, feeds: dict, named: str
) -> None:
    session = opened(tmp_path, relu())
    with pytest.raises(InputError, match=named) as caught:
        session.run(feeds)
    assert caught.value.code == "runtime.input_mismatch"
    assert session.run({"x": np.zeros((1, 4), np.float32)})["y"].shape == (1, 4)


def external(location: str) -> bytes:
    f = tiny_onnx.field
    entry = f(13, f(1, "location") + f(2, location))
    raw = f(1, 4) + f(2, 1) + f(8, "w") + entry + f(14, 1)
    add = tiny_onnx.node("Add", ["x", "w"], ["y"])
    return tiny_onnx.model([add], [X], [Y], raw_constants=[raw])


@pytest.mark.parametrize(
    ("model", "code", "exit_code"),
    [
        (b"", "bundle.graph_unreadable", 3),
        (b"\xff" * 64, "bundle.graph_unreadable", 3),
        (relu()[:40], "bundle.graph_unreadable", 3),
        (relu(opset=99), "bundle.unsupported_opset", 3),
        (relu(ir_version=99), "bundle.unsupported_opset", 3),
        (external("../x"), "bundle.unsafe_path", 4),
        (external("/etc/passwd"), "bundle.unsafe_path", 4),
        (external("gone"), "bundle.unsafe_path", 4),
        (
            tiny_onnx.model(
                [tiny_onnx.node("MatMul", ["x", "x"], ["y"], domain="evil")],
                [X],
                [Y],
                domains=["evil"],
            ),
            "bundle.op_not_allowed",
            4,
        ),
        (
            tiny_onnx.model([tiny_onnx.node("Reluu", ["x"], ["y"])], [X], [Y]),
            "bundle.op_not_allowed",
            4,
        ),
    ],
    ids=range(10),
)
def test_bad_graphs_give_typed_errors(
    tmp_path: Path, model: bytes, code: str, exit_code: int
) -> None:
    error = refusal(tmp_path, model)
    assert (error.code, error.exit_code) == (code, exit_code)


def test_a_version_error_says_both_versions(tmp_path: Path) -> None:
    assert "opset 99" in str(refusal(tmp_path, relu(opset=99)))
    assert "IR version 99" in str(refusal(tmp_path, relu(ir_version=99)))


def test_too_much_memory_is_a_resource_error_and_the_session_lives(tmp_path: Path) -> None:
    nodes = [
        tiny_onnx.node("Expand", ["x", "s"], ["big"]),
        tiny_onnx.node("ReduceSum", ["big"], ["y"], keepdims=0),
    ]
    inputs = [("x", "float32", [1]), ("s", "int64", [2])]
    session = opened(tmp_path, tiny_onnx.model(nodes, inputs, [("y", "float32", [])]))
    x = np.ones(1, np.float32)
    with pytest.raises(ResourceError) as caught:
        session.run({"x": x, "s": np.array([1 << 18, 1 << 18])})
    assert caught.value.code == "resource.memory"
    assert session.run({"x": x, "s": np.array([2, 3])})["y"] == 6


def test_a_failing_run_is_one_line(tmp_path: Path) -> None:
    nodes = [tiny_onnx.node("Reshape", ["x", "s"], ["y"])]
    inputs = [X, ("s", "int64", [1])]
    session = opened(tmp_path, tiny_onnx.model(nodes, inputs, [("y", "float32", ["N"])]))
    with pytest.raises(ExecutionError) as caught:
        session.run({"x": np.zeros((1, 4), np.float32), "s": np.array([5])})
    text = str(caught.value)
    assert caught.value.code == "runtime.run_failed"
    assert "Reshape" in text
    assert ".cc" not in text
    assert "\n" not in text


def test_unknown_failures_stay_readable() -> None:
    text = (
        "[ONNXRuntimeError] : 1 : FAIL : Load model from /a/b c.onnx failed:/src/graph/model.cc"
        ":12 void onnxruntime::Model::Load(const std::string&, int) const Something new\nhappened"
    )
    assert plain_text("x" * 100_000).endswith("...")  # and it takes no time
    assert plain_text("a.cc:" * 1000).endswith("...")
    assert plain_text(text) == "Something new happened"
    assert load_error(RuntimeError(text), "unet").code == "runtime.load_failed"
    assert run_error(RuntimeError("x" * 1000), "unet").code == "runtime.run_failed"
    assert len(run_error(RuntimeError("x" * 1000), "unet").message) < 330
    assert load_error(MemoryError(), "unet").code == "resource.memory"
    assert run_error(MemoryError(), "unet").code == "resource.memory"


def test_a_provider_that_is_not_there_lists_those_that_are(tmp_path: Path) -> None:
    error = refusal(tmp_path, relu(), SessionOptions(providers=("NoSuchExecutionProvider",)))
    assert (error.code, error.exit_code) == ("provider.unavailable", 5)
    assert "CPUExecutionProvider" in str(error)
    mixed = SessionOptions(providers=("CPUExecutionProvider", "NoSuchExecutionProvider"))
    assert refusal(tmp_path, relu(), mixed).code == "provider.unavailable"


def test_a_provider_that_cannot_start_is_named(tmp_path: Path) -> None:
    start = RuntimeError("[ONNXRuntimeError] : 11 : EP_FAIL : Failed to get a WebGPU adapter")
    error = load_error(start, "unet", ("WebGpuExecutionProvider", CPU))
    assert (error.code, error.exit_code) == ("provider.failed", 5)
    assert error.message == (
        "graph unet: WebGpuExecutionProvider cannot open it: Failed to get a WebGPU adapter"
    )
    assert load_error(start, "unet").code == "runtime.load_failed"


@pytest.mark.parametrize(
    "text",
    [
        "std::bad_alloc",
        "PosixThread(const ThreadOptions&) pthread_create failed, error code: 12 error msg: Cannot "
        "allocate memory",
    ],
)
def test_memory_that_runs_out_while_a_graph_is_opened_is_exit_5(text: str) -> None:
    for providers in ((CPU,), ("WebGpuExecutionProvider",)):
        error = load_error(RuntimeError(text), "unet", providers)
        assert (error.code, error.exit_code) == ("resource.memory", 5)


@pytest.mark.parametrize("threads", [0, -1, 100_000])
def test_thread_counts_that_make_no_sense_are_refused(threads: int) -> None:
    with pytest.raises(UsageError) as caught:
        SessionOptions(threads=threads)
    assert caught.value.code == "session.threads"


def test_an_empty_provider_list_is_refused() -> None:
    with pytest.raises(UsageError) as caught:
        SessionOptions(providers=())
    assert caught.value.code == "provider.none"


def test_extra_settings_reach_the_session(tmp_path: Path) -> None:
    options = SessionOptions(threads=1, config={"session.intra_op.allow_spinning": "0"})
    assert opened(tmp_path, relu(), options).inputs


def test_cancel_stops_a_run_between_nodes_and_the_session_stays_usable(tmp_path: Path) -> None:
    session = opened(tmp_path, slow_model(400))
    feeds = {"x": np.ones((512, 256), np.float32)}
    token, native, finished = CancelToken(), session._native, []

    class Watched:
        def run(self, names, feeds, options):
            threading.Timer(0.02, token.cancel).start()
            values = native.run(names, feeds, options)
            finished.append("the graph ran to its end")
            return values

    session._native = Watched()
    with pytest.raises(Cancelled) as caught:
        session.run(feeds, cancel=token)
    assert caught.value.code == "runtime.cancelled"
    assert finished == []
    session._native = native
    assert session.run(feeds, cancel=CancelToken())["y"].shape == (512, 256)


def test_a_cancelled_token_never_starts_a_run(tmp_path: Path) -> None:
    session, token = opened(tmp_path, relu()), CancelToken()
    token.cancel()
    with pytest.raises(Cancelled):
        session.run({"x": np.zeros((1, 4), np.float32)}, cancel=token)


def test_a_result_that_came_after_a_cancel_is_not_given_out(tmp_path: Path) -> None:
    """ONNX Runtime does not interrupt a single node; the flag is looked at again after it."""
    path = tmp_path / "model.onnx"
    path.write_bytes(relu())
    session = OnnxRuntimeBackend().open(path, ONE_THREAD)
    token = CancelToken()

    class Late:
        def run(self, names, feeds, options):
            token.cancel()
            return [np.zeros((1, 4), np.float32)]

    session._native = Late()
    with pytest.raises(Cancelled):
        session.run({"x": np.zeros((1, 4), np.float32)}, cancel=token)


def test_tokens_wake_watchers_once_set_and_forget_them_afterwards() -> None:
    token, woken = CancelToken(), []
    with token.watch(lambda: woken.append("a")):
        token.cancel()
    assert woken == ["a"]
    with token.watch(lambda: woken.append("b")):
        pass
    token.cancel()
    assert woken == ["a", "b"]
    assert token.cancelled
    with pytest.raises(Cancelled):
        token.raise_if_cancelled()


def test_runs_from_many_threads_never_mix(tmp_path: Path) -> None:
    session = opened(tmp_path, slow_model(4))
    wrong = []

    def body(value: int) -> None:
        feeds = {"x": np.full((8, 256), value, np.float32)}
        for _ in range(20):
            if not (session.run(feeds)["y"] == value).all():
                wrong.append(value)

    threads = [threading.Thread(target=body, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_close_waits_for_a_run_and_refuses_the_next(tmp_path: Path) -> None:
    session = opened(tmp_path, slow_model(100))
    feeds = {"x": np.ones((512, 256), np.float32)}
    results: list[object] = []
    thread = threading.Thread(target=lambda: results.append(session.run(feeds)["y"].shape))
    thread.start()
    while not session._running and thread.is_alive():
        time.sleep(0.001)
    session.close()
    assert not session._running
    thread.join()
    assert results == [(512, 256)], "the run was cut off"
    session.close()
    with pytest.raises(UsageError) as caught:
        session.run(feeds)
    assert caught.value.code == "runtime.closed"


@pytest.mark.parametrize("role", ["text_encoder", "unet", "vae_decoder"])
def test_every_graph_of_the_tiny_bundle_has_its_signature(
    tiny_bundle_path: Path, role: str
) -> None:
    graph = tiny_bundle.graphs()[role]
    session = OnnxRuntimeBackend().open(tiny_bundle_path / graph.path, ONE_THREAD)
    check_signature(session, graph, role)


@pytest.mark.parametrize(
    "change",
    [
        {"inputs": (Tensor("z", "float32", ("B", 4)),)},
        {"inputs": (Tensor("x", "float16", ("B", 4)),)},
        {"inputs": (Tensor("x", "float32", ("B", 5)),)},
        {"inputs": (Tensor("x", "float32", ("B", "N")),)},
        {"inputs": (Tensor("x", "float32", ("B", 4, 1)),)},
        {"inputs": ()},
        {"outputs": (Tensor("y", "float32", ("B", 3)),)},
        {"outputs": (Tensor("x", "float32", ("B", 4)),)},
    ],
    ids=range(8),
)
def test_a_graph_that_is_not_the_listed_one_is_refused(tmp_path: Path, change: dict) -> None:
    session = opened(tmp_path, relu())
    graph = dataclasses.replace(
        tiny_bundle.graphs()["unet"], inputs=(Tensor(*X[:2], ("B", 4)),),
        outputs=(Tensor(*Y[:2], ("B", 4)),),
    )  # fmt: skip
    check_signature(session, graph, "unet")
    with pytest.raises(IntegrityError) as caught:
        check_signature(session, dataclasses.replace(graph, **change), "unet")
    assert caught.value.code == "bundle.signature_mismatch"
    assert caught.value.exit_code == 4
