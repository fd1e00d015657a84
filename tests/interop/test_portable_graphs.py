"""Portable graphs are plain ONNX: checked, equal at every optimization level, in every engine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from graph_feeds import random_feeds

from hummingbird_runtime import InputError, IntegrityError
from hummingbird_runtime.bundle import Bundle
from hummingbird_runtime.session import OnnxRuntimeBackend, SessionOptions

pytestmark = pytest.mark.interop

NAMES = ("ddim, embedded", "ddim, two passes")
ROLES = ("text_encoder", "unet", "vae_decoder")

every_graph = pytest.mark.parametrize(("name", "role"), [(n, r) for n in NAMES for r in ROLES])


@pytest.fixture(scope="module")
def opened(bundles: Callable[[str], Path]) -> Callable[[str], Bundle]:
    return lambda name: Bundle.open(bundles(name))


def relative_error(got: np.ndarray, expected: np.ndarray) -> float:
    assert got.shape == expected.shape
    return float(np.abs(got - expected).max() / np.abs(expected).max())


def by_runtime(bundle: Bundle, role: str, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    session = OnnxRuntimeBackend().open(bundle.path(role), SessionOptions(threads=2))
    try:
        return session.run(feeds)
    finally:
        session.close()


@every_graph
def test_the_full_check_of_onnx_passes(opened: Callable[[str], Bundle], name: str, role: str):
    onnx = pytest.importorskip("onnx")
    path = opened(name).path(role)
    onnx.checker.check_model(str(path), full_check=True)
    domains = {o.domain for o in onnx.load(str(path), load_external_data=False).opset_import}
    assert domains <= {"", "ai.onnx"}


@every_graph
def test_every_optimization_level_computes_the_same(
    opened: Callable[[str], Bundle], name: str, role: str
):
    ort = pytest.importorskip("onnxruntime")
    bundle = opened(name)
    feeds = random_feeds(bundle.graph(role))
    levels = ort.GraphOptimizationLevel
    results = {}
    for level in ("DISABLE_ALL", "ENABLE_BASIC", "ENABLE_EXTENDED", "ENABLE_LAYOUT", "ENABLE_ALL"):
        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = 2
        options.graph_optimization_level = getattr(levels, f"ORT_{level}")
        session = ort.InferenceSession(
            str(bundle.path(role)), options, providers=["CPUExecutionProvider"]
        )
        (results[level],) = session.run(None, feeds)
    reference = results.pop("DISABLE_ALL")
    assert np.abs(reference).max() > 1e-3
    # fused kernels sum in another order: a few float32 roundings over some hundred layers
    errors = {level: relative_error(got, reference) for level, got in results.items()}
    assert max(errors.values()) <= 1e-4, errors


@every_graph
def test_openvino_has_every_operation(
    openvino: ModuleType, opened: Callable[[str], Bundle], name: str, role: str
):
    from hummingbird_export.interop.openvino_graph import unsupported_operations

    assert unsupported_operations(opened(name).path(role)) == []


@pytest.mark.parametrize("static", [False, True], ids=["free sizes", "static"])
@every_graph
def test_openvino_computes_the_same(
    openvino: ModuleType, opened: Callable[[str], Bundle], name: str, role: str, static: bool
):
    from hummingbird_export.interop import openvino_model

    bundle = opened(name)
    feeds = random_feeds(bundle.graph(role))
    shapes = {key: array.shape for key, array in feeds.items()} if static else None
    graph = openvino_model(bundle.path(role), shapes=shapes, threads=2)
    assert graph.compiled.get_property("INFERENCE_PRECISION_HINT").to_string() == "f32"
    expected = by_runtime(bundle, role, feeds)
    got = graph(feeds)
    assert got.keys() == expected.keys()
    for key, array in expected.items():
        assert relative_error(got[key], array) <= 1e-3, key
    if not static:  # other sizes, without a second compilation
        larger = {
            key: np.concatenate([array, array], axis=2) if key == "sample" else array
            for key, array in feeds.items()
        }
        for key, array in by_runtime(bundle, role, larger).items():
            assert relative_error(graph(larger)[key], array) <= 1e-3, key


@every_graph
def test_diffusers_gives_the_very_same_arrays(
    optimum: ModuleType, opened: Callable[[str], Bundle], name: str, role: str
):
    import onnxruntime as ort

    bundle = opened(name)
    feeds = random_feeds(bundle.graph(role))
    options = ort.SessionOptions()
    options.intra_op_num_threads = 2
    part = optimum.load_part(bundle, role, session_options=options)
    assert type(part).__name__ == "OnnxRuntimeModel"
    (expected,) = by_runtime(bundle, role, feeds).values()
    (got,) = part(**feeds)
    assert np.array_equal(got, expected)


def test_diffusers_part_of_a_folder_is_verified_first(
    optimum: ModuleType, tiny_bundle_path: Path, tmp_path: Path
):
    import shutil

    folder = shutil.copytree(tiny_bundle_path, tmp_path / "bundle")
    assert optimum.load_part(folder, "vae_decoder")(
        latent_sample=np.zeros((1, 4, 2, 2), np.float32)
    )[0].shape == (1, 3, 16, 16)
    (folder / "LICENSE").write_bytes(b"for rests\n")
    with pytest.raises(IntegrityError) as caught:
        optimum.load_part(folder, "vae_decoder")
    assert caught.value.code == "bundle.hash_mismatch"


def test_a_graph_that_openvino_lacks_is_one_line(openvino: ModuleType, tmp_path: Path):
    onnx = pytest.importorskip("onnx")
    from hummingbird_export.interop import openvino_model

    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    x, y = (helper.make_tensor_value_info(name, kind, [1, 4, 8]) for name in "xy")
    node = helper.make_node("NoSuchOperator", ["x"], ["y"], domain="com.microsoft")
    model = helper.make_model(
        helper.make_graph([node], "g", [x], [y]),
        opset_imports=[helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)],
    )
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(InputError, match="NoSuchOperator") as caught:
        openvino_model(tmp_path / "model.onnx")
    assert caught.value.code == "interop.openvino"
    assert "\n" not in str(caught.value)
