"""Sizes that a graph was exported for alone, against what the model facts allow.

A static target fixes the frames, rows and columns of its graphs. What a caller may ask is in the
facts, so they must say the same: then another size is refused before any work.
"""

from __future__ import annotations

from collections.abc import Mapping

from hummingbird_runtime.facts import ModelFacts
from hummingbird_runtime.manifest_entries import Graph
from hummingbird_runtime.strict_json import fail

_INPUTS = {
    "unet": ("sample", "_CFhw"),
    "vae_decoder": ("latent_sample", "N_hw"),
    "vae_decoder_tiny": ("latent_sample", "N_hw"),
    "upscaler": ("sample", "__HW"),
}


def check_fixed_sizes(graphs: Mapping[str, Graph], facts: ModelFacts) -> None:
    """Refuse facts that allow what a graph of fixed sizes cannot take.

    Raises:
        InputError: ``bundle.manifest_invalid``, naming the fact, the graph and its size.
    """
    cell = facts.vae_scale_factor
    for role, (name, axes) in _INPUTS.items():
        for axis, size in fixed_axes(graphs[role], name, axes).items() if role in graphs else ():
            what, got, expected = {
                "C": ("latent_channels", [facts.latent_channels], [size]),
                "F": ("frames", list(facts.frames.allowed), [size, size]),
                "N": ("decode_chunk", [facts.decode_chunk], [size]),
                "h": ("height", list(facts.height.allowed), [size * cell] * 2),
                "w": ("width", list(facts.width.allowed), [size * cell] * 2),
                "H": ("height", list(facts.height.allowed), [size] * 2),
                "W": ("width", list(facts.width.allowed), [size] * 2),
            }[axis]
            if got != expected:
                fail(f"model.{what}", f"got {got}, graph {role} is fixed, expected {expected}")


def fixed_axes(graph: Graph, name: str, axes: str) -> dict[str, int]:
    """The sizes of an input that are numbers, by the letters of ``axes``; ``_`` skips one."""
    dims = next((tensor.dims for tensor in graph.inputs if tensor.name == name), ())
    pairs = zip(axes, dims, strict=False)  # a wrong rank is refused when the graph is opened
    return {axis: size for axis, size in pairs if axis != "_" and isinstance(size, int)}
