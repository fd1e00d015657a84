"""Mixed precision: int8 arithmetic everywhere, some weights stored in 4 bits to meet a budget.

Which ones is decided by sensitivity: noise power that a layer's rounding causes, over signal power.
The *local* figure is taken at the layer's own output, from weights and calibrated ranges alone;
``sensitivity.measure_sensitivity`` gives figures at the network's output. Errors of different
layers are nearly independent, so their ratios add, and the layers with the least added noise per
saved byte go first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from hummingbird_export.quantize.equalize import choose_factor
from hummingbird_export.quantize.layers import Layer, Rows, find_layers
from hummingbird_export.quantize.plan import Mode, default_plan, weight_bytes
from hummingbird_export.quantize.ranges import Observation, Spread
from hummingbird_export.quantize.scales import channel_scales, tensor_scale
from hummingbird_export.quantize.stored import can_be_int4
from hummingbird_export.quantize.weights import TWO_LEVELS, per_channel, two_level, widen
from hummingbird_export.quantize.weights import channel_scales as weight_scales
from hummingbird_runtime.errors import UsageError

DEPTH = 2
"""Parts of a layer's name that make its group: ``output_blocks.3``."""

BYTES_PER_WEIGHT = 0.88
"""Budget of ``mixed``: 0.68 GB for 772 M weights, a bundle below 1.02 GB with its other graphs."""

_ROWS = 64
"""Output channels that a local figure looks at."""


@dataclass(frozen=True)
class LayerSensitivity:
    """What one layer costs, as noise power over signal power."""

    group: str
    """First parts of its name."""
    weights: int
    """Number of weights."""
    local_int8: float
    """At its own output, int8."""
    local_int4: float
    """At its own output, int8 arithmetic with weights stored in 4 bits."""
    int8: float
    """At the network's output, int8."""
    int4: float
    """At the network's output, weights stored in 4 bits."""


Sensitivities = dict[str, LayerSensitivity]
"""Layer name -> what it costs; layers that int8 does not touch are absent."""


def to_json(found: Sensitivities) -> dict[str, dict[str, object]]:
    """Costs in decibels, the costliest layer first."""
    order = sorted(found.items(), key=lambda item: -item[1].int4)
    return {
        name: {
            key: _decibels(value) if isinstance(value, float) else value
            for key, value in asdict(one).items()
        }
        for name, one in order
    }


def estimate_sensitivity(
    model: ir.Model, ranges: Mapping[str, Observation], *, depth: int = DEPTH
) -> Sensitivities:
    """Local figures; those at the network's output are taken to be the same.

    Args:
        model: float32, weights read one at a time.
        ranges: ``calibrate``'s result for it.
        depth: parts of a name that make a group.
    """
    layers = find_layers(model)
    plan = default_plan(layers, "int8")
    found: Sensitivities = {}
    for name, layer in layers.items():
        if plan[name] == "int8" and name in ranges:
            int8, int4 = _local(layer, ranges[name])
            group = ".".join(name.split(".")[:depth])
            found[name] = LayerSensitivity(group, layer.size, int8, int4, int8, int4)
    return found


def choose_mixed(
    model: ir.Model, found: Sensitivities, *, bytes_per_weight: float = BYTES_PER_WEIGHT
) -> dict[str, Mode]:
    """Store the layers in 4 bits that cost least for the bytes they save, until the budget holds.

    Args:
        model: float32.
        found: of this model.
        bytes_per_weight: budget of all layers' weights together, scales included.

    Returns:
        Overrides for ``quantize_graph``.

    Raises:
        UsageError: ``export.budget`` when even 4 bits everywhere are above the budget.
    """
    layers = find_layers(model)
    plan = default_plan(layers, "int8")
    total = sum(weight_bytes(layer, plan[name]) for name, layer in layers.items())
    budget = bytes_per_weight * sum(layer.size for layer in layers.values())

    def saved(name: str) -> float:
        return weight_bytes(layers[name], "int8") - weight_bytes(layers[name], "int8-int4")

    candidates = [name for name in found if can_be_int4(layers[name])]
    candidates.sort(key=lambda name: (found[name].int4 - found[name].int8) / saved(name))
    chosen: dict[str, Mode] = {}
    for name in candidates:
        if total <= budget:
            break
        chosen[name] = "int8-int4"
        total -= saved(name)
    if total > budget:
        raise UsageError(
            "export.budget",
            f"mixed precision: got {total / 1e6:.1f} MB with every layer in its fewest bits, "
            f"expected at most {budget / 1e6:.1f} MB",
            hint="allow more bytes per weight, or take precision w4",
        )
    return chosen


def _local(layer: Layer, seen: Observation) -> tuple[float, float]:
    """Noise over signal at the layer's output for int8, and for 4-bit storage."""
    step = max(1, layer.outputs // _ROWS)
    rows = layer.rows()[::step]
    factor = choose_factor([rows], seen.source)
    source = tensor_scale(seen.source, factor)
    rows = rows * factor[None, :, None]
    power = (seen.source.square / np.square(factor)).astype(np.float32)
    noise = np.square(rows).sum(axis=(1, 2)) * source.scale**2 / 12
    if layer.is_conv:
        noise = noise + np.square(_rounding(seen.result)[::step]) / 12
    signal = max(float(_variance(seen.result)[::step].sum()), 1e-30)
    eight = _weight_noise(rows, _int8(rows), power)
    four = _weight_noise(rows, _int4(rows), power) if can_be_int4(layer) else eight
    return float((noise + eight).sum()) / signal, float((noise + four).sum()) / signal


def _int8(rows: Rows) -> Rows:
    quantized = per_channel(rows)
    return quantized.q * quantized.scale[:, None, None]


def _int4(rows: Rows) -> Rows:
    scale = weight_scales(rows, TWO_LEVELS)
    return widen(two_level(rows, scale), rows.shape) * scale[:, None, None]


def _weight_noise(rows: Rows, rounded: Rows, power: NDArray[np.float32]) -> NDArray[np.float32]:
    noise: NDArray[np.float32] = np.einsum("oit,i->o", np.square(rounded - rows), power)
    return noise


def _rounding(result: Spread) -> NDArray[np.float32]:
    return channel_scales(result)[0]


def _variance(result: Spread) -> NDArray[np.float32]:
    return np.maximum(result.square - np.square(result.mean), 0)


def _decibels(ratio: float) -> float:
    return round(10.0 * float(np.log10(max(ratio, 1e-20))), 2)
