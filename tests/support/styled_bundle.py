"""Makes small bundles whose U-Net has weights in external data, and a map for style adapters.

Modules: ``proj`` (a linear layer stored as two transposed halves, value and gate), ``conv`` (3x3)
and ``out`` (1x1). Stored as float32, float16 behind a Cast, or int8 behind DequantizeLinear.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tiny_bundle
import tiny_onnx

CHANNELS = 16
FORMAT = {"format": "hummingbird-adapter", "base": "", "name": "ink"}
_QRANGE = 64


def module_weights(seed: int = 0) -> dict[str, np.ndarray]:
    """float32 weights as a torch module would hold them: (out, in, kernel..)."""
    rng = np.random.default_rng(seed)
    shapes = {
        "proj": (2 * CHANNELS, 4), "conv": (CHANNELS, CHANNELS, 3, 3), "out": (4, CHANNELS, 1, 1)
    }  # fmt: skip
    return {name: rng.normal(size=shape).astype(np.float32) / 3 for name, shape in shapes.items()}


def stored(weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same weights as the graph holds them, float32."""
    proj = weights["proj"]
    return {
        "proj.value.weight": np.ascontiguousarray(proj[:CHANNELS].T),
        "proj.gate.weight": np.ascontiguousarray(proj[CHANNELS:].T),
        "conv.weight": weights["conv"],
        "out.weight": weights["out"],
    }


