"""What ONNX Runtime's execution providers take: read from data/providers.toml, which names sources.

The lists are static, so that a graph can be judged without the provider or its hardware. A device
and its driver may take less; a newer release may take more.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any

from hummingbird_runtime.errors import UsageError

REMOVED = frozenset({"ai.onnx:Constant", "ai.onnx:Identity"})
"""Gone before ONNX Runtime gives nodes to providers."""


@dataclass(frozen=True)
class Provider:
    """One execution provider; operators are ``domain:Name``."""

    name: str
    """Short name: CPU, WebGPU, QNN-HTP."""
    provider: str
    """ONNX Runtime's name."""
    version: str
    """Release that the lists are of."""
    source: str
    """Documents and source files that the lists are taken from."""
    operators: frozenset[str]
    fixed_sizes: bool = False
    """Takes graphs of fixed sizes only."""
    largest_rank: int | None = None
    """Most dimensions of a tensor."""
    largest_dim: int | None = None
    """Largest size of one dimension."""
    most_left_out: int | None = None
    """With more nodes than this left out, it takes none at all."""
    quantized_first: bool = False
    """Made for quantized products."""
    ranks: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Operator -> ranks that its first input may have."""
    constants: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Operator -> positions of inputs that must be known when the graph is opened."""
    modes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Operator -> attributes and the value that they must have."""
    remarks: Mapping[str, str] = field(default_factory=dict)
    """Operator -> what to know about it."""


@cache
def providers() -> tuple[Provider, ...]:
    """Every provider, in the order of the file."""
    text = files("hummingbird_export").joinpath("data", "providers.toml").read_text("utf-8")
    return tuple(_provider(name, table) for name, table in tomllib.loads(text).items())


def find_provider(name: str) -> Provider:
    """A provider by its short name or ONNX Runtime's, in any case.

    Raises:
        UsageError: ``export.provider``, naming the nearest.
    """
    folded = name.casefold()
    for provider in providers():
        if folded in (provider.name.casefold(), provider.provider.casefold()):
            return provider
    names = [provider.name for provider in providers()]
    near = difflib.get_close_matches(folded, [n.casefold() for n in names], n=1, cutoff=0.0)
    meant = next(n for n in names if n.casefold() == near[0])
    raise UsageError(
        "export.provider",
        f"provider, got {name[:60]!r}, expected one of {', '.join(names)}",
        hint=f"did you mean {meant}?",
    )


def full_name(operator: str) -> str:
    """``Conv`` -> ``ai.onnx:Conv``, ``m:Gelu`` -> ``com.microsoft:Gelu``."""
    domain, _, name = operator.rpartition(":")
    return f"{'com.microsoft' if domain else 'ai.onnx'}:{name}"


def _provider(name: str, table: dict[str, Any]) -> Provider:
    operators = frozenset(map(full_name, table.pop("operators").split()))
    by_operator: dict[str, Any] = {
        key: {full_name(op): value for op, value in table.pop(key, {}).items()}
        for key in ("ranks", "constants", "modes", "remarks")
    }
    for key in ("ranks", "constants"):
        by_operator[key] = {op: tuple(numbers) for op, numbers in by_operator[key].items()}
    return Provider(name=name, operators=operators | REMOVED, **by_operator, **table)
