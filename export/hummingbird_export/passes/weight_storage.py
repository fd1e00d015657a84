"""Passes: store a weight in fewer bits and widen it to float32 where the graph reads it.

float16 halves the file, int8 with one scale per channel quarters it; arithmetic stays float32, and
constant folding widens once, when the graph is opened. A pass itself never rounds: a weight
qualifies only when the format holds it exactly (``precision.round_to_half`` and ``round_to_int8``
round the torch weights beforehand), so tables and folded constants that need float32 are left
alone.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

MIN_ELEMENTS = 1024
"""Smaller tensors (biases, norms) stay float32: they cost nothing and a Cast node would."""

LEVELS = 127
"""Largest magnitude of a stored int8 weight."""

Array = NDArray[np.float32]
Narrow = Callable[[Array], tuple[ir.TensorProtocol, Array | None] | None]
"""A weight to its stored tensor and the factor of the widened one, or None if bits were lost."""


def store_weights_as_half(model: ir.Model, *, min_elements: int = MIN_ELEMENTS) -> int:
    """Rewrite ``w -> readers`` into ``w (float16) -> Cast -> readers``.

    Args:
        model: changed in place; its outputs do not change by a single bit.
        min_elements: initializers with fewer elements are skipped.

    Returns:
        The number of initializers now stored as float16.
    """
    return _store(model, min_elements, _half)


def store_weights_as_int8(model: ir.Model, *, min_elements: int = MIN_ELEMENTS) -> int:
    """Rewrite ``w -> readers`` into ``w (int8) -> Cast -> Mul by scales -> readers``.

    Cast and Mul instead of DequantizeLinear, which constant folding leaves alone.

    Args:
        model: changed in place; its outputs do not change by a single bit.
        min_elements: initializers with fewer elements are skipped.

    Returns:
        The number of initializers now stored as int8.
    """
    return _store(model, min_elements, _int8)


def _store(model: ir.Model, min_elements: int, narrow: Narrow) -> int:
    fired = 0
    for weight in list(model.graph.initializers.values()):
        if not _qualifies(weight, min_elements):
            continue
        assert weight.const_value is not None
        stored = narrow(weight.const_value.numpy())
        if stored is not None:
            _rewrite(model.graph, weight, *stored)
            fired += 1
    return fired


def _qualifies(weight: ir.Value, min_elements: int) -> bool:
    tensor = weight.const_value
    return (
        tensor is not None
        and tensor.dtype == ir.DataType.FLOAT
        and tensor.size >= min_elements
        and not weight.is_graph_output()
        and bool(weight.uses())
    )


def _half(values: Array) -> tuple[ir.TensorProtocol, None] | None:
    with np.errstate(over="ignore", under="ignore"):
        half = values.astype(np.float16)
    return (ir.tensor(half), None) if np.array_equal(half.astype(np.float32), values) else None


def _int8(values: Array) -> tuple[ir.TensorProtocol, Array] | None:
    if values.ndim < 2 or not np.isfinite(values).all():
        return None
    for axis in (0, values.ndim - 1):  # output channels of a convolution; of a transposed matrix
        others = tuple(i for i in range(values.ndim) if i != axis)
        scale = np.abs(values).max(axis=others, keepdims=True) / np.float32(LEVELS)
        scale = np.where(scale > 0, scale, np.float32(1))
        levels = np.rint(values / scale)
        if np.array_equal(levels.astype(np.float32) * scale, values):
            return ir.tensor(levels.astype(np.int8)), scale
    return None


def _rewrite(
    graph: ir.Graph, weight: ir.Value, stored: ir.TensorProtocol, scale: Array | None
) -> None:
    readers = list(weight.uses())
    name = weight.name
    assert name is not None
    stored.name = name
    cast = ir.node("Cast", [weight], attributes={"to": ir.DataType.FLOAT}, name=f"{name}.widen")
    nodes = [cast]
    if scale is not None:
        held = ir.tensor(scale, name=f"{name}.scale")
        factor = ir.Value(
            name=held.name,
            shape=ir.Shape(scale.shape),
            type=ir.TensorType(held.dtype),
            const_value=held,
        )
        graph.register_initializer(factor)
        cast.outputs[0].name = f"{name}.levels"
        nodes.append(ir.node("Mul", [cast.outputs[0], factor], name=f"{name}.scaled"))
    wide = nodes[-1].outputs[0]
    wide.name = f"{name}.float32"
    for reader, index in readers:
        reader.replace_input_with(index, wide)
    weight.const_value = stored
    weight.dtype = stored.dtype
    graph.insert_before(graph[0], nodes)
