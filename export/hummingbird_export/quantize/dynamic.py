"""Dynamic int8: products measure the range of their activation at every run; no calibration.

Written in standard operators (DynamicQuantizeLinear, MatMulInteger, Cast, Mul, Add), which ONNX
Runtime fuses into one. Convolutions have no fast dynamic kernel (ConvInteger took five times the
float32 time) and are stored as int8 only.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from hummingbird_export.quantize.layers import Layer, bias_add, read
from hummingbird_export.quantize.qdq import group_layers
from hummingbird_export.quantize.rewriter import Rewriter
from hummingbird_export.quantize.stored import int_weight

FLOAT, INT32, UINT8 = (ir.DataType[name] for name in ("FLOAT", "INT32", "UINT8"))


def quantize_dynamic(rewriter: Rewriter, layers: list[Layer]) -> None:
    """Quantize products, in place.

    Args:
        rewriter: of the model.
        layers: matrices stored as (in, out).
    """
    for group in group_layers(layers):
        done: dict[int, tuple[ir.Value, ...]] = {}
        for layer in group:
            ones, zeros = np.ones(layer.inputs, np.float32), np.zeros(layer.inputs, np.float32)
            weight = int_weight(rewriter, layer, ones, zeros, "int8")
            scale = rewriter.constant(f"{layer.name}.weight.scale", weight.scale)
            for node in layer.nodes:
                x = node.inputs[0]
                assert x is not None
                if id(x) not in done:
                    done[id(x)] = _measure(rewriter, node, x)
                _rewrite(rewriter, layer, node, done[id(x)], weight.value, scale)


def _measure(rewriter: Rewriter, node: ir.Node, x: ir.Value) -> tuple[ir.Value, ...]:
    maker = ir.node("DynamicQuantizeLinear", [x], num_outputs=3, name=f"{x.name}.q")
    types = (UINT8, FLOAT, UINT8)
    for value, suffix, dtype in zip(maker.outputs, ("", ".scale", ".zero"), types, strict=True):
        value.name, value.type = f"{x.name}.q{suffix}", ir.TensorType(dtype)
    rewriter.model.graph.insert_before(node, maker)
    return tuple(maker.outputs)


def _rewrite(
    rewriter: Rewriter,
    layer: Layer,
    node: ir.Node,
    source: tuple[ir.Value, ...],
    weight: ir.Value,
    scale: ir.Value,
) -> None:
    q, source_scale, zero = source
    old, name = layer.bias(node), node.name
    add = bias_add(node) if node.op_type == "MatMul" else None

    def put(op_type: str, *inputs: ir.Value, suffix: str) -> ir.Value:
        return rewriter.before(node, op_type, *inputs, name=f"{name}.{suffix}", dtype=FLOAT)

    total = rewriter.before(
        node, "MatMulInteger", q, weight, zero, name=f"{name}.int32", dtype=INT32
    )
    real = rewriter.before(node, "Cast", total, name=f"{name}.float32", dtype=FLOAT, to=FLOAT)
    factor = put("Mul", source_scale, scale, suffix="factor")
    result = put("Mul", real, factor, suffix="scaled")
    if old is not None:
        bias = rewriter.constant(f"{layer.name}.bias.float32", read(old).reshape(-1))
        result = put("Add", result, bias, suffix="biased")
    rewriter.replace((add or node).outputs[0], result)
    rewriter.remove(*([add, node] if add else [node]))
