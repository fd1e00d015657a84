"""Weights stored in fewer bits: only where nothing is lost; the graph's output stays the same."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch

from hummingbird_export.passes.weight_storage import store_weights_as_half, store_weights_as_int8
from hummingbird_export.precision import round_to_int8

SOURCE = """
<ir_version: 10, opset_import: ["" : 18]>
graph (float[B,40] x) => (float[B,40] y) {
    a = MatMul(x, matrix)
    b = Add(a, bias)
    y = MatMul(b, matrix)
}
"""


def model(matrix: np.ndarray, bias: np.ndarray) -> ir.Model:
    proto = onnx.parser.parse_model(SOURCE)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(matrix, "matrix"))
    proto.graph.initializer.append(onnx.numpy_helper.from_array(bias, "bias"))
    return ir.from_proto(proto)


def run(graph: ir.Model) -> np.ndarray:
    session = onnxruntime.InferenceSession(ir.to_proto(graph).SerializeToString())
    x = np.linspace(-1, 1, 80, dtype=np.float32).reshape(2, 40)
    return session.run(None, {"x": x})[0]


@pytest.fixture
def weights() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    matrix = rng.standard_normal((40, 40)).astype(np.float16).astype(np.float32)
    return matrix, rng.standard_normal(40).astype(np.float32)


def test_a_weight_that_float16_holds_is_stored_once_and_read_through_one_cast(weights):
    graph = model(*weights)
    before = run(graph)
    assert store_weights_as_half(graph) == 1
    assert graph.graph.initializers["matrix"].const_value.dtype == ir.DataType.FLOAT16
    assert [node.op_type for node in graph.graph].count("Cast") == 1
    np.testing.assert_array_equal(run(graph), before)


def test_the_file_is_half_as_large(weights):
    graph = model(*weights)
    before = len(ir.to_proto(graph).SerializeToString())
    store_weights_as_half(graph)
    assert len(ir.to_proto(graph).SerializeToString()) < before - 40 * 40 * 2 + 200


def test_a_second_run_finds_nothing(weights):
    graph = model(*weights)
    store_weights_as_half(graph)
    assert store_weights_as_half(graph) == 0


@pytest.mark.parametrize("value", [1 + 2.0**-12, 1e5, np.nan, 1e-9])
def test_a_weight_that_float16_would_change_is_left_alone(weights, value: float):
    matrix, bias = weights
    matrix[3, 5] = value
    graph = model(matrix, bias)
    assert store_weights_as_half(graph) == 0
    assert graph.graph.initializers["matrix"].const_value.dtype == ir.DataType.FLOAT


def test_small_tensors_are_left_alone(weights):
    matrix, _ = weights
    graph = model(matrix, np.ones(40, np.float32))
    assert store_weights_as_half(graph, min_elements=41) == 1
    assert graph.graph.initializers["bias"].const_value.dtype == ir.DataType.FLOAT


def rounded(*shape: int) -> np.ndarray:
    torch.manual_seed(0)
    layer = torch.nn.Linear(shape[1], shape[0])
    layer.weight.data[3] = 0
    layer.weight.data[5] *= 1e-6
    return round_to_int8(layer).weight.detach().numpy()


@pytest.mark.parametrize("transposed", [False, True])
def test_a_matrix_that_int8_and_scales_hold_is_widened_to_the_same_bits(weights, transposed: bool):
    matrix = rounded(40, 40)
    graph = model(np.ascontiguousarray(matrix.T) if transposed else matrix, weights[1])
    before = run(graph)
    assert store_weights_as_int8(graph) == 1
    stored = graph.graph.initializers["matrix"].const_value
    assert stored.dtype == ir.DataType.INT8
    assert np.abs(stored.numpy()).max() == 127
    assert graph.graph.initializers["matrix.scale"].shape == ((1, 40) if transposed else (40, 1))
    np.testing.assert_array_equal(run(graph), before)
    assert store_weights_as_int8(graph) == 0


@pytest.mark.parametrize("value", [0.1234567, np.nan, np.inf])
def test_a_weight_that_int8_would_change_is_left_alone(weights, value: float):
    matrix = rounded(40, 40).copy()
    matrix[7, 7] = value
    assert store_weights_as_int8(model(matrix, weights[1])) == 0
