"""A linear layer cut in two becomes two linear layers, where and only where that is the pattern."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

from hummingbird_export.passes.split_linear import split_linear_layers

HEADER = '<ir_version: 10, opset_import: ["" : 18]> graph (float[B,3,4] x) => (float[B,3,N] y) '
GEGLU = """{
    p = MatMul(x, weight)
    q = Add(p, bias)
    value, gate = Split<axis = 2, num_outputs = 2>(q)
    y = Mul(value, gate)
}"""


def model(body: str, width: int = 6) -> ir.Model:
    proto = onnx.parser.parse_model(HEADER + body)
    rng = np.random.default_rng(0)
    for name, shape in (("weight", (4, width)), ("bias", (width,))):
        array = rng.standard_normal(shape).astype(np.float32)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    return ir.from_proto(onnx.shape_inference.infer_shapes(proto))


def run(graph: ir.Model) -> np.ndarray:
    session = onnxruntime.InferenceSession(ir.to_proto(graph).SerializeToString())
    x = np.random.default_rng(1).standard_normal((2, 3, 4)).astype(np.float32)
    return session.run(None, {"x": x})[0]


@pytest.mark.parametrize(
    "body",
    [
        GEGLU,
        GEGLU.replace("axis = 2", "axis = -1"),
        GEGLU.replace("Add(p, bias)", "Add(bias, p)"),
    ],
)
def test_geglu_loses_its_split_and_keeps_its_values(body: str):
    graph = model(body)
    before = run(graph)
    assert split_linear_layers(graph) == 1
    kinds = [node.op_type for node in graph.graph]
    assert sorted(kinds) == ["Add", "Add", "MatMul", "MatMul", "Mul"]
    assert "weight" not in graph.graph.initializers
    # The same terms summed in the same order, but possibly by another kernel.
    np.testing.assert_allclose(run(graph), before, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "body",
    [
        GEGLU.replace("axis = 2", "axis = 0"),
        GEGLU.replace(
            "y = Mul(value, gate)", "r = Mul(value, gate) s = ReduceSum(q) y = Add(r, s)"
        ),
        GEGLU.replace("q = Add(p, bias)", "r = Add(p, bias) q = Relu(r)"),
        GEGLU.replace("q = Add(p, bias)", "q = Add(p, p)"),
    ],
)
def test_other_patterns_are_left_alone(body: str):
    graph = model(body)
    kinds = [node.op_type for node in graph.graph]
    assert split_linear_layers(graph) == 0
    assert [node.op_type for node in graph.graph] == kinds


def test_unequal_parts_are_left_alone():
    body = GEGLU.replace("Split<axis = 2, num_outputs = 2>(q)", "Split<axis = 2>(q, sizes)")
    body = body.replace("{", "{ sizes = Constant<value_ints = [2, 4]>()", 1)
    graph = model(body.replace("y = Mul(value, gate)", "y = Concat<axis = 2>(value, gate)"))
    assert split_linear_layers(graph) == 0
