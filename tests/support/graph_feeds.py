"""Random inputs for any graph of a bundle, made from its entry in the manifest."""

from __future__ import annotations

import numpy as np

from hummingbird_runtime.manifest import Graph

SIZES = {"B": 1, "F": 4, "h": 8, "w": 8, "N": 2, "L": 24}
# every vocabulary, table of timesteps and table of frame rates is longer than this
IDS = 60


def random_feeds(graph: Graph, *, seed: int = 0) -> dict[str, np.ndarray]:
    """Arrays by input name; free sizes are those of SIZES, whole numbers are ids below IDS."""
    generator, feeds = np.random.default_rng(seed), {}
    for tensor in graph.inputs:
        shape = [SIZES[dim] if isinstance(dim, str) else dim for dim in tensor.dims]
        if tensor.dtype == "int64":
            feeds[tensor.name] = generator.integers(1, IDS, shape, dtype=np.int64)
        else:
            feeds[tensor.name] = generator.standard_normal(shape).astype(tensor.dtype)
    return {name: np.asarray(array) for name, array in feeds.items()}
