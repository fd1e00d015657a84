"""Latency of each graph at export: what the bundle's ``measurements.json`` holds.

A first impression on the exporting machine, stated with its sizes and threads; the benchmark is
where numbers are compared.
"""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnxruntime

from hummingbird_export.compile import CompiledGraph, opened
from hummingbird_export.storage import EXTERNAL_THRESHOLD
from hummingbird_export.wrappers import Signature, example_feeds
from hummingbird_runtime.manifest import ModelFacts, SessionSettings

RUNS = 3


def measure_graphs(
    graphs: Mapping[str, tuple[CompiledGraph, Signature]], facts: ModelFacts
) -> dict[str, Any]:
    """Load and run each graph, median of three after one warm-up.

    Args:
        graphs: by role.
        facts: default sizes of a clip. A graph of more than 64 MB runs at its smallest sizes
            instead, since one pass at full size can take minutes.
    """
    return {
        "machine": {
            "system": platform.system(),
            "processor": platform.machine(),
            "cpu_count": os.cpu_count(),
            "python": platform.python_version(),
            "onnxruntime": onnxruntime.__version__,
        },
        "graphs": {
            role: _measure(compiled.path, signature, compiled.graph.session, facts)
            for role, (compiled, signature) in graphs.items()
        },
    }


def _measure(
    path: Path, signature: Signature, settings: SessionSettings, facts: ModelFacts
) -> dict[str, Any]:
    size = sum(file.stat().st_size for file in path.parent.iterdir())
    sizes = {name: axis.multiple_of for name, axis in signature.axes.items()}
    if "F" in sizes:
        sizes["F"] = facts.frames.allowed[0]
    if size <= EXTERNAL_THRESHOLD:
        usual = {
            "F": facts.frames.default,
            "N": facts.decode_chunk,
            "h": facts.height.default // facts.vae_scale_factor,
            "w": facts.width.default // facts.vae_scale_factor,
            "H": facts.height.default,
            "W": facts.width.default,
        }
        sizes = {name: usual[name] for name in sizes}
    feeds = example_feeds(signature, sizes)
    start = time.perf_counter()
    with opened(path, settings) as run:
        load = time.perf_counter() - start
        run(feeds)
        seconds = []
        for _ in range(RUNS):
            start = time.perf_counter()
            run(feeds)
            seconds.append(time.perf_counter() - start)
    return {
        "bytes": size,
        "sizes": sizes,
        "load_seconds": round(load, 4),
        "run_seconds_median": round(statistics.median(seconds), 5),
        "runs": RUNS,
    }
