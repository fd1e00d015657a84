"""Shapes of every value of an ONNX graph at given sizes, without its weights, without a run.

ONNX's own inference, node by node, with two things added: integers that follow from shapes are
computed (ONNX's propagation stops at the first division), and ONNX Runtime's operators are known.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx.shape_inference import InferenceError, infer_node_outputs

MOST_KNOWN = {TensorProto.INT64: 4096, TensorProto.INT32: 4096, TensorProto.BOOL: 4096}
"""Elements up to which a tensor is computed rather than only shaped, by number format."""

MOST_KNOWN[TensorProto.FLOAT] = 16  # scales of Resize

Shape = tuple[int, ...]

_NOT_FOLDED = ("QuantizeLinear", "DequantizeLinear")


@dataclass
class GraphShapes:
    """What is known of a graph at fixed sizes."""

    model: onnx.ModelProto
    """Without the bytes of external weights."""
    free_sizes: tuple[str, ...]
    """Names of sizes that the graph leaves to the run."""
    types: dict[str, onnx.TypeProto] = field(default_factory=dict)
    known: dict[str, NDArray[Any]] = field(default_factory=dict)
    """Small tensors that follow from constants and sizes."""

    def shape(self, value: str) -> Shape | None:
        """Dimensions of a value, None where they cannot be told."""
        kind = self.types.get(value)
        if kind is None or not kind.tensor_type.HasField("shape"):
            return None
        dims = kind.tensor_type.shape.dim
        if any(not dim.HasField("dim_value") for dim in dims):
            return None
        return tuple(dim.dim_value for dim in dims)

    def rank(self, value: str) -> int | None:
        """Number of dimensions of a value, None where it cannot be told."""
        kind = self.types.get(value)
        if kind is None or not kind.tensor_type.HasField("shape"):
            return None
        return len(kind.tensor_type.shape.dim)

    def bytes(self, value: str) -> int | None:
        """Size of a value, None where it cannot be told."""
        shape = self.shape(value)
        if shape is None:
            return None
        return math.prod(shape) * item_size(self.types[value].tensor_type.elem_type)

    def constant(self, value: str) -> bool:
        """Whether a value is a weight, or follows from weights and sizes."""
        return value in self.constants

    @cached_property
    def constants(self) -> frozenset[str]:
        """Weights and everything that is computed from them and from sizes alone."""
        found = {*self.known, *(tensor.name for tensor in self.model.graph.initializer)}
        for node in self.model.graph.node:
            if all(name in found for name in node.input if name):
                found.update(node.output)
        return frozenset(found)

    @cached_property
    def working_nodes(self) -> list[onnx.NodeProto]:
        """Nodes left when constants are folded at these sizes; quantization is never folded."""
        return [
            node
            for node in self.model.graph.node
            if node.op_type in _NOT_FOLDED or not all(map(self.constant, node.output))
        ]


def item_size(element: int) -> int:
    """Bytes of one element of an ONNX tensor type; four-bit types count as one."""
    return int(np.dtype(helper.tensor_dtype_to_np_dtype(element)).itemsize)


def infer_shapes(path: Path, sizes: Mapping[str, int]) -> GraphShapes:
    """Shapes of a graph file.

    Args:
        path: ``model.onnx``; its external data is not read.
        sizes: a number for every free size of the graph's inputs; others stay unknown.
    """
    model = onnx.load(str(path), load_external_data=False)
    shapes = GraphShapes(model, _free_sizes(model))
    for value in model.graph.input:
        shapes.types[value.name] = _at_sizes(value.type, sizes)
    for tensor in model.graph.initializer:
        shapes.types[tensor.name] = helper.make_tensor_type_proto(tensor.data_type, tensor.dims)
        if _small(tensor.data_type, tensor.dims) and not tensor.external_data:
            shapes.known[tensor.name] = numpy_helper.to_array(tensor)
    opsets = list(model.opset_import)
    version = next((o.version for o in opsets if o.domain in ("", "ai.onnx")), 18)
    for node in model.graph.node:
        outputs = _infer(node, shapes, opsets, version)
        shapes.types.update(outputs)
        _compute(node, shapes, version)
    return shapes


def _free_sizes(model: onnx.ModelProto) -> tuple[str, ...]:
    names = {
        dim.dim_param
        for value in model.graph.input
        for dim in value.type.tensor_type.shape.dim
        if dim.dim_param
    }
    return tuple(sorted(names))


def _at_sizes(kind: onnx.TypeProto, sizes: Mapping[str, int]) -> onnx.TypeProto:
    fixed = onnx.TypeProto()
    fixed.CopyFrom(kind)
    for dim in fixed.tensor_type.shape.dim:
        if dim.dim_param in sizes:
            dim.dim_value = sizes[dim.dim_param]
    return fixed


def _infer(
    node: onnx.NodeProto,
    shapes: GraphShapes,
    opsets: list[onnx.OperatorSetIdProto],
    version: int,
) -> dict[str, onnx.TypeProto]:
    if node.domain not in ("", "ai.onnx"):
        rule = _MICROSOFT.get(node.op_type)
        return {} if rule is None else rule(node, shapes)
    if any(name and name not in shapes.types for name in node.input):
        return {}
    inputs = {name: shapes.types[name] for name in node.input if name}
    data = {
        name: numpy_helper.from_array(shapes.known[name], name)
        for name in node.input
        if name in shapes.known
    }
    try:
        schema = onnx.defs.get_schema(node.op_type, version, "")
        found = infer_node_outputs(schema, node, inputs, data, opset_imports=opsets)
    except (InferenceError, onnx.defs.SchemaError):
        return {}
    return {name: kind for name, kind in found.items() if name}


def _compute(node: onnx.NodeProto, shapes: GraphShapes, version: int) -> None:
    """Add a node's output to ``known`` where it is small and decided."""
    if len(node.output) != 1 or node.domain not in ("", "ai.onnx"):
        return
    output = node.output[0]
    if node.op_type == "Shape":
        shape = shapes.shape(node.input[0])
        if shape is not None:
            span = {a.name: a.i for a in node.attribute}
            dims = shape[span.get("start", 0) : span.get("end", len(shape))]
            shapes.known[output] = np.array(dims, np.int64)
        return
    kind = shapes.types.get(output)
    if kind is None or not all(name in shapes.known for name in node.input if name):
        return
    dims = shapes.shape(output) or ()  # none where the value decides the shape, as in Range
    if _small(kind.tensor_type.elem_type, dims):
        feeds = {name: shapes.known[name] for name in node.input if name}
        (value,) = ReferenceEvaluator(node, opsets={"": version}).run(None, feeds)
        shapes.known[output] = np.asarray(value)
        shapes.types[output] = helper.make_tensor_type_proto(
            kind.tensor_type.elem_type, shapes.known[output].shape
        )


