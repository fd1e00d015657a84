"""Static int8 products: a pair at the input, int8 weight, float32 result.

Standard form: Gemm with an int32 bias (ONNX Runtime's QGemm), or MatMul and an Add whose bias has
as many dimensions as the tokens (MatMulIntegerToFloat): a vector there would first be fused into a
Gemm that runs in float32, slower than no quantization. Fused form: MatMulIntegerToFloat itself,
bias included, the fastest of all.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from hummingbird_export.quantize.layers import Layer, bias_add, read
from hummingbird_export.quantize.ranges import Observation, Spread
from hummingbird_export.quantize.rewriter import MICROSOFT, Rewriter
from hummingbird_export.quantize.scales import Affine, tensor_scale
from hummingbird_export.quantize.stored import IntWeight, Storage, int_weight

FLOAT, UINT8 = ir.DataType.FLOAT, ir.DataType.UINT8


def quantize_products(
    rewriter: Rewriter,
    layers: tuple[Layer, ...],
    seen: Spread,
    ranges: Mapping[str, Observation],
    storage: Mapping[str, Storage],
    *,
    fused: bool,
) -> None:
    """Quantize products that read the same activation.

    Args:
        rewriter: of the model.
        layers: matrices.
        seen: statistics of their activation.
        ranges: give the number of dimensions of the activation.
        storage: layer name -> how int8 weights are stored; int8 where missing.
        fused: write ``com.microsoft:MatMulIntegerToFloat``.
    """
    source = tensor_scale(seen, np.ones(layers[0].inputs, np.float32))
    pair = source.constants(rewriter)
    done: dict[int, ir.Value] = {}
    for layer in layers:
        ones = np.ones(layer.inputs, np.float32)
        weight = int_weight(rewriter, layer, ones, seen.mean, storage.get(layer.name, "int8"))
        form = _Fused if fused else _Pairs
        writer = form(rewriter, layer, weight, source, ranges[layer.name].rank)
        for node in layer.nodes:
            x = node.inputs[0]
            assert x is not None
            if id(x) not in done:
                q = rewriter.before(
                    node, "QuantizeLinear", x, *pair, name=f"{x.name}.q", dtype=UINT8
                )
                if not fused:
                    q = rewriter.before(
                        node, "DequantizeLinear", q, *pair, name=f"{x.name}.dq", dtype=FLOAT
                    )
                done[id(x)] = q
            writer.rewrite(node, done[id(x)])
        rewriter.drop(layer.weight)


class _Writer:
    """What the two forms share: the weight's constants and the corrected bias.

    Args:
        rewriter: of the model.
        layer: a matrix.
        weight: its int8 form.
        source: scale of the activation.
        rank: dimensions of the activation.
    """

    def __init__(
        self, rewriter: Rewriter, layer: Layer, weight: IntWeight, source: Affine, rank: int
    ) -> None:
        self.rewriter, self.layer, self.weight = rewriter, layer, weight
        self.source, self.rank = source, rank
        self.name, self.first = layer.name, layer.nodes[0]
        self.scale = rewriter.constant(f"{self.name}.weight.scale", weight.scale)
        self.zeros = rewriter.shared(np.zeros(layer.outputs, np.int8))

    def bias(self, node: ir.Node) -> NDArray[np.float32] | None:
        """The node's bias less the drift of the rounded weight; None where it has none."""
        old = self.layer.bias(node)
        return None if old is None else read(old).reshape(-1) - self.weight.drift

    def drop_bias(self, node: ir.Node, old: ir.Value | None) -> None:
        """Remove the old bias once no clone reads it."""
        if old is not None:
            self.rewriter.drop(old)


class _Fused(_Writer):
    """MatMulIntegerToFloat; a bias costs nothing, so even layers without one are corrected."""

    def rewrite(self, node: ir.Node, q: ir.Value) -> None:
        """Put the fused operator in the place of a product and its bias."""
        old, add = self.layer.bias(node), None
        numbers = self.bias(node)
        if node.op_type == "MatMul":
            add = bias_add(node) if old is not None else None
        bias = self.rewriter.constant(
            f"{self.name}.bias.float32", -self.weight.drift if numbers is None else numbers
        )
        scale, zero = self.source.constants(self.rewriter)
        product = self.rewriter.before(
            node,
            "MatMulIntegerToFloat",
            q,
            self.weight.value,
            scale,
            self.scale,
            zero,
            self.zeros,
            bias,
            name=f"{node.name}.int8",
            dtype=FLOAT,
            domain=MICROSOFT,
        )
        last = add or node
        self.rewriter.replace(last.outputs[0], product)
        self.rewriter.remove(*([add, node] if add else [node]))
        self.drop_bias(node, old)


class _Pairs(_Writer):
    """Standard operators around Gemm or MatMul."""

    def __init__(
        self, rewriter: Rewriter, layer: Layer, weight: IntWeight, source: Affine, rank: int
    ) -> None:
        super().__init__(rewriter, layer, weight, source, rank)
        self.real = rewriter.before(
            self.first,
            "DequantizeLinear",
            weight.value,
            self.scale,
            self.zeros,
            name=f"{self.name}.weight.dq",
            dtype=FLOAT,
            axis=1 if layer.transposed else 0,
        )

    def rewrite(self, node: ir.Node, x: ir.Value) -> None:
        """Let a product read dequantized numbers."""
        old, numbers = self.layer.bias(node), self.bias(node)
        node.replace_input_with(0, x)
        node.replace_input_with(1, self.real)
        if numbers is not None:
            if node.op_type == "Gemm":
                node.replace_input_with(2, self._int_bias(numbers))
            else:
                add = bias_add(node)
                assert add is not None
                index = next(i for i, value in enumerate(add.inputs) if value is old)
                add.replace_input_with(index, self._added_bias(numbers))
        self.drop_bias(node, old)

    def _int_bias(self, numbers: NDArray[np.float32]) -> ir.Value:
        name = f"{self.name}.bias"
        scale = np.maximum(
            self.weight.scale * np.float32(self.source.scale),
            (np.abs(numbers) / 2.0**30).astype(np.float32),
        )
        q = np.rint(numbers / scale.astype(np.float64)).astype(np.int32)
        return self._dequantized(name, q, scale)

    def _added_bias(self, numbers: NDArray[np.float32]) -> ir.Value:
        if self.rank < 3:
            return self._int_bias(numbers)
        shape = (1,) * (self.rank - 1) + (-1,)
        return self.rewriter.constant(f"{self.name}.bias.float32", numbers.reshape(shape))

    def _dequantized(self, name: str, q: NDArray[np.int32], scale: NDArray[np.float32]) -> ir.Value:
        zeros = self.rewriter.shared(np.zeros(scale.size, np.int32))
        numbers = self.rewriter.constant(f"{name}.int32", q)
        if numbers.uses():
            return next(iter(numbers.uses()))[0].outputs[0]
        return self.rewriter.before(
            self.first,
            "DequantizeLinear",
            numbers,
            self.rewriter.constant(f"{name}.scale", scale),
            zeros,
            name=f"{name}.dq",
            dtype=FLOAT,
            axis=0,
        )
