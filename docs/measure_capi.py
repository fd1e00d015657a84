"""Print how the C interface compares with the onnxruntime package on this machine.

Latents of the built-in bundle with the same prompt and seed; processor seconds of a warm call,
which other work changes little (pairs in turn, median of PAIRS); bytes that stay after 1000 runs
of a small graph, and after 100 openings.

python docs/measure_capi.py
"""

from __future__ import annotations

import gc
import os
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np

from hummingbird_runtime import SessionOptions, TextToVideoPipeline, builtin_bundle
from hummingbird_runtime.capi import CapiBackend
from hummingbird_runtime.session import OnnxRuntimeBackend

PAIRS = 5
PROMPT = "a small red circle moving to the left on a black background"
ONE_THREAD = SessionOptions(threads=1)


def resident() -> int:
    """Bytes of this process in memory."""
    gc.collect()
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def latents_and_seconds() -> tuple[float, dict[str, list[float]]]:
    """Largest relative difference of the latents, and processor seconds of each pair's calls."""
    seconds: dict[str, list[float]] = {"package": [], "C interface": []}
    latents: dict[str, Any] = {}
    pipes = {
        name: TextToVideoPipeline.from_pretrained(threads=1, backend=backend)
        for name, backend in (("package", OnnxRuntimeBackend()), ("C interface", CapiBackend()))
    }
    for pair in range(PAIRS + 1):
        for name in (*pipes,)[:: 1 if pair % 2 else -1]:
            start = time.process_time()
            latents[name] = pipes[name](PROMPT, seed=7, output_type="latent")
            if pair:  # the first warms up
                seconds[name].append(time.process_time() - start)
    for pipe in pipes.values():
        pipe.close()
    difference = np.linalg.norm(latents["C interface"] - latents["package"])
    return float(difference / np.linalg.norm(latents["package"])), seconds


def growth() -> tuple[int, int]:
    """Bytes kept after 1000 runs, and after 100 openings, of the text encoder."""
    graph = builtin_bundle() / "text_encoder" / "model.onnx"
    backend = CapiBackend()

    def opened(times: int) -> None:
        for _ in range(times):
            backend.open(graph, ONE_THREAD).close()

    session = backend.open(graph, ONE_THREAD)
    (ids,) = session.inputs
    length = ids.dims[1] if isinstance(ids.dims[1], int) else 24
    feeds = {ids.name: np.zeros((1, length), ids.dtype)}
    for _ in range(100):
        session.run(feeds)
    before = resident()
    for _ in range(1000):
        session.run(feeds)
    by_runs = resident() - before
    opened(10)
    before = resident()
    opened(100)
    return by_runs, resident() - before


def main() -> None:
    """Measure and print."""
    print(f"library {CapiBackend().version}")
    difference, seconds = latents_and_seconds()
    print(f"latents, relative difference  {difference:.1e}")
    for name, values in seconds.items():
        print(
            f"{name:<28}  {statistics.median(values):.2f} s of one processor, a call to its latents"
        )
    ratios = [a / b for a, b in zip(seconds["C interface"], seconds["package"], strict=True)]
    print(f"C interface / package         {statistics.median(ratios):.2f}, median of {PAIRS} pairs")
    by_runs, by_openings = growth()
    print(f"kept after 1000 runs          {by_runs / 2**20:.1f} MiB")
    print(f"kept after 100 openings       {by_openings / 2**20:.1f} MiB")


if __name__ == "__main__":
    main()