def _small(element: int, dims: Sequence[int]) -> bool:
    return math.prod(dims) <= MOST_KNOWN.get(element, 0)


def _like_first(node: onnx.NodeProto, shapes: GraphShapes) -> dict[str, onnx.TypeProto]:
    kind = shapes.types.get(node.input[0])
    return {} if kind is None else {node.output[0]: kind}


def _attention(node: onnx.NodeProto, shapes: GraphShapes) -> dict[str, onnx.TypeProto]:
    """MultiHeadAttention of packed heads: queries' tokens, values' width."""
    query = shapes.shape(node.input[0])
    value = shapes.shape(node.input[2]) if len(node.input) > 2 else query
    if query is None or value is None or len(query) != 3:
        return {}
    element = shapes.types[node.input[0]].tensor_type.elem_type
    shape = (*query[:2], value[-1])
    return {node.output[0]: helper.make_tensor_type_proto(element, shape)}


def _matmul(node: onnx.NodeProto, shapes: GraphShapes) -> dict[str, onnx.TypeProto]:
    """FusedMatMul: either side may be transposed in its last two dimensions."""
    a, b = (shapes.shape(name) for name in node.input[:2])
    if a is None or b is None or min(len(a), len(b)) < 2:
        return {}
    flags = {attribute.name: attribute.i for attribute in node.attribute}
    rows = a[-1] if flags.get("transA") else a[-2]
    columns = b[-2] if flags.get("transB") else b[-1]
    batch = np.broadcast_shapes(a[:-2], b[:-2])
    element = shapes.types[node.input[0]].tensor_type.elem_type
    return {node.output[0]: helper.make_tensor_type_proto(element, (*batch, rows, columns))}


def _nbits(node: onnx.NodeProto, shapes: GraphShapes) -> dict[str, onnx.TypeProto]:
    """MatMulNBits: (..., K) -> (..., N)."""
    a = shapes.shape(node.input[0])
    width = {attribute.name: attribute.i for attribute in node.attribute}.get("N")
    if a is None or width is None:
        return {}
    element = shapes.types[node.input[0]].tensor_type.elem_type
    return {node.output[0]: helper.make_tensor_type_proto(element, (*a[:-1], width))}


_MICROSOFT: dict[str, Callable[[onnx.NodeProto, GraphShapes], dict[str, onnx.TypeProto]]] = {
    **dict.fromkeys(("Gelu", "FastGelu", "QuickGelu", "BiasGelu", "BiasAdd"), _like_first),
    **dict.fromkeys(("SkipLayerNormalization", "GroupNorm"), _like_first),
    "MultiHeadAttention": _attention,
    "FusedMatMul": _matmul,
    "MatMulNBits": _nbits,
}
"""Shape rules of ONNX Runtime's own operators; what follows another one stays unknown."""
