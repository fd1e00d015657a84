"""Inputs of a probe: noise by seed, constants, or an array that lies beside the probe."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hummingbird_runtime.guidance import guidance_embedding
from hummingbird_runtime.noise import uniforms
from hummingbird_runtime.normal import normal_quantile
from hummingbird_runtime.strict_json import fail

MAX_ELEMENTS = 1 << 26
Feeds = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class ProbeInput:
    """How one input is made; exactly one of the five ways is set."""

    shape: tuple[int, ...]
    normal: float | None = None
    """float32: standard normal noise times this."""
    guidance: float | None = None
    """float32 [1, W]: the embedding of this guidance scale."""
    constant: int | None = None
    """int64: the same number everywhere."""
    below: int | None = None
    """int64: uniform in 0..below-1."""
    stored: bool | None = None
    """float32: true where the array lies beside the probe."""

    def __post_init__(self) -> None:
        ways = (self.normal, self.guidance, self.constant, self.below, self.stored or None)
        if sum(way is not None for way in ways) != 1:
            fail("probe input", f"got {ways}, expected one of normal, guidance, constant, below, "
                 "stored")  # fmt: skip
        if min(self.shape, default=1) < 1 or math.prod(self.shape) > MAX_ELEMENTS:
            fail("probe input", f"got shape {list(self.shape)!r:.60}, expected sizes above 0")
        if self.below is not None and self.below < 1:
            fail("probe input", f"got below {self.below}, expected 1 or more")
        embeds = self.guidance is not None
        if embeds and (len(self.shape) != 2 or self.shape[0] != 1 or self.shape[1] % 2):
            fail("probe input", f"got guidance of shape {list(self.shape)}, expected [1, even]")


def probe_feeds(
    inputs: Mapping[str, ProbeInput],
    seed: int,
    arrays: Mapping[str, NDArray[np.float32]] = MappingProxyType({}),
) -> Feeds:
    """The arrays of a case; input number i in the order of names takes stream i of the seed.

    Args:
        inputs: by name.
        seed: 0..2^64-1.
        arrays: those that are stored, by name, in any shape of as many elements.
    """
    return {
        name: arrays[name].reshape(inputs[name].shape)
        if inputs[name].stored
        else _array(inputs[name], seed, i)
        for i, name in enumerate(sorted(inputs))
    }


def _array(spec: ProbeInput, seed: int, stream: int) -> NDArray[Any]:
    if spec.constant is not None:
        return np.full(spec.shape, spec.constant, np.int64)
    if spec.guidance is not None:
        return guidance_embedding(spec.guidance, spec.shape[1])
    u = uniforms(seed, stream, 0, math.prod(spec.shape))
    if spec.below is not None:
        return (u * spec.below).astype(np.int64).reshape(spec.shape)
    scaled = normal_quantile(u) * (spec.normal or 0.0)
    return scaled.astype(np.float32).reshape(spec.shape)
