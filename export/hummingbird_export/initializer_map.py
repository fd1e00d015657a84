"""Where the weights of each module lie in the files of a graph: what ``initializers.json`` says.

Read back from the written files, so that offsets are those of the bytes that ship: external data
for weights, the protobuf itself for their scales. Matrices behind Gemm or MatMul, kernels behind
Conv: as float32, as float16 behind a Cast, as int8 behind DequantizeLinear. Left out are weights
in four bits, to which nothing can be added on their stored scales, and weights inside the protobuf:
ONNX Runtime replaces external data only.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from hummingbird_export.protobuf_places import raw_data_offsets
from hummingbird_runtime.adapter_map import MAP
from hummingbird_runtime.errors import ExecutionError

GAINS = "initializers.bin"
"""Factors that quantization put into stored weights, float32, one vector after the other."""

_DTYPES = {
    TensorProto.FLOAT: "float32",
    TensorProto.FLOAT16: "float16",
    TensorProto.INT8: "int8",
    TensorProto.UINT8: "uint8",
}
_HALVES = (".value", ".gate")
Vector = NDArray[np.float32]
Entry = dict[str, Any]


def initializer_map(
    path: Path,
    *,
    input_factors: Mapping[str, Vector] | None = None,
    output_factors: Mapping[str, Vector] | None = None,
) -> dict[str, list[Entry]]:
    """The map of a graph file, by module path; writes ``GAINS`` beside it where it is needed.

    Args:
        path: ``model.onnx`` as it ships; call it after the last change of the file.
        input_factors: layer -> (inputs,): what its stored weight was multiplied by
            (``QuantizationReport.input_factors``).
        output_factors: layer -> (outputs,): what its stored weight was divided by.

    Returns:
        Module path -> entries as ``hummingbird_runtime.adapter_map`` reads them.

    Raises:
        ExecutionError: ``export.adapter_map`` when a scale's bytes cannot be addressed.
    """
    graph = _Graph(path)
    gains = _Gains(path.parent / GAINS)
    found: dict[str, list[Entry]] = {}
    for layer, entry in graph.layers():
        for key, factor in _factors(layer, graph, input_factors or {}, output_factors or {}):
            entry[key] = gains.add(f"{layer}.{key}", factor)
        target, rows = graph.target(layer, entry)
        if rows is not None:
            entry["rows"] = rows
        found.setdefault(target, []).append(entry)
    gains.write()
    return {target: found[target] for target in sorted(found)}


def write_initializer_map(path: Path, **factors: Mapping[str, Vector] | None) -> Path:
    """Write ``initializers.json`` beside a graph file; arguments as ``initializer_map``."""
    target = path.parent / MAP
    text = json.dumps(initializer_map(path, **factors), separators=(",", ":"))
    target.write_text(text + "\n", encoding="utf-8")
    return target


class _Graph:
    """A graph file: who reads which initializer, and where its bytes are.

    Args:
        path: ``model.onnx``.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        graph = onnx.load(str(path), load_external_data=False).graph
        self._offsets = raw_data_offsets(path)
        self.tensors = {tensor.name: tensor for tensor in graph.initializer}
        self._readers: dict[str, list[tuple[onnx.NodeProto, int]]] = {}
        for node in graph.node:
            for index, name in enumerate(node.input):
                self._readers.setdefault(name, []).append((node, index))

    def layers(self) -> Iterator[tuple[str, Entry]]:
        """Module path of each stored weight and its entry, factors left out."""
        for name, tensor in self.tensors.items():
            if not (name.endswith(".weight") and len(tensor.dims) >= 2 and tensor.external_data):
                continue
            layout, scale, zero = self._use(name)
            if layout is None or tensor.data_type not in _DTYPES:
                continue
            entry = {**self.place(name), "layout": layout}
            if scale:
                entry["scale"] = self.place(scale)
            if zero and self.array(zero).any():
                entry["zero_point"] = self.place(zero)
            yield name.removesuffix(".weight"), entry

    def array(self, name: str) -> NDArray[Any]:
        """The numbers of an initializer, wherever they lie."""
        found: NDArray[Any] = numpy_helper.to_array(
            self.tensors[name], base_dir=str(self._path.parent)
        )
        return found

    def place(self, name: str) -> Entry:
        """File, offset, number format and sizes of an initializer."""
        tensor = self.tensors[name]
        outside = {entry.key: entry.value for entry in tensor.external_data}
        if outside:
            file, offset = outside["location"], int(outside.get("offset", 0))
        else:
            file, offset = self._path.name, self._offsets.get(name, -1)
        if offset < 0:
            raise ExecutionError(
                "export.adapter_map",
                f"graph {self._path.name}: {name} has no raw bytes, expected them in the file or "
                "in its external data",
                hint="write the graph with storage.save_graph",
            )
        return {
            "name": name,
            "file": file,
            "offset": offset,
            "dtype": _DTYPES[tensor.data_type],
            "dims": list(tensor.dims),
        }

    def target(self, layer: str, entry: Entry) -> tuple[str, list[int] | None]:
        """Module path of a layer; a half of a GEGLU projection is rows of one module."""
        for index, half in enumerate(_HALVES):
            if layer.endswith(
                half
            ) and f"{layer.removesuffix(half)}{_HALVES[1 - index]}.weight" in (self.tensors):
                size = entry["dims"][1 if entry["layout"] == "linear_t" else 0]
                return layer.removesuffix(half), [index * size, (index + 1) * size]
        return layer, None

    def _use(self, name: str) -> tuple[str | None, str, str]:
        """Layout of a weight by its readers, and the initializers that dequantize it."""
        readers = self._readers.get(name, [])
        node, index = readers[0] if readers else (onnx.NodeProto(), 0)
        if index == 1 and node.op_type == "MatMulIntegerToFloat":
            return "linear_t", node.input[3], _input(node, 5)
        if index == 1 and node.op_type == "MatMulInteger":  # its scale comes in after the product
            scale = f"{name}.scale"
            return "linear_t" if scale in self.tensors else None, scale, _input(node, 3)
        scale = zero = ""
        if index == 0 and node.op_type == "DequantizeLinear":
            scale, zero = node.input[1], _input(node, 2)
        if scale or (node.op_type == "Cast" and self._widens(node)):
            if len(readers) != 1:
                return None, "", ""
            readers = self._readers.get(node.output[0], [])
        layouts = {_layout(reader, place) for reader, place in readers}
        if len(layouts) != 1 or (scale and scale not in self.tensors):
            return None, "", ""
        return layouts.pop(), scale, zero

    def _widens(self, node: onnx.NodeProto) -> bool:
        return bool(self.tensors[node.input[0]].data_type == TensorProto.FLOAT16)


