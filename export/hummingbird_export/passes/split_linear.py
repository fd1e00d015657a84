"""Pass: a linear layer that is cut in two right after becomes two linear layers.

GEGLU projects to twice its width and halves the result: the cut copies the largest activation of a
transformer block. Two products with the halves of the weight give the same numbers without a copy.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray


class Match(NamedTuple):
    """``Split(Add(MatMul(x, weight), bias))`` into two equal parts along the last axis."""

    split: ir.Node
    add: ir.Node
    matmul: ir.Node
    weight: NDArray[np.float32]
    bias: NDArray[np.float32]


def split_linear_layers(model: ir.Model) -> int:
    """Rewrite ``MatMul -> Add -> Split`` into two ``MatMul -> Add``.

    Args:
        model: changed in place; every sum keeps its terms and their order.

    Returns:
        The number of layers rewritten.
    """
    fired = 0
    for node in list(model.graph):
        match = _find(node)
        if match is not None and _check(match):
            _rewrite(model.graph, match)
            fired += 1
    return fired


def _find(split: ir.Node) -> Match | None:
    if split.op_type != "Split" or len(split.outputs) != 2 or split.inputs[0] is None:
        return None
    add = split.inputs[0].producer()
    if add is None or add.op_type != "Add":
        return None
    for position in (0, 1):
        product, offset = add.inputs[position], add.inputs[1 - position]
        matmul = product.producer() if product is not None else None
        bias = _initializer(offset)
        if matmul is None or matmul.op_type != "MatMul" or bias is None:
            continue
        weight = _initializer(matmul.inputs[1])
        if weight is not None:
            return Match(split, add, matmul, weight, bias)
    return None


def _check(match: Match) -> bool:
    width = match.weight.shape[-1]
    axis = match.split.attributes.get_int("axis", 0)
    asked = match.split.inputs[1] if len(match.split.inputs) > 1 else None
    sizes = _initializer(asked)
    return (
        match.weight.ndim == 2
        and match.bias.shape == (width,)
        and width % 2 == 0
        and (asked is None or (sizes is not None and sizes.tolist() == 2 * [width // 2]))
        and axis in (-1, _rank(match.split.inputs[0]) - 1)
        and len(match.add.outputs[0].uses()) == 1
        and len(match.matmul.outputs[0].uses()) == 1
    )


def _rewrite(graph: ir.Graph, match: Match) -> None:
    half = match.weight.shape[-1] // 2
    x = match.matmul.inputs[0]
    name = match.split.outputs[0].name
    for index, part in enumerate((slice(0, half), slice(half, None))):
        weight = _add_initializer(graph, f"{name}.weight.{index}", match.weight[:, part])
        bias = _add_initializer(graph, f"{name}.bias.{index}", match.bias[part])
        matmul = ir.node("MatMul", [x, weight], name=f"{name}.matmul.{index}")
        add = ir.node("Add", [matmul.outputs[0], bias], name=f"{name}.add.{index}")
        graph.insert_before(match.split, [matmul, add])
        old = match.split.outputs[index]
        matmul.outputs[0].name = f"{name}.product.{index}"
        add.outputs[0].name = f"{name}.half.{index}"
        ir.convenience.replace_all_uses_with(old, add.outputs[0])
    sources = (match.matmul.inputs[1], *match.add.inputs)
    graph.remove([match.split, match.add, match.matmul], safe=True)
    for value in sources:
        if value is not None and value.name and value.is_initializer() and not value.uses():
            del graph.initializers[value.name]


def _initializer(value: ir.Value | None) -> NDArray[np.float32] | None:
    if value is None or not value.is_initializer() or value.const_value is None:
        return None
    array: NDArray[np.float32] = value.const_value.numpy()
    return array


def _add_initializer(graph: ir.Graph, name: str, array: NDArray[np.float32]) -> ir.Value:
    tensor = ir.tensor(np.ascontiguousarray(array), name=name)
    value = ir.Value(
        name=name,
        shape=ir.Shape(array.shape),
        type=ir.TensorType(tensor.dtype),
        const_value=tensor,
    )
    graph.register_initializer(value)
    return value


def _rank(value: ir.Value | None) -> int:
    return -1 if value is None or value.shape is None else len(value.shape)
