"""A graph under construction: operators are appended, weights are named, nothing is computed.

Weights stay where they are (torch tensors, memory-mapped files) until the graph is written, one
after the other; a graph of a billion weights costs no memory here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from onnx_ir.passes.common import RemoveUnusedNodesPass

from hummingbird_runtime.manifest import Tensor as TensorSpec

OPSET = 18
MICROSOFT = "com.microsoft"


class GraphBuilder:
    """Appends nodes to one graph.

    Args:
        name: of the graph.
    """

    def __init__(self, name: str) -> None:
        self._graph = ir.Graph([], [], nodes=[], name=name, opset_imports={"": OPSET})
        self._path: list[str] = []
        self._names: dict[str, int] = {}
        self._constants: dict[tuple[str, tuple[int, ...], bytes], ir.Value] = {}
        self._microsoft = False

    @contextmanager
    def scope(self, *parts: str) -> Iterator[None]:
        """Nodes and weights made inside are named below ``parts``; empty ones are left out."""
        depth = len(self._path)
        self._path.extend(part for part in parts if part)
        try:
            yield
        finally:
            del self._path[depth:]

    def input(self, spec: TensorSpec) -> ir.Value:
        """Declare an input."""
        value = _declared(spec)
        self._graph.inputs.append(value)
        return value

    def op(
        self, op_type: str, *inputs: ir.Value | None, domain: str = "", name: str = "", **attrs: Any
    ) -> ir.Value:
        """Append a node with one output."""
        return self.ops(op_type, *inputs, outputs=1, domain=domain, name=name, **attrs)[0]

    def ops(
        self,
        op_type: str,
        *inputs: ir.Value | None,
        outputs: int,
        domain: str = "",
        name: str = "",
        **attrs: Any,
    ) -> Sequence[ir.Value]:
        """Append a node with several outputs."""
        unique = self._unique(name or op_type)
        node = ir.node(
            op_type,
            list(inputs),
            attributes=attrs,
            domain=domain,
            num_outputs=outputs,
            name=unique,
        )
        for index, value in enumerate(node.outputs):
            value.name = f"{unique}:{index}" if outputs > 1 else f"{unique}:out"
        self._microsoft |= domain == MICROSOFT
        self._graph.append(node)
        return node.outputs

    def weight(self, name: str, tensor: torch.Tensor) -> ir.Value:
        """An initializer named below the scope; asked for twice, it is the same one.

        Args:
            name: tensor name below the scope's path.
            tensor: a parameter or a view of one, float32; read when the graph is written.
        """
        full = ".".join([*self._path, name])
        known = self._graph.initializers.get(full)
        if known is not None:
            return known
        view = tensor.detach()
        lazy = ir.LazyTensor(
            lambda: ir.tensor(view.contiguous().numpy(), name=full),
            dtype=ir.DataType.FLOAT,
            shape=ir.Shape(tuple(view.shape)),
            name=full,
        )
        return self._initializer(full, lazy)

    def constant(self, array: Any, dtype: type[np.generic] = np.int64) -> ir.Value:
        """A small constant; equal ones are shared."""
        value = np.asarray(array, dtype)
        key = (value.dtype.str, value.shape, value.tobytes())
        if key not in self._constants:
            name = f"constant.{len(self._constants)}"
            self._constants[key] = self._initializer(name, ir.tensor(value, name=name))
        return self._constants[key]

    def finish(self, outputs: Sequence[tuple[ir.Value, TensorSpec]]) -> ir.Model:
        """Close the graph under the names of its outputs."""
        for value, spec in outputs:
            declared = _declared(spec)
            value.name, value.type, value.shape = declared.name, declared.type, declared.shape
            self._graph.outputs.append(value)
        if self._microsoft:
            self._graph.opset_imports[MICROSOFT] = 1
        model = ir.Model(self._graph, ir_version=10)
        RemoveUnusedNodesPass()(model)
        return model

    def _initializer(self, name: str, tensor: ir.TensorProtocol) -> ir.Value:
        value = ir.Value(
            name=name,
            shape=ir.Shape(tensor.shape.numpy()),
            type=ir.TensorType(tensor.dtype),
            const_value=tensor,
        )
        self._graph.register_initializer(value)
        return value

    def _unique(self, name: str) -> str:
        full = "/".join([".".join(self._path), name]) if self._path else name
        count = self._names.get(full, 0)
        self._names[full] = count + 1
        return f"{full}@{count}" if count else full


def _declared(spec: TensorSpec) -> ir.Value:
    return ir.Value(
        name=spec.name,
        shape=ir.Shape(spec.dims),
        type=ir.TensorType(ir.DataType[{"float32": "FLOAT", "int64": "INT64"}[spec.dtype]]),
    )
