"""The layers of a graph that can be quantized: convolutions and products with a stored weight.

A layer is a weight together with every node that reads it: pieces of a clip run through clones of a
node, and all of them share one weight, one name and one observed range. The name is the weight's
without ``.weight``. Products of two activations (attention) are no layers and stay in float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

Rows = NDArray[np.float32]
"""A weight as (outputs, inputs, taps), whatever its layout in the graph."""

_PRODUCTS = ("Gemm", "MatMul")


@dataclass(frozen=True)
class Layer:
    """One weight and the nodes that use it."""

    name: str
    """Module path: the weight's name without ``.weight``."""
    weight: ir.Value
    """Initializer: a convolution's (c_out, c_in, ...), else a matrix."""
    nodes: tuple[ir.Node, ...]
    """Readers of the weight, all of one operator."""

    @cached_property
    def is_conv(self) -> bool:
        """Whether this is a convolution."""
        return self.nodes[0].op_type == "Conv"

    @cached_property
    def transposed(self) -> bool:
        """Whether the matrix is stored as (in, out)."""
        return not self.is_conv and not self.nodes[0].attributes.get_int("transB", 0)

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the stored weight."""
        assert self.weight.const_value is not None
        return dims(self.weight.const_value)

    @property
    def size(self) -> int:
        """Number of elements of the weight."""
        return int(np.prod(self.shape))

    @property
    def outputs(self) -> int:
        """Output channels."""
        return self.shape[1] if self.transposed else self.shape[0]

    @property
    def inputs(self) -> int:
        """Input channels."""
        return self.shape[0] if self.transposed else self.shape[1]

    @property
    def sources(self) -> list[ir.Value]:
        """The distinct activations that the nodes read, in order."""
        found: dict[int, ir.Value] = {}
        for node in self.nodes:
            assert node.inputs[0] is not None
            found[id(node.inputs[0])] = node.inputs[0]
        return list(found.values())

    def rows(self) -> Rows:
        """The weight, read now: float32 (outputs, inputs, taps)."""
        return self.to_rows(read(self.weight))

    def to_rows(self, array: NDArray[np.float32]) -> Rows:
        """Stored layout -> (outputs, inputs, taps)."""
        if self.transposed:
            array = np.ascontiguousarray(array.T)
        return array.reshape(self.outputs, self.inputs, -1)

    def from_rows(self, rows: NDArray[np.generic]) -> NDArray[np.generic]:
        """(outputs, inputs, taps) -> stored layout."""
        if self.transposed:
            return np.ascontiguousarray(rows.reshape(self.outputs, self.inputs).T)
        return rows.reshape(self.shape)

    def bias(self, node: ir.Node) -> ir.Value | None:
        """The bias that a node adds: its third input, or that of an Add right behind a MatMul."""
        if node.op_type == "MatMul":
            add = bias_add(node)
            return None if add is None else _constant_input(add)
        return node.inputs[2] if len(node.inputs) > 2 else None


def find_layers(model: ir.Model) -> dict[str, Layer]:
    """All layers of a model by name, in graph order.

    A weight that is no initializer, is also read by other operators, or is a graph's input or
    output makes no layer.
    """
    readers: dict[int, list[ir.Node]] = {}
    weights: dict[int, ir.Value] = {}
    for node in model.graph:
        weight = node.inputs[1] if node.op_type in ("Conv", *_PRODUCTS) else None
        if weight is not None and _is_weight(weight) and _takes(node, weight):
            weights[id(weight)] = weight
            readers.setdefault(id(weight), []).append(node)
    layers: dict[str, Layer] = {}
    for key, weight in weights.items():
        nodes = readers[key]
        name = (weight.name or "").removesuffix(".weight")
        if len(nodes) == len(weight.uses()) and len({node.op_type for node in nodes}) == 1:
            layers[name] = Layer(name, weight, tuple(nodes))
    return layers


def matches(name: str, patterns: Sequence[str]) -> bool:
    """Whether a layer's name fits one of the shell patterns."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def bias_add(matmul: ir.Node) -> ir.Node | None:
    """The Add of a stored vector that alone reads a MatMul's product."""
    uses = list(matmul.outputs[0].uses())
    if len(uses) != 1 or matmul.outputs[0].is_graph_output():
        return None
    add = uses[0][0]
    bias = _constant_input(add) if add.op_type == "Add" else None
    return add if bias is not None and _vector(bias) else None


def dims(tensor: ir.TensorProtocol) -> tuple[int, ...]:
    """Sizes of a stored tensor."""
    return tuple(int(size) for size in tensor.shape.numpy())


def read(value: ir.Value) -> NDArray[np.float32]:
    """Values of an initializer, read now."""
    assert value.const_value is not None
    array: NDArray[np.float32] = value.const_value.numpy()
    return array


def _constant_input(node: ir.Node) -> ir.Value | None:
    for value in node.inputs:
        if value is not None and value.is_initializer() and value.const_value is not None:
            return value
    return None


def _vector(value: ir.Value) -> bool:
    assert value.const_value is not None
    shape = dims(value.const_value)
    return len(shape) > 0 and int(np.prod(shape)) == shape[-1]


def _is_weight(value: ir.Value) -> bool:
    tensor = value.const_value
    return (
        value.is_initializer()
        and tensor is not None
        and tensor.dtype == ir.DataType.FLOAT
        and len(tensor.shape) >= 2
        and not value.is_graph_output()
        and not value.is_graph_input()
    )


def _takes(node: ir.Node, weight: ir.Value) -> bool:
    """Whether a node computes what a layer computes: no groups, no factors, a stored bias."""
    assert weight.const_value is not None
    if node.inputs[0] is None or node.inputs[0].is_initializer():
        return False
    if node.outputs[0].is_graph_output():
        return False
    attributes, bias = node.attributes, node.inputs[2] if len(node.inputs) > 2 else None
    stored = bias is None or (bias.is_initializer() and bias.const_value is not None)
    if node.op_type == "Conv":
        return stored and attributes.get_int("group", 1) == 1
    factors = [attributes.get_float(name, 1.0) for name in ("alpha", "beta")]
    return (
        len(weight.const_value.shape) == 2
        and stored
        and factors == [1.0, 1.0]
        and not attributes.get_int("transA", 0)
    )
