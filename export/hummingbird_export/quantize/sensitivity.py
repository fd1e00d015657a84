"""Sensitivity measured on the model's own trajectory: one group of layers quantized at a time.

The network runs on recorded inputs; the noise-to-signal ratio of its output is what the group
costs, shared out to the group's layers by their local noise (``mixed``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from hummingbird_export.quantize.calibrate import open_in_memory
from hummingbird_export.quantize.graph import quantize_graph
from hummingbird_export.quantize.layers import find_layers
from hummingbird_export.quantize.mixed import DEPTH, Sensitivities, estimate_sensitivity
from hummingbird_export.quantize.plan import Mode
from hummingbird_export.quantize.ranges import Observation
from hummingbird_export.wrappers import Feeds


def measure_sensitivity(
    path: Path,
    feeds: Sequence[Feeds],
    ranges: Mapping[str, Observation],
    *,
    depth: int = DEPTH,
    threads: int = 0,
) -> Sensitivities:
    """Quantize one group at a time and run the network on recorded inputs.

    Args:
        path: ``model.onnx`` in float32.
        feeds: inputs recorded on trajectories; a few are enough.
        ranges: ``calibrate``'s result for the graph.
        depth: parts of a name that make a group; a large number measures layers one by one.
        threads: of ONNX Runtime; 0 is its own choice.
    """
    model = ir.load(path)
    local = estimate_sensitivity(model, ranges, depth=depth)
    names = list(find_layers(model))
    want = _run(path, {}, names, feeds, ranges, threads)
    groups: dict[str, list[str]] = {}
    for name, one in local.items():
        groups.setdefault(one.group, []).append(name)
    measured: Sensitivities = {}
    for members in groups.values():
        int8, int4 = (
            _noise_to_signal(
                _run(path, dict.fromkeys(members, mode), names, feeds, ranges, threads), want
            )
            for mode in _MODES
        )
        all_int8 = sum(local[name].int8 for name in members)
        all_int4 = sum(local[name].int4 for name in members)
        for name in members:
            one = local[name]
            measured[name] = replace(
                one, int8=int8 * one.int8 / all_int8, int4=int4 * one.int4 / all_int4
            )
    return {name: measured[name] for name in local}


_MODES: tuple[Mode, ...] = ("int8", "int8-int4")


def _run(
    path: Path,
    modes: Mapping[str, Mode],
    names: Sequence[str],
    feeds: Sequence[Feeds],
    ranges: Mapping[str, Observation],
    threads: int,
) -> list[NDArray[np.float32]]:
    """Outputs with some layers quantized and all others in float32."""
    model = ir.load(path)
    if modes:
        overrides: dict[str, Mode] = {name: modes.get(name, "fp32") for name in names}
        quantize_graph(model, "mixed", ranges=ranges, overrides=overrides, tables=False)
    session = open_in_memory(model, path.parent, threads=threads, optimize=True)
    return [session.run(None, one)[0] for one in feeds]


def _noise_to_signal(
    got: Sequence[NDArray[np.float32]], want: Sequence[NDArray[np.float32]]
) -> float:
    ratios = [
        float(np.square(g.astype(np.float64) - w).sum() / np.square(w, dtype=np.float64).sum())
        for g, w in zip(got, want, strict=True)
    ]
    return float(np.mean(ratios))
