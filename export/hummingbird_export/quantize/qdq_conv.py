"""Static int8 convolutions: a pair at the input, one at the output, scales along channels.

ONNX Runtime turns the form into QLinearConv only when both sides have a pair. Input channel k is
divided by r_k inside QuantizeLinear and the weight multiplied by it; output channel c gets a step
of its own: the weight's scale is divided by it, and DequantizeLinear multiplies it back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from hummingbird_export.quantize.equalize import choose_factor
from hummingbird_export.quantize.layers import Layer, read
from hummingbird_export.quantize.ranges import Channels, Observation, Spread
from hummingbird_export.quantize.rewriter import Rewriter
from hummingbird_export.quantize.scales import Affine, channel_scales, tensor_scale
from hummingbird_export.quantize.stored import Storage, int_weight

FLOAT, UINT8 = ir.DataType.FLOAT, ir.DataType.UINT8

_BIAS_LIMIT = 2.0**30


@dataclass(frozen=True)
class _Output:
    """Constants of the pair at the output."""

    quantize: tuple[ir.Value, ir.Value]
    dequantize: tuple[ir.Value, ir.Value]
    axis: dict[str, Any]
    unit: NDArray[np.float32]
    """(outputs,): what the convolution's results are divided by."""
    shift: NDArray[np.float32]
    """(outputs,): what is added after that."""


def quantize_convolutions(
    rewriter: Rewriter,
    layers: tuple[Layer, ...],
    seen: Spread,
    ranges: Mapping[str, Observation],
    storage: Mapping[str, Storage],
    *,
    along_channels: bool,
) -> Channels:
    """Quantize convolutions that read the same activation.

    Args:
        rewriter: of the model.
        layers: convolutions.
        seen: statistics of their activation.
        ranges: statistics of their results.
        storage: layer name -> how int8 weights are stored; int8 where missing.
        along_channels: scales along channels; else one scale per activation.

    Returns:
        The factor r that the weights were multiplied by, (inputs,).
    """
    factor = np.ones(layers[0].inputs, np.float32)
    if along_channels:
        factor = choose_factor([layer.rows() for layer in layers], seen)
    source = tensor_scale(seen, factor)
    pair = source.constants(rewriter)
    axis: dict[str, Any] = {}
    if np.all(factor == 1):
        quantize = pair
    else:
        name = layers[0].name
        vector = (factor * np.float32(source.scale)).astype(np.float32)
        zeros = np.full(factor.size, source.zero, np.uint8)
        quantize = rewriter.constant(f"{name}.source.scale", vector), rewriter.shared(zeros)
        axis = {"axis": 1}
    done: dict[int, ir.Value] = {}
    for layer in layers:
        weight, bias, output = _constants(
            rewriter,
            layer,
            factor,
            seen,
            source,
            ranges[layer.name].result,
            storage,
            along_channels,
        )
        for node in layer.nodes:
            x = node.inputs[0]
            assert x is not None
            if id(x) not in done:
                q = rewriter.before(
                    node, "QuantizeLinear", x, *quantize, name=f"{x.name}.q", dtype=UINT8, **axis
                )
                done[id(x)] = rewriter.before(
                    node, "DequantizeLinear", q, *pair, name=f"{x.name}.dq", dtype=FLOAT
                )
            _rewire(rewriter, node, done[id(x)], weight, bias, output)
        rewriter.drop(layer.weight)
    return factor


def _constants(
    rewriter: Rewriter,
    layer: Layer,
    factor: Channels,
    seen: Spread,
    source: Affine,
    result: Spread,
    storage: Mapping[str, Storage],
    along_channels: bool,
) -> tuple[ir.Value, ir.Value, _Output]:
    """Weight and bias behind DequantizeLinear, and the output's scales."""
    output = _output(rewriter, layer, result, along_channels)
    weight = int_weight(rewriter, layer, factor, seen.mean, storage.get(layer.name, "int8"))
    old = layer.bias(layer.nodes[0])
    bias = -weight.drift if old is None else read(old).reshape(-1) - weight.drift
    target = (bias / output.unit + output.shift).astype(np.float64)
    # int32 must hold the bias also where a channel's weights are next to nothing
    least = np.abs(target) / (_BIAS_LIMIT * source.scale)
    scale = np.maximum(weight.scale / output.unit, least).astype(np.float32)
    numbers = np.rint(target / (scale.astype(np.float64) * source.scale)).astype(np.int32)
    place, name = layer.nodes[0], layer.name
    zeros = (np.zeros(layer.outputs, kind) for kind in (np.int8, np.int32))
    real_weight = rewriter.before(
        place,
        "DequantizeLinear",
        weight.value,
        rewriter.constant(f"{name}.weight.scale", scale),
        rewriter.shared(next(zeros)),
        name=f"{name}.weight.dq",
        dtype=FLOAT,
        axis=0,
    )
    real_bias = rewriter.before(
        place,
        "DequantizeLinear",
        rewriter.constant(f"{name}.bias.int32", numbers),
        rewriter.constant(f"{name}.bias.scale", (scale * np.float32(source.scale))),
        rewriter.shared(next(zeros)),
        name=f"{name}.bias.dq",
        dtype=FLOAT,
        axis=0,
    )
    return real_weight, real_bias, output


def _output(rewriter: Rewriter, layer: Layer, result: Spread, along_channels: bool) -> _Output:
    if along_channels:
        step, zero = channel_scales(result)
        return _Output(
            Affine(1.0, 128).constants(rewriter),
            (
                rewriter.constant(f"{layer.name}.result.scale", step),
                rewriter.constant(f"{layer.name}.result.zero", zero),
            ),
            {"axis": 1},
            step,
            zero.astype(np.float32) - 128,
        )
    ones = np.ones(layer.outputs, np.float32)
    pair = tensor_scale(result, ones).constants(rewriter)
    return _Output(pair, pair, {}, ones, np.zeros_like(ones))


def _rewire(
    rewriter: Rewriter,
    node: ir.Node,
    x: ir.Value,
    weight: ir.Value,
    bias: ir.Value,
    output: _Output,
) -> None:
    old = node.inputs[2] if len(node.inputs) > 2 else None
    if len(node.inputs) < 3:
        node.resize_inputs(3)
    for index, value in enumerate((x, weight, bias)):
        node.replace_input_with(index, value)
    if old is not None:
        rewriter.drop(old)
    y = node.outputs[0]
    readers = list(y.uses())
    q = rewriter.after(
        node, "QuantizeLinear", y, *output.quantize, name=f"{node.name}.q", dtype=UINT8
    )
    maker = q.producer()
    assert maker is not None
    real = rewriter.after(
        maker,
        "DequantizeLinear",
        q,
        *output.dequantize,
        name=f"{node.name}.dq",
        dtype=FLOAT,
        **output.axis,
    )
    for reader, index in readers:
        reader.replace_input_with(index, real)