def _input(node: onnx.NodeProto, index: int) -> str:
    """Name of an input, empty where it is left out."""
    return node.input[index] if index < len(node.input) else ""


def _layout(node: onnx.NodeProto, index: int) -> str | None:
    """How a reader takes a weight; None where it is no layer."""
    if index != 1:
        return None
    if node.op_type == "Conv":
        return "conv"
    if node.op_type == "MatMul":
        return "linear_t"
    if node.op_type == "Gemm":
        given = {attribute.name: attribute for attribute in node.attribute}
        plain = all(given[key].f == 1.0 for key in ("alpha", "beta") if key in given)
        if not plain or ("transA" in given and given["transA"].i):
            return None
        return "linear" if "transB" in given and given["transB"].i else "linear_t"
    return None


def _factors(
    layer: str, graph: _Graph, inputs: Mapping[str, Vector], outputs: Mapping[str, Vector]
) -> Iterator[tuple[str, Vector]]:
    """What a change of the weight must be multiplied with before it is added to the stored one.

    Static int8 convolutions with a step per output channel hold their results, and so their
    weights, in units of that step.
    """
    if layer in inputs:
        yield "input_gain", inputs[layer]
    gain = np.float32(1.0) / outputs[layer] if layer in outputs else None
    step = graph.tensors.get(f"{layer}.result.scale")
    if step is not None:
        units = graph.array(f"{layer}.result.scale").astype(np.float32)
        gain = (1.0 if gain is None else gain) / units
    if gain is not None:
        yield "output_gain", gain


class _Gains:
    """Vectors collected for one side file.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._data = bytearray()

    def add(self, name: str, vector: Vector) -> Entry:
        """Append a vector; returns its place."""
        offset = len(self._data)
        self._data += np.ascontiguousarray(vector, "<f4").tobytes()
        return {
            "name": name,
            "file": self._path.name,
            "offset": offset,
            "dtype": "float32",
            "dims": [int(np.size(vector))],
        }

    def write(self) -> None:
        """Write the file, where there is anything to write."""
        if self._data:
            self._path.write_bytes(self._data)
