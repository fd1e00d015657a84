"""Small float32 graphs with layers to quantize, and how to run them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime

from hummingbird_export.storage import save_graph

FLOAT = ir.DataType.FLOAT


class Sketch:
    """A graph under construction: inputs, weights by name, nodes."""

    def __init__(self, opset: int = 18) -> None:
        self.graph = ir.Graph([], [], nodes=[], name="sketch", opset_imports={"": opset})

    def input(self, name: str, shape: Sequence[int | str], dtype: ir.DataType = FLOAT) -> ir.Value:
        value = ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(dtype))
        self.graph.inputs.append(value)
        return value

    def weight(self, name: str, array: np.ndarray) -> ir.Value:
        known = self.graph.initializers.get(name)
        if known is not None:
            return known
        tensor = ir.tensor(np.ascontiguousarray(array), name=name)
        value = ir.Value(
            name=name,
            shape=ir.Shape(array.shape),
            type=ir.TensorType(tensor.dtype),
            const_value=tensor,
        )
        self.graph.register_initializer(value)
        return value

    def op(self, op_type: str, *inputs: ir.Value | None, name: str = "", **attributes) -> ir.Value:
        return self.ops(op_type, *inputs, name=name, outputs=1, **attributes)[0]

    def ops(self, op_type: str, *inputs: ir.Value | None, name="", outputs=1, **attributes):
        label = name or f"{op_type}{len(self.graph)}"
        node = ir.node(
            op_type, list(inputs), attributes=attributes, name=label, num_outputs=outputs
        )
        for index, value in enumerate(node.outputs):
            value.name = f"{label}:{index}"
        self.graph.append(node)
        return list(node.outputs)

    def model(self, *outputs: ir.Value) -> ir.Model:
        for value in outputs:
            value.type = value.type or ir.TensorType(FLOAT)
            self.graph.outputs.append(value)
        return ir.Model(self.graph, ir_version=10)


def save(model: ir.Model, folder: Path, *, external: bool = False) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return save_graph(model, folder, external_threshold=0 if external else 2**26)


def run(path: Path, feeds: dict[str, np.ndarray], *, optimized: Path | None = None) -> list:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    if optimized is not None:
        options.optimized_model_filepath = str(optimized)
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return session.run(None, feeds)


def kernels(path: Path, feeds: dict[str, np.ndarray]) -> list[str]:
    """Operators that ONNX Runtime really runs, after all its fusions."""
    target = path.parent / "optimized.onnx"
    run(path, feeds, optimized=target)
    return [node.op_type for node in onnx.load(str(target)).graph.node]


def snr_db(got: np.ndarray, want: np.ndarray) -> float:
    noise = np.square(got.astype(np.float64) - want).sum()
    return float(10 * np.log10(np.square(want, dtype=np.float64).sum() / max(noise, 1e-30)))


def conv_pair(
    rng: np.random.Generator, *, channels: int = 16, clones: int = 2, spread: float = 1.0
):
    """Conv (module ``block.conv``), cloned over frames, on channels of unequal size.

    Returns the model and one input of 4 frames.
    """
    s = Sketch()
    x = s.input("x", ["n", channels, "h", "w"])
    kernel = rng.standard_normal((channels, channels, 3, 3)) / np.sqrt(9 * channels)
    kernel *= rng.lognormal(0, spread, (channels, 1, 1, 1))
    w = s.weight("block.conv.weight", kernel.astype(np.float32))
    b = s.weight("block.conv.bias", rng.standard_normal(channels).astype(np.float32))
    halves = s.ops("Split", x, outputs=clones, axis=0, num_outputs=clones) if clones > 1 else [x]
    made = [
        s.op("Conv", half, w, b, name=f"block.conv/Conv@{i}", pads=[1, 1, 1, 1])
        for i, half in enumerate(halves)
    ]
    y = s.op("Concat", *made, axis=0) if clones > 1 else made[0]
    z = s.op("Relu", y)
    scale = rng.lognormal(0, spread, (1, channels, 1, 1))
    sample = (rng.standard_normal((4, channels, 8, 8)) * scale).astype(np.float32)
    return s.model(z), {"x": sample}


def token_block(rng: np.random.Generator, *, op: str = "Gemm", width: int = 64, rank: int = 2):
    """LayerNorm, q and v that share it, Sigmoid(q) * v, out with a bias.

    Channels of the norm are of very unequal size. Returns the model and one input.
    """
    s = Sketch()
    shape = ["m", width] if rank == 2 else [1, "m", width]
    x = s.input("x", shape)
    gains = np.ones(width)
    gains[::16] = 20.0
    norm = s.weight("norm.weight", gains.astype(np.float32))
    shift = s.weight("norm.bias", (0.1 * rng.standard_normal(width)).astype(np.float32))
    y = s.op("LayerNormalization", x, norm, shift, axis=-1, name="norm")

    def layer(name: str, value: ir.Value, bias: bool) -> ir.Value:
        matrix = (rng.standard_normal((width, width)) / np.sqrt(width)).astype(np.float32)
        w = s.weight(f"{name}.weight", matrix)
        b = s.weight(f"{name}.bias", rng.standard_normal(width).astype(np.float32))
        if op == "Gemm":
            return s.op("Gemm", value, w, *([b] if bias else []), name=name)
        made = s.op("MatMul", value, w, name=name)
        return s.op("Add", made, b, name=f"{name}/Add") if bias else made

    q, v = layer("to_q", y, False), layer("to_v", y, True)
    mixed = s.op("Mul", v, s.op("Sigmoid", q))
    out = layer("to_out", mixed, True)
    tail = s.op("Tanh", s.op("Mul", out, s.weight("half", np.float32(0.1))))
    rows = rng.standard_normal((96, width)).astype(np.float32)
    return s.model(tail), {"x": rows if rank == 2 else rows[None]}
