"""Weight-only storage: int8 per channel or int4 in blocks of 32, activations left alone.

Standard form: DequantizeLinear in front of the unchanged layer; no weight is held in float32. ONNX
Runtime's CPU provider makes MatMulNBits of it for matrices, as fast as float32, which rounds
activations to int8 in blocks of 32 (40 dB). Fused form of int4 matrices: MatMulNBits written out,
activations in float32. Large embedding tables become int8 per row. Saves bytes, not time.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from hummingbird_export.quantize.layers import Layer, bias_add
from hummingbird_export.quantize.rewriter import MICROSOFT, Rewriter
from hummingbird_export.quantize.weights import (
    BLOCK,
    EIGHT_BITS,
    FOUR_BITS,
    Quantized,
    blocked,
    channel_scales,
    per_channel,
)

FLOAT, HALF, INT8, INT4, UINT8 = (
    ir.DataType[name] for name in ("FLOAT", "FLOAT16", "INT8", "INT4", "UINT8")
)

TABLE_SIZE = 1 << 20
"""Embedding tables with fewer numbers stay float32."""


def store_int8(rewriter: Rewriter, layer: Layer) -> None:
    """int8 with 8 bits and one scale per output channel; the initializer keeps its name."""
    tensor = layer.weight.const_value
    assert tensor is not None
    readers = list(layer.weight.uses())
    scale = channel_scales(layer.to_rows(tensor.numpy()), EIGHT_BITS)

    def numbers() -> NDArray[np.generic]:
        rows = layer.to_rows(tensor.numpy())
        return layer.from_rows(per_channel(rows, EIGHT_BITS, scale).q)

    rewriter.become(layer.weight, numbers, INT8)
    real = rewriter.before(
        layer.nodes[0],
        "DequantizeLinear",
        layer.weight,
        rewriter.constant(f"{layer.name}.weight.scale", scale),
        rewriter.shared(np.zeros(scale.size, np.int8)),
        name=f"{layer.name}.weight.dq",
        dtype=FLOAT,
        axis=1 if layer.transposed else 0,
    )
    for node, index in readers:
        node.replace_input_with(index, real)


def store_int4(rewriter: Rewriter, layer: Layer, *, fused: bool) -> None:
    """int4 with float16 scales per block of 32, clipped for the least squared error.

    Args:
        rewriter: of the model.
        layer: its inputs divide into blocks (``stored.can_be_int4``).
        fused: matrices become MatMulNBits.
    """
    rewriter.need_int4()
    if fused and not layer.is_conv:
        _matmul_nbits(rewriter, layer)
        return
    tensor = layer.weight.const_value
    assert tensor is not None
    place, name = layer.nodes[0], layer.name
    scale = _int4(layer, tensor).scale
    blocks = scale.shape[1]
    if layer.transposed:
        shape, scales, axis = layer.shape, scale.T, 0
    else:
        shape, scales, axis = (layer.outputs, blocks * BLOCK), scale, 1

    def numbers() -> NDArray[np.int8]:
        q = _with_scale(layer, tensor, scale)
        return q.T if layer.transposed else q

    q = rewriter.lazy(f"{name}.weight.int4", numbers, INT4, shape)
    real = rewriter.before(
        place,
        "DequantizeLinear",
        q,
        _half(rewriter, layer, scales),
        name=f"{name}.weight.dq",
        dtype=FLOAT,
        axis=axis,
        block_size=BLOCK,
    )
    if layer.is_conv:
        target = rewriter.shared(np.array(layer.shape, np.int64))
        real = rewriter.before(
            place, "Reshape", real, target, name=f"{name}.weight.kernel", dtype=FLOAT
        )
    for node in layer.nodes:
        node.replace_input_with(1, real)
    rewriter.drop(layer.weight)


def store_tables(rewriter: Rewriter) -> int:
    """Turn large embedding tables into int8 with a scale per row; returns their number."""
    tables = [
        value
        for value in rewriter.model.graph.initializers.values()
        if _is_table(value) and all(_is_lookup(node, index) for node, index in value.uses())
    ]
    for table in tables:
        _store_table(rewriter, table)
    return len(tables)


def _matmul_nbits(rewriter: Rewriter, layer: Layer) -> None:
    tensor = layer.weight.const_value
    assert tensor is not None
    name = layer.name
    scale = _int4(layer, tensor).scale
    blocks = scale.shape[1]

    def numbers() -> NDArray[np.uint8]:
        q = (_with_scale(layer, tensor, scale) + 8).astype(np.uint8)  # 8 stands for zero
        pairs = q.reshape(layer.outputs, blocks, BLOCK // 2, 2)
        return np.bitwise_or(pairs[..., 0], np.left_shift(pairs[..., 1], 4), dtype=np.uint8)

    packed = rewriter.lazy(
        f"{name}.weight.int4", numbers, UINT8, (layer.outputs, blocks, BLOCK // 2)
    )
    scales = _half(rewriter, layer, scale)
    for node in layer.nodes:
        add = bias_add(node) if node.op_type == "MatMul" else None
        bias = layer.bias(node)
        product = rewriter.before(
            node,
            "MatMulNBits",
            node.inputs[0],
            packed,
            scales,
            None,
            None,
            bias,
            name=f"{node.name}.int4",
            dtype=FLOAT,
            domain=MICROSOFT,
            K=layer.inputs,
            N=layer.outputs,
            bits=4,
            block_size=BLOCK,
        )
        rewriter.replace((add or node).outputs[0], product)
        rewriter.remove(*([add, node] if add else [node]))


def _half(rewriter: Rewriter, layer: Layer, scale: NDArray[np.float32]) -> ir.Value:
    """Block scales stored as float16, read as float32."""
    stored = rewriter.constant(f"{layer.name}.weight.scale", scale.astype(np.float16))
    return rewriter.before(
        layer.nodes[0],
        "Cast",
        stored,
        name=f"{layer.name}.weight.scale.widen",
        dtype=FLOAT,
        to=FLOAT,
    )


def _int4(layer: Layer, tensor: ir.TensorProtocol) -> Quantized:
    return blocked(layer.to_rows(tensor.numpy()), FOUR_BITS, clip=True)


def _with_scale(
    layer: Layer, tensor: ir.TensorProtocol, scale: NDArray[np.float32]
) -> NDArray[np.int8]:
    """(outputs, inputs * taps) whole numbers for known block scales."""
    flat = layer.to_rows(tensor.numpy()).reshape(*scale.shape, BLOCK)
    q = np.rint(flat / scale[:, :, None])
    numbers: NDArray[np.int8] = np.clip(q, -FOUR_BITS, FOUR_BITS).astype(np.int8)
    return numbers.reshape(len(scale), -1)


def _is_table(value: ir.Value) -> bool:
    tensor = value.const_value
    return (
        tensor is not None
        and tensor.dtype == ir.DataType.FLOAT
        and len(tensor.shape) == 2
        and tensor.size >= TABLE_SIZE
        and bool(value.uses())
        and not value.is_graph_output()
    )


def _is_lookup(node: ir.Node, index: int) -> bool:
    return node.op_type == "Gather" and index == 0 and node.attributes.get_int("axis", 0) == 0


def _store_table(rewriter: Rewriter, table: ir.Value) -> None:
    tensor = table.const_value
    assert tensor is not None
    values: NDArray[np.float32] = tensor.numpy()
    scale = channel_scales(values[:, :, None], EIGHT_BITS)

    def numbers() -> NDArray[np.int8]:
        rows: NDArray[np.float32] = tensor.numpy()
        return per_channel(rows[:, :, None], EIGHT_BITS, scale).q[:, :, 0]

    lookups = [node for node, _ in table.uses()]
    rewriter.become(table, numbers, INT8)
    scales = rewriter.constant(f"{table.name}.scale", scale[:, None])
    for node in lookups:
        row, ids = node.outputs[0], node.inputs[1]
        readers, row_type = list(row.uses()), row.type
        row.type = ir.TensorType(INT8)
        wide = rewriter.after(node, "Cast", row, name=f"{node.name}.widen", dtype=FLOAT, to=FLOAT)
        maker = wide.producer()
        assert maker is not None
        factor = rewriter.before(
            maker, "Gather", scales, ids, name=f"{node.name}.scale", dtype=FLOAT, axis=0
        )
        real = rewriter.after(maker, "Mul", wide, factor, name=f"{node.name}.real", dtype=FLOAT)
        real.type = row_type
        for reader, index in readers:
            reader.replace_input_with(index, real)
