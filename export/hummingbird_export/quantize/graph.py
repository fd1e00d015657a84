"""Quantizing a graph: one entry for every precision, in place, weights read one at a time.

Order: channel factors are folded into norms and layers before (exact in float32), then every layer
is rewritten in its mode. Quantized weights are computed when the graph is saved.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import onnx_ir as ir

from hummingbird_export.quantize.dynamic import quantize_dynamic
from hummingbird_export.quantize.equalize import fold_scales
from hummingbird_export.quantize.layers import find_layers
from hummingbird_export.quantize.mixed import choose_mixed, estimate_sensitivity
from hummingbird_export.quantize.plan import (
    EMBEDDINGS,
    FULL_PRECISION,
    Mode,
    Plan,
    check_supported,
    default_plan,
    weight_bytes,
)
from hummingbird_export.quantize.qdq import quantize_static
from hummingbird_export.quantize.ranges import Channels, Observation, Ranges
from hummingbird_export.quantize.rewriter import Rewriter
from hummingbird_export.quantize.stored import Storage
from hummingbird_export.quantize.weight_only import store_int4, store_int8, store_tables
from hummingbird_runtime.errors import UsageError


@dataclass(frozen=True)
class QuantizationReport:
    """What was done to a graph."""

    plan: Plan
    """Mode of every layer."""
    folds: int
    """Places where channel factors were folded."""
    tables: int
    """Embedding tables stored as int8."""
    bytes_before: int
    """Bytes of all layers' weights in float32."""
    bytes_after: int
    """The same in the file, scales included."""
    input_factors: dict[str, Channels] = field(default_factory=dict)
    """Layer -> (inputs,): what its stored weight was multiplied by; absent where nothing was."""
    output_factors: dict[str, Channels] = field(default_factory=dict)
    """Layer -> (outputs,): what its stored weight was divided by."""

    def counts(self) -> dict[str, int]:
        """Number of layers per mode."""
        return dict(Counter(self.plan.values()))

    def to_json(self) -> dict[str, object]:
        """Counts and bytes, for a measurement file."""
        return {
            "layers": self.counts(),
            "folds": self.folds,
            "tables": self.tables,
            "weight_bytes": {"float32": self.bytes_before, "stored": self.bytes_after},
        }


def quantize_graph(
    model: ir.Model,
    precision: str,
    *,
    ranges: Mapping[str, Observation] | None = None,
    exclude: Sequence[str] = FULL_PRECISION,
    weight_only: Sequence[str] = EMBEDDINGS,
    overrides: Mapping[str, Mode] | None = None,
    fused: bool = False,
    along_channels: bool = True,
    tables: bool = True,
) -> QuantizationReport:
    """Quantize a float32 graph, in place.

    Args:
        model: float32; saved with ``storage.save_graph`` afterwards, which computes the weights.
        precision: ``int8``, ``int8-dynamic``, ``w8``, ``w4`` or ``mixed``.
        ranges: ``calibrate``'s result, needed by int8 and mixed.
        exclude: name patterns of layers that stay float32.
        weight_only: name patterns of layers that are at most stored in 8 bits.
        overrides: modes by layer name, above all rules; None lets ``mixed`` choose by itself.
        fused: use operators of ``com.microsoft`` where they are faster.
        along_channels: scales along channels at convolutions; False for compilers that take only
            one scale per activation.
        tables: store large embedding tables as int8.

    Raises:
        UsageError: ``export.precision``, ``export.ranges_missing`` when a layer that is to be int8
            was not observed, or ``export.budget`` from ``mixed``.
    """
    check_supported(model)
    layers = find_layers(model)
    if precision == "mixed" and overrides is None and ranges is not None:
        overrides = choose_mixed(model, estimate_sensitivity(model, ranges))
    plan = default_plan(
        layers, precision, exclude=exclude, weight_only=weight_only, overrides=overrides
    )
    seen: Ranges = dict(ranges or {})
    static = [layer for name, layer in layers.items() if plan[name] in ("int8", "int8-int4")]
    _check_ranges([layer.name for layer in static], seen)
    before = sum(4 * layer.size for layer in layers.values())
    after = sum(weight_bytes(layer, plan[name]) for name, layer in layers.items())
    quantized = {layer.name for layer in static}
    folds = fold_scales(model, layers, seen, lambda layer: layer.name in quantized)
    rewriter = Rewriter(model)
    storage: dict[str, Storage] = {
        name: "int4" for name, mode in plan.items() if mode == "int8-int4"
    }
    input_factors = folds.inputs | quantize_static(
        rewriter, static, seen, storage, fused=fused, along_channels=along_channels
    )
    dynamic = [layer for name, layer in layers.items() if plan[name] == "dynamic"]
    quantize_dynamic(rewriter, dynamic)
    for name, layer in layers.items():
        if plan[name] == "w8":
            store_int8(rewriter, layer)
        elif plan[name] == "w4":
            store_int4(rewriter, layer, fused=fused)
    return QuantizationReport(
        plan,
        folds.count,
        store_tables(rewriter) if tables else 0,
        before,
        round(after),
        {name: factor for name, factor in input_factors.items() if (factor != 1).any()},
        folds.outputs,
    )


def _check_ranges(names: Sequence[str], ranges: Mapping[str, Observation]) -> None:
    missing = [name for name in names if name not in ranges]
    if missing:
        raise UsageError(
            "export.ranges_missing",
            f"calibration: got no ranges for {len(missing)} of {len(names)} layers, the first is "
            f"{missing[0]}, expected one for every int8 layer",
            hint="calibrate the graph that is quantized, in the same form",
        )
