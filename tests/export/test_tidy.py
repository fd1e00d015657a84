"""Cleaning of a traced graph: fewer nodes, the same values."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
from hummingbird_export.passes.tidy import tidy

UNTIDY = """
<ir_version: 10, opset_import: ["" : 18, "local" : 1]>
graph (float[2,3,4] x) => (float[2,12] y) {
    half = Constant<value_float = 0.5>()
    one = Add(half, half)
    a = Transpose<perm = [0, 2, 1]>(x)
    b = Transpose<perm = [0, 2, 1]>(a)
    c = local.scale(b, one)
    unused = Relu(c)
    shape1 = Constant<value_ints = [6, 4]>()
    d = Reshape(c, shape1)
    shape2 = Constant<value_ints = [2, 12]>()
    y = Reshape(d, shape2)
}
<domain: "local", opset_import: ["" : 18]>
scale (v, s) => (w) { w = Mul(v, s) }
"""


def test_constants_fold_views_merge_functions_inline_and_dead_nodes_go():
    proto = onnx.parser.parse_model(UNTIDY)
    x = np.random.default_rng(0).standard_normal((2, 3, 4)).astype(np.float32)
    before = onnxruntime.InferenceSession(proto.SerializeToString()).run(None, {"x": x})[0]
    model = ir.from_proto(proto)
    nodes = len(model.graph)
    gone = tidy(model)
    assert gone == nodes - len(model.graph)
    assert sorted(node.op_type for node in model.graph) == ["Mul", "Reshape"]
    assert not model.functions
    assert model.opset_imports == {"": 18}
    data = ir.to_proto(model).SerializeToString()
    after = onnxruntime.InferenceSession(data).run(None, {"x": x})[0]
    np.testing.assert_array_equal(after, before)
    assert tidy(model) == 0
