"""How a graph is opened: execution providers, threads, extra settings. Needs no ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from hummingbird_runtime.errors import UsageError
from hummingbird_runtime.session_settings import SessionSettings

CPU = "CPUExecutionProvider"
MAX_THREADS = 1024


@dataclass(frozen=True)
class SessionOptions:
    """How a graph is opened."""

    providers: tuple[str, ...] = (CPU,)
    """Execution providers in order of preference; without the CPU one, no node may fall to it."""
    why: str = ""
    """The reason for these providers, where ``auto`` chose them."""
    provider_options: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Options by provider name."""
    threads: int | None = None
    """Threads of one run; None takes what ONNX Runtime finds."""
    config: Mapping[str, str] = field(default_factory=dict)
    """Extra ONNX Runtime session configuration entries."""
    settings: SessionSettings = field(default_factory=SessionSettings)
    """Memory and optimization. A caller sets what must win over the bundle; a session backend
    gets the two merged. An entry of ``config`` wins over both."""
    initializers: Mapping[str, Any] = field(default_factory=dict)
    """Arrays in place of the graph's own weights of that name, which are external data there."""

    def __post_init__(self) -> None:
        if not self.providers:
            raise UsageError(
                "provider.none", "got no execution provider, expected one", hint=f"use {CPU}"
            )
        if self.threads is not None and not 1 <= self.threads <= MAX_THREADS:
            raise UsageError(
                "session.threads",
                f"got threads {self.threads}, expected 1 to {MAX_THREADS}",
                hint="leave it out to use every core",
            )

    def for_graph(
        self, settings: SessionSettings, initializers: Mapping[str, Any] | None = None
    ) -> SessionOptions:
        """These options for one graph.

        Args:
            settings: its own; they fill what the caller left open.
            initializers: arrays in place of weights of it.
        """
        merged = self.settings.over(settings)
        return replace(self, settings=merged, initializers=initializers or {})
