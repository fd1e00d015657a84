"""Equalization: outlier channels of activations are divided down, the weights multiplied up.

A per-tensor uint8 scale spends its 256 steps on the largest channel. Dividing channel k of an
activation by r_k and multiplying the weights that read it by r_k changes nothing in exact
arithmetic (SmoothQuant, Xiao et al. 2023). A convolution's input gets its r in QuantizeLinear
itself, along the channel axis, for free; a matrix's input gets it where the activation is made: in
the affine part of the norm, or the columns of the linear layer, before it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from hummingbird_export.quantize.layers import Layer, Rows, bias_add, dims
from hummingbird_export.quantize.ranges import Channels, Ranges, Spread
from hummingbird_export.quantize.weights import SEVEN_BITS

_STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Exponents that are tried; 0.5 is SmoothQuant's."""

_SAMPLE = 1 << 16
"""Weights that an estimate looks at: enough rows for a mean, little time."""

_MOVES = frozenset(
    ("Reshape", "Transpose", "Squeeze", "Unsqueeze", "Split", "Concat", "Slice", "Identity")
)
"""Operators that move values without changing them."""


@dataclass(frozen=True)
class Fold:
    """Values behind which a channel factor can be hidden, and the layers that it reaches."""

    vectors: tuple[ir.Value, ...]
    """Norm weights and biases: divided."""
    before: Layer | None
    """Linear layer before, whose output columns and bias are divided."""
    layers: tuple[Layer, ...]
    """Layers behind: their weights are multiplied."""


@dataclass
class Folded:
    """What folding did."""

    count: int = 0
    """Places."""
    inputs: dict[str, Channels] = field(default_factory=dict)
    """Layer -> what its weight was multiplied by, (inputs,)."""
    outputs: dict[str, Channels] = field(default_factory=dict)
    """Layer -> what its weight and bias were divided by, (outputs,)."""


def estimate_noise(rows: Rows, seen: Spread, factor: Channels, limit: int = SEVEN_BITS) -> float:
    """Noise power that quantization adds to a layer's outputs, summed over its rows.

    Activations: uint8 step^2 / 12 through the weights. Weights: the rounding error that they have,
    through the mean square of the activations.

    Args:
        rows: weight (outputs, inputs, taps).
        seen: the activation's statistics.
        factor: r, (inputs,).
        limit: largest |q| of the weights.
    """
    scaled = rows * factor[None, :, None]
    step = np.float32(_span(seen, factor) / 255.0)
    flat = scaled.reshape(len(scaled), -1)
    scale = np.maximum(np.abs(flat).max(axis=1), 1e-30) / np.float32(limit)
    error = np.rint(scaled / scale[:, None, None]) * scale[:, None, None] - scaled
    power = (seen.square / np.square(factor))[None, :, None]
    return float(np.sum(np.square(error) * power) + np.sum(np.square(scaled)) * step**2 / 12)


