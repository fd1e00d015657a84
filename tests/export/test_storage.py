"""Graph files: no trace of the exporting machine, the same bytes every time, mappable weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

from hummingbird_export import storage
from hummingbird_export.storage import MAP_ALIGNMENT, PLAIN_ALIGNMENT, save_graph, weight_bytes


@pytest.fixture
def model() -> ir.Model:
    proto = onnx.parser.parse_model("""
        <ir_version: 10, opset_import: ["" : 18]>
        graph (float[B,200] x) => (float[B,200] y) {
            a = MatMul(x, first)
            b = MatMul(a, second)
            y = Add(b, bias)
        }
    """)
    rng = np.random.default_rng(0)
    for name, shape in (("first", (200, 200)), ("second", (200, 200)), ("bias", (200,))):
        array = rng.standard_normal(shape).astype(np.float32)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    proto.doc_string = "made by somebody in some folder"
    loaded = ir.from_proto(onnx.shape_inference.infer_shapes(proto))
    for node in loaded.graph:
        node.metadata_props["stack"] = "File secret/place.py"
        node.doc_string = "secret"
    return loaded


def run(path: Path) -> np.ndarray:
    x = np.linspace(-1, 1, 400, dtype=np.float32).reshape(2, 200)
    return onnxruntime.InferenceSession(str(path)).run(None, {"x": x})[0]


def test_small_models_are_one_file_without_origin(model: ir.Model, tmp_path: Path):
    path = save_graph(model, tmp_path, metadata={"hummingbird.role": "unet"})
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]
    data = path.read_bytes()
    assert b"secret" not in data
    assert b"somebody" not in data
    loaded = onnx.load(path)
    assert {p.key: p.value for p in loaded.metadata_props} == {"hummingbird.role": "unet"}
    assert not loaded.graph.value_info


def test_the_same_model_gives_the_same_bytes(model: ir.Model, tmp_path: Path):
    folders = [tmp_path / name for name in "ab"]
    for folder in folders:
        folder.mkdir()
    first, second = (save_graph(model, folder).read_bytes() for folder in folders)
    assert first == second


@pytest.mark.parametrize(
    ("large", "alignment"), [(1000, MAP_ALIGNMENT), (1_000_000, PLAIN_ALIGNMENT)]
)
def test_external_weights_are_padded_only_where_a_mapping_pays(
    model: ir.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, large: int, alignment: int
):
    monkeypatch.setattr(storage, "EXTERNAL_THRESHOLD", large)
    for name in ("inline", "external"):
        (tmp_path / name).mkdir()
    inline = run(save_graph(model, tmp_path / "inline", external_threshold=10**9))
    assert weight_bytes(model) == (2 * 200 * 200 + 200) * 4
    path = save_graph(model, tmp_path / "external", external_threshold=1000)
    assert sorted(f.name for f in path.parent.iterdir()) == ["model.onnx", "model.onnx_data"]
    stored = onnx.load(path, load_external_data=False).graph.initializer
    offsets = {
        tensor.name: int({e.key: e.value for e in tensor.external_data}["offset"])
        for tensor in stored
        if tensor.external_data
    }
    assert sorted(offsets) == ["first", "second"]
    assert all(offset % alignment == 0 for offset in offsets.values())
    assert path.with_suffix(".onnx_data").stat().st_size < 2 * 200 * 200 * 4 + 2 * alignment
    np.testing.assert_array_equal(run(path), inline)
