"""How the runtime opens a graph, as the bundle asks for it: memory, optimization, prepacking.

The exporter measured these on the target; ONNX Runtime's own defaults can cost several times the
memory. None is ONNX Runtime's default. The caller's own values win over the bundle's.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal, Self

from hummingbird_runtime.strict_json import fail

OPTIMIZERS = ("ConstantFolding",)
"""Optimizers of ONNX Runtime that a bundle may switch off."""


@dataclass(frozen=True)
class SessionSettings:
    """Settings of one graph; all at their defaults change nothing."""

    memory_reuse: bool | None = None
    """Plan buffers to be used again by later nodes; off, each is freed after its last use."""
    memory_pattern: bool | None = None
    """Allocate in one block what an earlier run of the same sizes needed."""
    cpu_arena: bool | None = None
    """Keep freed memory in an arena; off, it goes back to the system."""
    optimization: Literal["disabled", "basic", "extended", "layout", "all"] | None = None
    """How far the graph is rewritten when it is opened."""
    prepacking: bool | None = None
    """Keep a second copy of the weights in the layout of the kernels."""
    disabled_optimizers: tuple[str, ...] = ()
    """Names out of ``OPTIMIZERS``."""

    def __post_init__(self) -> None:
        unknown = sorted(set(self.disabled_optimizers) - set(OPTIMIZERS))
        if unknown or len(set(self.disabled_optimizers)) != len(self.disabled_optimizers):
            fail(
                "session.disabled_optimizers",
                f"got {', '.join(self.disabled_optimizers)!r:.80}, "
                f"expected each at most once and out of {', '.join(OPTIMIZERS)}",
            )

    def over(self, base: Self) -> Self:
        """These settings, and where they leave the default those of ``base``."""
        chosen = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if getattr(self, field.name) not in (None, ())
        }
        return dataclasses.replace(base, **chosen)
