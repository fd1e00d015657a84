"""The int8 weight of a layer in the graph: stored as int8, or as int4 and widened at load.

int4 numbers become int8 by Cast and a product with whole block factors; ONNX Runtime folds both
into one int8 constant when it opens the graph, so arithmetic is the same and the file is half.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from hummingbird_export.quantize.layers import Layer, Rows
from hummingbird_export.quantize.ranges import Channels
from hummingbird_export.quantize.rewriter import Rewriter
from hummingbird_export.quantize.weights import (
    BLOCK,
    FOUR_BITS,
    TWO_LEVELS,
    channel_scales,
    per_channel,
    slabs,
    two_level,
    widen,
)

Storage = Literal["int8", "int4"]

_INT4, _INT8 = ir.DataType.INT4, ir.DataType.INT8


@dataclass(frozen=True)
class IntWeight:
    """An int8 weight, 7 bits, one scale per output channel."""

    value: ir.Value
    """int8, in the layer's layout."""
    scale: NDArray[np.float32]
    """(outputs,)."""
    drift: NDArray[np.float32]
    """(outputs,): what rounding the weight adds to the mean output."""


def can_be_int4(layer: Layer) -> bool:
    """Whether a layer's inputs divide into blocks."""
    return layer.size // layer.outputs % BLOCK == 0


def int_weight(
    rewriter: Rewriter, layer: Layer, factor: Channels, mean: Channels, storage: Storage
) -> IntWeight:
    """Turn a layer's weight, times a factor per input, into int8 in the graph.

    Args:
        rewriter: of the model; the initializer keeps its name.
        layer: read once now and once when the graph is written.
        factor: (inputs,).
        mean: mean of the activation per channel, before it is divided by ``factor``.
        storage: int8, or int4 in two levels; layers without whole blocks stay int8.
    """
    tensor = layer.weight.const_value
    assert tensor is not None
    change = not np.all(factor == 1)

    def rows() -> Rows:
        read = layer.to_rows(tensor.numpy())
        return read * factor[None, :, None] if change else read

    now = rows()
    if storage == "int8" or not can_be_int4(layer):
        scale = channel_scales(now)
        q = per_channel(now, scale=scale).q
        drift = _drift(now, q, scale, mean / factor)
        rewriter.become(
            layer.weight, lambda: layer.from_rows(per_channel(rows(), scale=scale).q), _INT8
        )
        return IntWeight(layer.weight, scale, drift)
    scale = channel_scales(now, TWO_LEVELS)
    numbers = two_level(now, scale)
    drift = _drift(now, widen(numbers, now.shape), scale, mean / factor)
    factors = numbers.factor
    value = _store_int4(rewriter, layer, rows, scale, factors)
    return IntWeight(value, scale, drift)


def _drift(
    rows: Rows, q: NDArray[np.int8], scale: NDArray[np.float32], mean: Channels
) -> NDArray[np.float32]:
    parts = []
    for part in slabs(rows):
        error = q[part] * scale[part, None, None] - rows[part]
        parts.append(np.einsum("oit,i->o", error, mean))
    return np.concatenate(parts).astype(np.float32)


def _store_int4(
    rewriter: Rewriter,
    layer: Layer,
    rows: Callable[[], Rows],
    scale: NDArray[np.float32],
    factors: NDArray[np.int8],
) -> ir.Value:
    """int4 numbers and block factors as initializers, widened in front of the first reader."""
    rewriter.need_int4()
    outputs, blocks = factors.shape[:2]
    name, place = layer.name, layer.nodes[0]
    if layer.transposed:  # (blocks, BLOCK, outputs): reshaping gives (in, out)
        order, shape = (1, 2, 0), (blocks, BLOCK, outputs)
    else:
        order, shape = (0, 1, 2), (outputs, blocks, BLOCK)

    def numbers() -> NDArray[np.int8]:
        flat = rows().reshape(outputs, blocks, BLOCK)
        q = np.rint(flat / (scale[:, None, None] * factors))
        return np.clip(q, -FOUR_BITS, FOUR_BITS).astype(np.int8).transpose(order)

    q = rewriter.lazy(f"{name}.weight.int4", numbers, _INT4, shape)
    factor = rewriter.constant(f"{name}.weight.factor", factors.transpose(order))
    wide = rewriter.before(place, "Cast", q, name=f"{name}.weight.widen", dtype=_INT8, to=_INT8)
    product = rewriter.before(place, "Mul", wide, factor, name=f"{name}.weight.times", dtype=_INT8)
    target = rewriter.shared(np.array(layer.shape, np.int64))
    return rewriter.before(
        place, "Reshape", product, target, name=f"{name}.weight.int8", dtype=_INT8
    )
