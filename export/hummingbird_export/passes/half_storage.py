"""Pass: store a weight as float16 and Cast it to float32 where the graph reads it.

Halves the file; arithmetic stays float32. The pass itself never rounds: a weight qualifies only
when float16 holds it exactly (``precision.round_to_half`` rounds the torch weights beforehand),
so tables and folded constants that need float32 are left alone.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

MIN_ELEMENTS = 1024
"""Smaller tensors (biases, norms) stay float32: they cost nothing and a Cast node would."""


def store_weights_as_half(model: ir.Model, *, min_elements: int = MIN_ELEMENTS) -> int:
    """Rewrite ``w -> readers`` into ``w (float16) -> Cast -> readers``.

    Args:
        model: changed in place; its outputs do not change by a single bit.
        min_elements: initializers with fewer elements are skipped.

    Returns:
        The number of initializers now stored as float16.
    """
    fired = 0
    for weight in list(model.graph.initializers.values()):
        if _qualifies(weight, min_elements) and _exact_in_half(weight):
            _rewrite(model.graph, weight)
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


def _exact_in_half(weight: ir.Value) -> bool:
    assert weight.const_value is not None
    values = weight.const_value.numpy()
    with np.errstate(over="ignore", under="ignore"):
        half = values.astype(np.float16)
    return bool(np.array_equal(half.astype(np.float32), values))


def _rewrite(graph: ir.Graph, weight: ir.Value) -> None:
    assert weight.const_value is not None
    assert weight.name is not None
    half = ir.tensor(weight.const_value.numpy().astype(np.float16), name=weight.name)
    readers = list(weight.uses())
    cast = ir.node(
        "Cast", [weight], attributes={"to": ir.DataType.FLOAT}, name=f"{weight.name}.widen"
    )
    cast.outputs[0].name = f"{weight.name}.float32"
    for reader, index in readers:
        reader.replace_input_with(index, cast.outputs[0])
    weight.const_value = half
    weight.dtype = ir.DataType.FLOAT16
    graph.insert_before(graph[0], cast)
