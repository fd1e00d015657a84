"""Small edits of a graph that all quantizers share: constants, nodes, unique names.

Large constants are lazy: they are computed when the graph is written, one after the other, and
dropped. So a quantized model never lies in memory as a whole.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from hummingbird_export.quantize.layers import dims

MICROSOFT = "com.microsoft"

_INT4_OPSET = 21
"""First operator set whose Cast and DequantizeLinear take int4 and blocks."""

_SMALL = 4096
"""Constants of up to this many numbers are computed at once."""


class Rewriter:
    """Edits one model in place.

    Args:
        model: to be changed.
    """

    def __init__(self, model: ir.Model) -> None:
        self.model = model
        self._graph = model.graph
        self._constants: dict[tuple[str, tuple[int, ...], bytes], ir.Value] = {}

    def constant(self, name: str, array: Any) -> ir.Value:
        """A small constant under a name of its own; asked for twice, it is the same one."""
        value = np.asarray(array)
        return self._initializer(name, lambda: value, ir.tensor(value).dtype, value.shape)

    def shared(self, array: Any) -> ir.Value:
        """A small constant; equal ones are one."""
        value = np.asarray(array)
        key = (value.dtype.str, value.shape, value.tobytes())
        if key not in self._constants:
            name = f"quantize.constant.{len(self._constants)}"
            self._constants[key] = self.constant(name, value)
        return self._constants[key]

    def become(
        self, value: ir.Value, compute: Callable[[], NDArray[Any]], dtype: ir.DataType
    ) -> None:
        """Give an initializer other numbers under its old name; lazily."""
        assert value.name is not None
        assert value.const_value is not None
        shape = dims(value.const_value)
        value.const_value = _lazy(value.name, compute, dtype, shape)
        value.type = ir.TensorType(dtype)

    def lazy(
        self,
        name: str,
        compute: Callable[[], NDArray[Any]],
        dtype: ir.DataType,
        shape: tuple[int, ...],
    ) -> ir.Value:
        """A large constant, computed each time it is read."""
        return self._initializer(name, compute, dtype, shape)

    def before(
        self,
        place: ir.Node,
        op_type: str,
        *inputs: ir.Value | None,
        name: str,
        dtype: ir.DataType,
        domain: str = "",
        **attributes: Any,
    ) -> ir.Value:
        """Insert a node with one output in front of ``place``."""
        node = self._node(op_type, inputs, name, dtype, domain, attributes)
        self._graph.insert_before(place, node)
        return node.outputs[0]

    def after(
        self,
        place: ir.Node,
        op_type: str,
        *inputs: ir.Value | None,
        name: str,
        dtype: ir.DataType,
        domain: str = "",
        **attributes: Any,
    ) -> ir.Value:
        """Insert a node with one output right behind ``place``."""
        node = self._node(op_type, inputs, name, dtype, domain, attributes)
        self._graph.insert_after(place, node)
        return node.outputs[0]

    def replace(self, old: ir.Value, new: ir.Value) -> None:
        """Let all readers of ``old`` read ``new``, but for the node that makes ``new``."""
        maker = new.producer()
        for node, index in list(old.uses()):
            if node is not maker:
                node.replace_input_with(index, new)

    def remove(self, *nodes: ir.Node) -> None:
        """Remove nodes whose outputs nobody reads, and initializers that nobody reads then."""
        sources = [value for node in nodes for value in node.inputs if value is not None]
        self._graph.remove(list(nodes), safe=True)
        for value in sources:
            self.drop(value)

    def drop(self, value: ir.Value) -> None:
        """Remove an initializer that nobody reads."""
        name = value.name or ""
        if value.is_initializer() and not value.uses() and name in self._graph.initializers:
            del self._graph.initializers[name]

    def need_int4(self) -> None:
        """Raise the operator set to the first with int4."""
        current = self._graph.opset_imports.get("", 0)
        self._graph.opset_imports[""] = max(current, _INT4_OPSET)

    def _node(
        self,
        op_type: str,
        inputs: tuple[ir.Value | None, ...],
        name: str,
        dtype: ir.DataType,
        domain: str,
        attributes: dict[str, Any],
    ) -> ir.Node:
        node = ir.node(op_type, list(inputs), attributes=attributes, domain=domain, name=name)
        node.outputs[0].name = f"{name}:out"
        node.outputs[0].type = ir.TensorType(dtype)
        if domain:
            self._graph.opset_imports.setdefault(domain, 1)
        return node

    def _initializer(
        self,
        name: str,
        compute: Callable[[], NDArray[Any]],
        dtype: ir.DataType,
        shape: tuple[int, ...],
    ) -> ir.Value:
        known = self._graph.initializers.get(name)
        if known is not None:
            return known

        tensor = _lazy(name, compute, dtype, shape)
        value = ir.Value(
            name=name, shape=ir.Shape(shape), type=ir.TensorType(dtype), const_value=tensor
        )
        self._graph.register_initializer(value)
        return value


def _lazy(
    name: str, compute: Callable[[], NDArray[Any]], dtype: ir.DataType, shape: tuple[int, ...]
) -> ir.TensorProtocol:
    """Computed at every reading, or now when it is small."""

    def tensor() -> ir.TensorProtocol:
        array = np.ascontiguousarray(compute())
        if dtype == ir.DataType.INT4:
            array = array.astype(ml_dtypes.int4)
        return ir.Tensor(array.reshape(shape), dtype=dtype, shape=ir.Shape(shape), name=name)

    if int(np.prod(shape)) <= _SMALL:
        return tensor()
    return ir.LazyTensor(tensor, dtype=dtype, shape=ir.Shape(shape), name=name)
