"""Calibration: the float32 graph is run on inputs of real trajectories and its layers are watched.

Every watched tensor is reduced to a few numbers per channel inside the graph, so what leaves ONNX
Runtime is small. Observers are added for some layers at a time, and weights stay in their file:
the peak is that of one plain run. Run it on small clips; ranges hold for large ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime
from numpy.typing import NDArray

from hummingbird_export.quantize.layers import Layer, find_layers
from hummingbird_export.quantize.ranges import Observation, Ranges, Spread, merge
from hummingbird_export.wrappers import Feeds
from hummingbird_runtime.errors import ExecutionError

_REDUCERS = ("ReduceMin", "ReduceMax", "ReduceMean")


def calibrate(path: Path, feeds: Iterable[Feeds], *, passes: int = 1, threads: int = 0) -> Ranges:
    """Watch every layer of a graph over some inputs.

    Args:
        path: ``model.onnx`` in float32, its external data beside it.
        feeds: inputs of the graph, for instance those of ``trajectory.Trajectory``.
        passes: sessions that the layers are shared out to; more passes, less memory, more time.
        threads: of ONNX Runtime; 0 is its own choice.

    Returns:
        Statistics per layer, merged over inputs and over clones of a layer.

    Raises:
        ExecutionError: ``export.calibration`` when the graph fails or gives numbers that are not
            finite.
    """
    samples = list(feeds)
    names = list(find_layers(ir.load(path)))
    seen: Ranges = {}
    for start in range(passes):
        watched = names[start::passes]
        if watched:
            seen |= _observe(path, watched, samples, threads)
    return {name: seen[name] for name in names if name in seen}


def open_in_memory(
    model: ir.Model, folder: Path, *, threads: int = 0, optimize: bool = False
) -> onnxruntime.InferenceSession:
    """A session on a model that exists in memory, its external data in ``folder``.

    Args:
        model: its external tensors are not read here.
        folder: where external data lie.
        threads: of ONNX Runtime; 0 is its own choice.
        optimize: every optimization; else only basic ones, and weights are not copied.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    # neither saves memory here: buffers kept by shape, and a second block for the pattern
    options.enable_mem_reuse = options.enable_mem_pattern = False
    if not optimize:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.add_session_config_entry("session.disable_prepacking", "1")
    options.add_session_config_entry(
        "session.model_external_initializers_file_folder_path", str(folder)
    )
    data = ir.to_proto(model).SerializeToString()
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def _observe(path: Path, names: Sequence[str], samples: list[Feeds], threads: int) -> Ranges:
    model = ir.load(path)
    layers = find_layers(model)
    outputs = _add_observers(model, [layers[name] for name in names])
    try:
        session = open_in_memory(model, path.parent, threads=threads)
        merged: Ranges = {}
        for feeds in samples:
            found = session.run(list(outputs.names), feeds)
            values = dict(zip(outputs.names, found, strict=True))
            merged = merge([merged, *outputs.read(values)])
    except ExecutionError:
        raise
    except Exception as error:  # ONNX Runtime's classes share no narrower base
        raise ExecutionError(
            "export.calibration",
            f"calibration of {path.name}: ONNX Runtime failed: {str(error).splitlines()[0][:300]}",
            hint="run the graph alone on the same inputs",
        ) from error
    return merged


class _Observers:
    """Names of the added outputs, and how they make observations."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.tensors: dict[str, list[str]] = {}
        """Watched value -> its outputs: shape, the reducers, mean square."""
        self.layers: list[tuple[str, str, str]] = []
        """Layer, value it reads, value it gives."""

    def read(self, values: Mapping[str, NDArray[np.float32]]) -> list[Ranges]:
        """One entry per node of a layer."""
        spreads: dict[str, tuple[Spread, float, int]] = {}
        for tensor, names in self.tensors.items():
            shape, *parts = (values[name] for name in names)
            if not all(np.isfinite(part).all() for part in parts):
                raise ExecutionError(
                    "export.calibration",
                    f"activation {tensor}: got values that are not finite, expected finite ones",
                    hint="check the weights for NaN, or the inputs of the calibration",
                )
            count = float(np.prod(shape) / parts[0].size)
            spreads[tensor] = (Spread(*parts), count, len(shape))
        return [
            {layer: Observation(spreads[source][0], spreads[result][0], *spreads[source][1:])}
            for layer, source, result in self.layers
        ]


def _add_observers(model: ir.Model, layers: Sequence[Layer]) -> _Observers:
    observers = _Observers()
    graph = model.graph
    for layer in layers:
        for node in layer.nodes:
            source, result = node.inputs[0], node.outputs[0]
            assert source is not None
            for value in (source, result):
                if value.name not in observers.tensors:
                    _watch(graph, value, layer, node, observers)
            assert source.name is not None
            assert result.name is not None
            observers.layers.append((layer.name, source.name, result.name))
    return observers


def _watch(
    graph: ir.Graph, value: ir.Value, layer: Layer, node: ir.Node, observers: _Observers
) -> None:
    """Append reducers over everything but the channels, right behind the node."""
    index = len(observers.tensors)
    prefix = f"observe.{index}"
    assert value.name is not None
    added: list[ir.Node] = []

    def constant(name: str, numbers: Sequence[int]) -> ir.Value:
        tensor = ir.tensor(np.array(numbers, np.int64), name=f"{prefix}.{name}")
        made = ir.Value(
            name=tensor.name,
            shape=ir.Shape([len(numbers)]),
            type=ir.TensorType(tensor.dtype),
            const_value=tensor,
        )
        graph.register_initializer(made)
        return made

    if layer.is_conv:
        spatial = len(layer.shape) - 2
        flat, axes = value, constant("axes", [0, *range(2, 2 + spatial)])
    else:
        channels = layer.inputs if value is node.inputs[0] else layer.outputs
        reshape = ir.node("Reshape", [value, constant("rows", [-1, channels])])
        flat, axes = reshape.outputs[0], constant("axes", [0])
        flat.name = f"{prefix}.flat"
        added.append(reshape)
    # ReduceSumSquare is twenty times slower than this on wide matrices
    square = ir.node("Mul", [flat, flat])
    square.outputs[0].name = f"{prefix}.squared"
    added.append(square)
    names = [f"{prefix}.{name}" for name in ("Shape", *_REDUCERS, "Square")]
    added.append(ir.node("Shape", [value]))
    added += [ir.node(name, [flat, axes], attributes={"keepdims": 0}) for name in _REDUCERS]
    added.append(ir.node("ReduceMean", [square.outputs[0], axes], attributes={"keepdims": 0}))
    for one, name in zip(added[-len(names) :], names, strict=True):
        one.outputs[0].name = name
        shape = name.endswith("Shape")
        one.outputs[0].type = ir.TensorType(ir.DataType.INT64 if shape else ir.DataType.FLOAT)
        graph.outputs.append(one.outputs[0])
    graph.insert_after(node, added)
    observers.names += names
    observers.tensors[value.name] = names
