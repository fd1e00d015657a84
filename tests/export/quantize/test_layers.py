"""What counts as a layer: a weight with all its readers, and nothing else."""

from __future__ import annotations

import layer_graphs
import numpy as np
import pytest
from layer_graphs import Sketch

from hummingbird_export.quantize.layers import bias_add, find_layers, matches

RNG = np.random.default_rng(0)


def matrix(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def test_clones_of_a_node_are_one_layer() -> None:
    model, _ = layer_graphs.conv_pair(np.random.default_rng(0), clones=2)
    layers = find_layers(model)
    assert list(layers) == ["block.conv"]
    (layer,) = layers.values()
    assert len(layer.nodes) == len(layer.sources) == 2
    assert (layer.outputs, layer.inputs, layer.shape) == (16, 16, (16, 16, 3, 3))
    assert layer.rows().shape == (16, 16, 9)


@pytest.mark.parametrize("transposed", [False, True])
def test_rows_of_a_matrix_are_outputs_whatever_its_layout(transposed: bool) -> None:
    s = Sketch()
    x = s.input("x", ["m", 6])
    stored = matrix(6, 4)
    w = s.weight("a.weight", stored.T if transposed else stored)
    y = s.op("Gemm", x, w, transB=int(transposed))
    (layer,) = find_layers(s.model(s.op("Relu", y))).values()
    np.testing.assert_array_equal(layer.rows()[:, :, 0], stored.T)
    np.testing.assert_array_equal(layer.from_rows(layer.rows()), layer.weight.const_value.numpy())


def test_what_is_no_layer() -> None:
    s = Sketch()
    x, ids = s.input("x", ["m", 8]), s.input("ids", ["m"], layer_graphs.ir.DataType.INT64)
    tied = s.weight("tied.weight", matrix(8, 8))
    looked_up = s.op("Gather", tied, ids)
    a = s.op("MatMul", s.op("Add", x, looked_up), tied)
    b = s.op("Gemm", a, s.weight("scaled.weight", matrix(8, 8)), alpha=0.5)
    c = s.op("Gemm", b, s.weight("turned.weight", matrix(8, 8)), transA=1)
    d = s.op("MatMul", c, s.op("Transpose", x, perm=[1, 0]))
    e = s.op("Reshape", d, s.weight("shape", np.array([1, 8, -1, 1])))
    f = s.op("Conv", e, s.weight("grouped.weight", matrix(8, 1, 1, 1)), group=8)
    last = s.op("Conv", f, s.weight("out.weight", matrix(4, 8, 1, 1)))
    assert find_layers(s.model(last)) == {}  # the last one's result is the graph's output


def test_the_bias_of_a_matmul_is_the_add_behind_it() -> None:
    s = Sketch()
    x = s.input("x", [1, "m", 8])
    bias = s.weight("a.bias", matrix(8))
    y = s.op("Add", bias, s.op("MatMul", x, s.weight("a.weight", matrix(8, 8))))
    z = s.op("MatMul", y, s.weight("b.weight", matrix(8, 8)))
    both = s.op("Mul", s.op("Add", z, bias), z)  # read twice: the Add is not the layer's
    layers = find_layers(s.model(s.op("Relu", both)))
    assert layers["a"].bias(layers["a"].nodes[0]) is bias
    assert layers["b"].bias(layers["b"].nodes[0]) is None
    assert bias_add(layers["b"].nodes[0]) is None


def test_patterns_are_shell_patterns_on_whole_names() -> None:
    assert matches("input_blocks.0.0", ["out.2", "input_blocks.0.*"])
    assert not matches("input_blocks.10.0", ["input_blocks.0.*", "blocks"])