def quantized(array: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """7-bit integers of an array, and the scale of each channel along an axis with some room."""
    others = tuple(i for i in range(array.ndim) if i != axis)
    scale = (1.5 * np.abs(array).max(axis=others) / _QRANGE).astype(np.float32)
    shape = [1] * array.ndim
    shape[axis] = -1
    return np.rint(array / scale.reshape(shape)).astype(np.int8), scale


def initializers(weights: Mapping[str, np.ndarray], precision: str) -> dict[str, np.ndarray]:
    """What the graph's external data holds, in order."""
    arrays: dict[str, np.ndarray] = {}
    for name, array in stored(weights).items():
        if precision == "int8":
            axis = array.ndim - 1 if array.ndim == 2 else 0
            arrays[name], arrays[name + ".scale"] = quantized(array, axis)
        else:
            arrays[name] = array.astype(np.float16 if precision == "fp16" else np.float32)
    return arrays


def graph(arrays: Mapping[str, np.ndarray], precision: str) -> tuple[bytes, bytes, dict]:
    """``model.onnx``, ``model.onnx_data`` and the place of each initializer in it."""
    n, f = tiny_onnx.node, tiny_onnx.field
    raw, data, places = [], b"", {}
    for name, array in arrays.items():
        data += b"\0" * (-len(data) % 64)
        content = np.asarray(array, order="C").tobytes()
        dims = b"".join(f(1, size) for size in array.shape)
        where = {"location": "model.onnx_data", "offset": len(data), "length": len(content)}
        body = dims + f(2, tiny_onnx.DTYPES[str(array.dtype)]) + f(8, name)
        body += b"".join(f(13, f(1, key) + f(2, str(value))) for key, value in where.items())
        raw.append(body + f(14, 1))
        places[name] = {
            "name": name, "file": "model.onnx_data", "offset": len(data),
            "dtype": str(array.dtype), "dims": list(array.shape),
        }  # fmt: skip
        data += content
    read, nodes = {}, []
    for name in stored(module_weights()):
        read[name] = name
        if precision == "fp16":
            nodes.append(n("Cast", [name], [f"{name}.wide"], to=1))
            read[name] = f"{name}.wide"
        if precision == "int8":
            axis = 1 if name.startswith("proj") else 0
            nodes.append(
                n("DequantizeLinear", [name, f"{name}.scale"], [f"{name}.wide"], axis=axis)
            )
            read[name] = f"{name}.wide"
    nodes += [
        n("Squeeze", ["sample", "first"], ["clip"]),
        n("Transpose", ["clip"], ["rows"], perm=[1, 2, 3, 0]),
        n("MatMul", ["rows", read["proj.value.weight"]], ["value"]),
        n("MatMul", ["rows", read["proj.gate.weight"]], ["gate"]),
        n("Mul", ["value", "gate"], ["mixed"]),
        n("Transpose", ["mixed"], ["wide"], perm=[0, 3, 1, 2]),
        n("Conv", ["wide", read["conv.weight"]], ["blurred"], pads=[1, 1, 1, 1]),
        n("Sigmoid", ["blurred"], ["soft"]),
        n("Conv", ["soft", read["out.weight"]], ["narrow"]),
        n("Transpose", ["narrow"], ["back"], perm=[1, 0, 2, 3]),
        n("Unsqueeze", ["back", "first"], ["out_sample"]),
    ]
    entry = tiny_bundle.graphs()["unet"]
    model = tiny_onnx.model(
        nodes,
        [(t.name, t.dtype, t.dims) for t in entry.inputs],
        [(t.name, t.dtype, t.dims) for t in entry.outputs],
        {"first": np.array([0])},
        raw_constants=raw,
    )
    return model, data, places


def adapter_map(places: Mapping[str, dict]) -> dict[str, list[dict[str, Any]]]:
    """``initializers.json``."""

    def entry(name: str, **more: Any) -> dict[str, Any]:
        scale = {"scale": places[f"{name}.scale"]} if f"{name}.scale" in places else {}
        return {**places[name], **scale, **more}

    return {
        "proj": [
            entry("proj.value.weight", layout="linear_t", rows=[0, CHANNELS]),
            entry("proj.gate.weight", layout="linear_t", rows=[CHANNELS, 2 * CHANNELS]),
        ],
        "conv": [entry("conv.weight", layout="conv")],
        "out": [entry("out.weight", layout="conv", rows=None)],
    }


def write(
    root: Path,
    precision: str = "fp32",
    *,
    weights: Mapping[str, np.ndarray] | None = None,
    arrays: Mapping[str, np.ndarray] | None = None,
    change_map: Any = None,
    more: Mapping[str, bytes] | None = None,
    **manifest: Any,
) -> Path:
    """Write a sealed bundle.

    Args:
        root: new folder.
        precision: fp32, fp16 or int8.
        weights: of the modules; None takes ``module_weights()``.
        arrays: initializers in place of those that follow from the weights.
        change_map: a function that alters the map in place or gives another one.
        more: further files.
        **manifest: fields of the manifest.
    """
    kept = arrays or initializers(weights or module_weights(), precision)
    model, data, places = graph(kept, precision)
    table = adapter_map(places)
    if change_map is not None:
        changed = change_map(table)
        table = table if changed is None else changed
    content = {
        **tiny_bundle.files(),
        "unet/model.onnx": model,
        "unet/model.onnx_data": data,
        "unet/initializers.json": json.dumps(table).encode(),
        **(more or {}),
    }
    graphs = tiny_bundle.graphs()
    ops = (
        "Cast",
        "Conv",
        "DequantizeLinear",
        "MatMul",
        "Mul",
        "Sigmoid",
        "Squeeze",
        "Transpose",
        "Unsqueeze",
    )
    graphs["unet"] = dataclasses.replace(
        graphs["unet"], ops=tuple(f"ai.onnx:{op}" for op in ops)
    )  # fmt: skip
    return tiny_bundle.write(root, content, **{"graphs": graphs, **manifest})


def factors(rank: int = 3, seed: int = 5, size: float = 0.3) -> dict[str, np.ndarray]:
    """Tensors of an adapter for every module, one of them without alpha, one in float16."""
    rng = np.random.default_rng(seed)

    def draw(*shape: int) -> np.ndarray:
        return (rng.normal(size=shape) * size).astype(np.float32)

    return {
        "proj.lora_down.weight": draw(rank, 4),
        "proj.lora_up.weight": draw(2 * CHANNELS, rank),
        "proj.alpha": np.float32(2.0).reshape(()),
        "conv.lora_down.weight": draw(rank, CHANNELS, 3, 3),
        "conv.lora_up.weight": draw(CHANNELS, rank, 1, 1),
        "conv.alpha": np.array([6.0], np.float32),
        "out.lora_down.weight": draw(rank, CHANNELS, 1, 1).astype(np.float16),
        "out.lora_up.weight": draw(4, rank, 1, 1).astype(np.float16),
    }


def by_hand(tensors: Mapping[str, np.ndarray], strength: float) -> dict[str, np.ndarray]:
    """The modules' weights with an adapter merged, computed in float64 by einsum."""
    merged = {}
    for name, weight in module_weights().items():
        down = tensors[f"{name}.lora_down.weight"].astype(np.float64)
        up = tensors[f"{name}.lora_up.weight"].astype(np.float64)
        alpha = float(np.ravel(tensors.get(f"{name}.alpha", np.float64(len(down))))[0])
        product = np.einsum("or,r...->o...", up.reshape(len(up), -1), down)
        merged[name] = weight + strength * alpha / len(down) * product
    return merged
