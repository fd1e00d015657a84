"""Static int8: uint8 activations with calibrated scales, int8 weights, in QuantizeLinear pairs.

Each activation and each weight is quantized once, however many layers or clones read it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hummingbird_export.quantize.layers import Layer
from hummingbird_export.quantize.qdq_conv import quantize_convolutions
from hummingbird_export.quantize.qdq_product import quantize_products
from hummingbird_export.quantize.ranges import Channels, Observation, Spread
from hummingbird_export.quantize.rewriter import Rewriter
from hummingbird_export.quantize.stored import Storage


def quantize_static(
    rewriter: Rewriter,
    layers: Sequence[Layer],
    ranges: Mapping[str, Observation],
    storage: Mapping[str, Storage],
    *,
    fused: bool,
    along_channels: bool,
) -> dict[str, Channels]:
    """Quantize layers with calibrated ranges.

    Args:
        rewriter: of the model.
        layers: each with an entry in ``ranges``.
        ranges: statistics of the graph as it is now.
        storage: layer name -> how int8 weights are stored; int8 where missing.
        fused: write products as ``com.microsoft:MatMulIntegerToFloat``.
        along_channels: scales along channels at convolutions; False for compilers that take only
            one scale per activation.

    Returns:
        Layer name -> the factors (inputs,) that its weight was multiplied by, for convolutions.
    """
    factors: dict[str, Channels] = {}
    for group in group_layers(layers):
        seen = merged_source(group, ranges)
        if group[0].is_conv:
            factor = quantize_convolutions(
                rewriter, group, seen, ranges, storage, along_channels=along_channels
            )
            factors |= {layer.name: factor for layer in group}
        else:
            quantize_products(rewriter, group, seen, ranges, storage, fused=fused)
    return factors


def group_layers(layers: Sequence[Layer]) -> list[tuple[Layer, ...]]:
    """Join layers that share an activation; convolutions and products apart."""
    parent = {layer.name: layer.name for layer in layers}

    def root(name: str) -> str:
        while parent[name] != name:
            name = parent[name]
        return name

    owner: dict[tuple[int, bool], str] = {}
    for layer in layers:
        for value in layer.sources:
            first = owner.setdefault((id(value), layer.is_conv), layer.name)
            parent[root(layer.name)] = root(first)
    groups: dict[str, list[Layer]] = {}
    for layer in layers:
        groups.setdefault(root(layer.name), []).append(layer)
    return [tuple(group) for group in groups.values()]


def merged_source(layers: Sequence[Layer], ranges: Mapping[str, Observation]) -> Spread:
    """Statistics of the activation that the layers read."""
    seen = ranges[layers[0].name].source
    for layer in layers[1:]:
        seen = seen.merged(ranges[layer.name].source, 1, 1)
    return seen
