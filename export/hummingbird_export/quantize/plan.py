"""Which layer is quantized how: the default plan of every precision, as data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import onnx_ir as ir

from hummingbird_export.quantize.layers import Layer, matches
from hummingbird_export.quantize.stored import can_be_int4
from hummingbird_runtime.errors import UsageError

Mode = Literal["fp32", "int8", "int8-int4", "dynamic", "w8", "w4"]
"""float32; int8 arithmetic (stored as int8 or as int4); dynamic int8; weights only, 8 or 4 bits."""

Plan = dict[str, Mode]
"""Layer name -> mode."""

PRECISIONS = ("int8", "int8-dynamic", "w8", "w4", "mixed")

FULL_PRECISION = ("input_blocks.0.*", "out.2", "*conv_in", "*conv_out")
"""First and last convolutions: few weights, and every error of theirs is in the picture."""

EMBEDDINGS = (
    "time_embed.*",
    "fps_embedding.*",
    "time_cond_proj",
    "frame_embedding.*",
    "text_embedding.*",
    "place_planes.*",
    "*.emb_layers.*",
)
"""Layers on one row per clip or frame: no time to win, so weights only."""

_SMALL = 4096
"""Layers with fewer weights stay float32."""

_MOVES = ("Squeeze", "Unsqueeze", "Reshape", "Identity", "Cast")


def default_plan(
    layers: Mapping[str, Layer],
    precision: str,
    *,
    exclude: Sequence[str] = FULL_PRECISION,
    weight_only: Sequence[str] = EMBEDDINGS,
    overrides: Mapping[str, Mode] | None = None,
) -> Plan:
    """The mode of every layer.

    Args:
        layers: of the model.
        precision: one of ``PRECISIONS``; ``mixed`` starts as int8 and is changed by ``overrides``.
        exclude: name patterns of layers that stay float32.
        weight_only: name patterns of layers that are at most stored in 8 bits.
        overrides: modes that win over all rules, by layer name (``sensitivity.choose_mixed``).

    Raises:
        UsageError: ``export.precision`` for another precision or an unknown layer.
    """
    unknown = sorted(set(overrides or {}) - layers.keys())
    if precision not in PRECISIONS or unknown:
        raise UsageError(
            "export.precision",
            f"quantization: got precision {precision!r}"
            + (f" and layers {', '.join(unknown[:3])}" if unknown else "")
            + f", expected one of {', '.join(PRECISIONS)}"
            + (" and layers of this graph" if unknown else ""),
            hint="list layers with `hummingbird export sensitivity`",
        )
    plan: Plan = {}
    for name, layer in layers.items():
        plan[name] = (overrides or {}).get(name) or _rule(layer, precision, exclude, weight_only)
        if plan[name] in ("w4", "int8-int4") and not can_be_int4(layer):
            plan[name] = "w8" if plan[name] == "w4" else "int8"
    return plan


def reads_input(layer: Layer) -> bool:
    """Whether a layer reads a graph input that was only reshaped, such as the prompt's tokens.

    Nobody calibrates on every prompt, and a prompt has few tokens.
    """
    for value in layer.sources:
        node = value.producer()
        while node is not None and node.op_type in _MOVES and node.inputs[0] is not None:
            value = node.inputs[0]
            node = value.producer()
        if not value.is_graph_input():
            return False
    return True


def _rule(layer: Layer, precision: str, exclude: Sequence[str], weight_only: Sequence[str]) -> Mode:
    if matches(layer.name, exclude) or layer.size < _SMALL:
        return "fp32"
    few = matches(layer.name, weight_only) or (not layer.is_conv and reads_input(layer))
    if precision == "w4":
        return "w8" if matches(layer.name, weight_only) else "w4"
    if precision == "w8" or few:
        return "w8"
    if precision == "int8-dynamic":
        return "w8" if layer.is_conv or not layer.transposed else "dynamic"
    return "int8"


def weight_bytes(layer: Layer, mode: Mode) -> float:
    """Bytes of a layer's weight in the file, scales included."""
    bits = {"fp32": 32.0, "int8": 8.0, "dynamic": 8.0, "w8": 8.0, "w4": 4.5, "int8-int4": 4.25}
    return layer.size * bits[mode] / 8 + 4 * layer.outputs


def check_supported(model: ir.Model) -> None:
    """Refuse a graph that is quantized already.

    Raises:
        UsageError: ``export.precision``.
    """
    done = {"QuantizeLinear", "DequantizeLinear", "MatMulNBits", "MatMulIntegerToFloat"}
    found = sorted({node.op_type for node in model.graph} & done)
    if found:
        raise UsageError(
            "export.precision",
            f"quantization: got a graph with {', '.join(found)}, expected one in float32",
            hint="quantize the float32 graph",
        )