def choose_factor(weights: Sequence[Rows], seen: Spread) -> Channels:
    """The channel factor r with the least estimated noise over layers that read one activation.

    r_k = (a_k / w_k)^strength with a_k the largest |activation| and w_k the largest |weight| of
    channel k; 1 when no strength helps.

    Args:
        weights: rows of the layers.
        seen: statistics of the activation, merged over the layers.
    """
    reach = np.maximum(np.maximum(seen.high, -seen.low), np.float32(1e-12))
    reach = np.maximum(reach, reach.max() * np.float32(1e-5))
    samples = [rows[:: max(1, rows.size // _SAMPLE)] for rows in weights]
    channel = np.max([np.abs(rows).max(axis=(0, 2)) for rows in samples], axis=0)
    channel = np.maximum(channel, channel.max() * np.float32(1e-3) + np.float32(1e-30))
    best: Channels = np.ones_like(reach)
    least = np.inf
    for base in (reach, reach / channel):
        for strength in _STRENGTHS:
            factor = np.power(base / np.exp(np.log(base).mean()), strength).astype(np.float32)
            noise = sum(estimate_noise(rows, seen, factor) for rows in samples)
            if noise < least * 0.999:
                best, least = factor, noise
    return best


def fold_scales(
    model: ir.Model, layers: Mapping[str, Layer], ranges: Ranges, wanted: Callable[[Layer], bool]
) -> Folded:
    """Move channel factors of matrix inputs into what makes them, in place.

    Args:
        model: float32; afterwards it computes the same function.
        layers: of the model.
        ranges: statistics, updated to those of the changed graph.
        wanted: layers whose input is going to be quantized per tensor.

    Returns:
        Where, and the factors.
    """
    done = Folded()
    for fold in find_folds(model, layers):
        names = [layer.name for layer in fold.layers]
        if not all(wanted(layer) for layer in fold.layers) or not all(n in ranges for n in names):
            continue
        seen = ranges[names[0]].source
        for name in names[1:]:
            seen = seen.merged(ranges[name].source, 1, 1)
        factor = choose_factor([layer.rows() for layer in fold.layers], seen)
        if np.all(factor == 1):
            continue
        apply_fold(fold, factor, ranges)
        done.count += 1
        done.inputs |= dict.fromkeys(names, factor)
        if fold.before is not None:
            done.outputs[fold.before.name] = factor
    return done


def apply_fold(fold: Fold, factor: Channels, ranges: Ranges) -> None:
    """Divide before, multiply behind; statistics follow.

    Args:
        fold: where.
        factor: (channels,), positive.
        ranges: updated in place.
    """
    inverse = (1 / factor).astype(np.float32)
    for value in fold.vectors:
        _scale_value(value, lambda array: array * inverse.reshape(array.shape))
    if fold.before is not None:
        layer = fold.before
        _scale_rows(layer, inverse, 0)
        biases = {id(b): b for node in layer.nodes if (b := layer.bias(node)) is not None}
        for bias in biases.values():
            _scale_value(bias, lambda array: array * inverse.reshape(array.shape))
        if layer.name in ranges:
            seen = ranges[layer.name]
            ranges[layer.name] = replace(seen, result=seen.result.scaled(inverse))
    for layer in fold.layers:
        _scale_rows(layer, factor, 1)
        if layer.name in ranges:
            seen = ranges[layer.name]
            ranges[layer.name] = replace(seen, source=seen.source.scaled(inverse))


def find_folds(model: ir.Model, layers: Mapping[str, Layer]) -> Iterator[Fold]:
    """Every place where a channel factor can be hidden, exactly."""
    matrices = {name: layer for name, layer in layers.items() if not layer.is_conv}
    readers = {id(node): layer for layer in matrices.values() for node in layer.nodes}
    taken: set[str] = set()
    for vectors, before, made in _makers(model, layers):
        reached = _reach(made, readers)
        if not reached:
            continue
        found = {layer.name: layer for layer in reached.values()}
        whole = all(id(node) in reached for layer in found.values() for node in layer.nodes)
        channels = before.outputs if before is not None else _size(vectors[0])
        fits = all(layer.inputs == channels for layer in found.values())
        if whole and fits and not taken & found.keys():
            taken |= found.keys()
            yield Fold(vectors, before, tuple(found.values()))


def _makers(
    model: ir.Model, layers: Mapping[str, Layer]
) -> Iterator[tuple[tuple[ir.Value, ...], Layer | None, list[ir.Value]]]:
    """(norm weight and bias, or the layer before, and all values that they make)."""
    affine: dict[tuple[int, int], tuple[tuple[ir.Value, ...], list[ir.Value]]] = {}
    for node in model.graph:
        pair = _affine(node)
        if pair is not None:
            key = (id(pair[0]), id(pair[1]))
            affine.setdefault(key, (pair, []))[1].append(node.outputs[0])
    for vectors, made in affine.values():
        if all(len(value.uses()) == len(made) for value in vectors):
            yield vectors, None, made
    for layer in layers.values():
        if layer.is_conv:
            continue
        made, biases = [], {}
        for node in layer.nodes:
            add = bias_add(node) if node.op_type == "MatMul" else None
            made.append((add or node).outputs[0])
            bias = layer.bias(node)
            if bias is not None:
                biases[id(bias)] = bias
        if all(len(bias.uses()) == len(layer.nodes) for bias in biases.values()):
            yield (), layer, made


def _affine(node: ir.Node) -> tuple[ir.Value, ir.Value] | None:
    """Weight and bias of a LayerNormalization, or of ``Add(Mul(x, weight), bias)``."""
    if node.op_type == "LayerNormalization" and len(node.inputs) > 2:
        weight, bias = node.inputs[1], node.inputs[2]
        if weight is not None and bias is not None and _stored(weight) and _stored(bias):
            return weight, bias
        return None
    if node.op_type != "Add" or len(node.inputs) != 2:
        return None
    product, bias = node.inputs
    mul = product.producer() if product is not None else None
    if mul is None or bias is None or mul.op_type != "Mul" or len(mul.outputs[0].uses()) != 1:
        return None
    weight = mul.inputs[1]
    if weight is None or not _stored(weight) or not _stored(bias):
        return None
    return (weight, bias) if _size(weight) == _size(bias) > 1 else None


def _reach(made: Sequence[ir.Value], readers: Mapping[int, Layer]) -> dict[int, Layer]:
    """Nodes of layers at the end of every path from ``made``; empty when a path ends elsewhere."""
    ends: dict[int, Layer] = {}
    seen: set[int] = set()
    waiting = list(made)
    while waiting:
        value = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if value.is_graph_output() or not value.uses():
            return {}
        for node, index in value.uses():
            if id(node) in readers and index == 0:
                ends[id(node)] = readers[id(node)]
            elif _passes(node, index):
                waiting.extend(node.outputs)
            else:
                return {}
    return ends


def _passes(node: ir.Node, index: int) -> bool:
    """Whether a factor per channel of this input is the same factor of the outputs."""
    others = [value for i, value in enumerate(node.inputs) if i != index and value is not None]
    if node.op_type in _MOVES:
        return node.op_type == "Concat" or index == 0
    if node.op_type == "MatMul":  # values of an attention: a sum over tokens, not channels
        return index == 1 and not _stored(others[0])
    if node.op_type == "MultiHeadAttention":
        return index == 2
    return node.op_type == "Mul" and not _stored(others[0])


def _stored(value: ir.Value) -> bool:
    return value.is_initializer() and value.const_value is not None


def _size(value: ir.Value) -> int:
    assert value.const_value is not None
    return int(value.const_value.size)


def _scale_rows(layer: Layer, factor: Channels, axis: int) -> None:
    """Multiply a weight by a factor per output (axis 0) or input (axis 1), when it is read."""
    shape = [1] * len(layer.shape)
    shape[1 - axis if layer.transposed else axis] = factor.size
    _scale_value(layer.weight, lambda array: array * factor.reshape(shape))


def _scale_value(
    value: ir.Value, change: Callable[[NDArray[np.float32]], NDArray[np.float32]]
) -> None:
    """Replace an initializer by a function of itself, computed when it is read."""
    old = value.const_value
    assert old is not None
    value.const_value = ir.LazyTensor(
        lambda: ir.tensor(change(old.numpy()), name=value.name),
        dtype=ir.DataType.FLOAT,
        shape=ir.Shape(dims(old)),
        name=value.name,
    )


def _span(seen: Spread, factor: Channels) -> float:
    low = min(float((seen.low / factor).min()), 0.0)
    high = max(float((seen.high / factor).max()), 0.0)
    return max(high - low, 1e-12)
