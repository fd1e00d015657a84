"""The graphs of one bundle, opened by role, and how long they stay open.

Normally every graph is opened once and kept. With ``low_memory`` a graph lives only inside its
stage, so the text encoder, the U-Net and the decoder are never in memory together.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

from hummingbird_runtime.bundle import Bundle
from hummingbird_runtime.cancel import CancelToken
from hummingbird_runtime.errors import UsageError
from hummingbird_runtime.manifest import DECODERS, REQUIRED_ROLES
from hummingbird_runtime.open_graph import Graph
from hummingbird_runtime.placement import Placement
from hummingbird_runtime.session import CPU, Session, SessionBackend, SessionOptions
from hummingbird_runtime.session_settings import SessionSettings
from hummingbird_runtime.signature import check_signature
from hummingbird_runtime.system_memory import trim_heap

if TYPE_CHECKING:
    from hummingbird_runtime.adapters import Style


KEPT_TOGETHER = 2**29
"""Bytes of a bundle up to which all its graphs stay open. Opening larger ones takes seconds of a
run of minutes; keeping the text encoder open beside the U-Net would take gigabytes."""


class GraphPool:
    """Opens the graphs of a bundle and closes them again.

    Args:
        bundle: verified.
        backend: opens graph files.
        options: providers and threads.
        low_memory: open a graph when its stage starts and close it when the stage ends; None does
            so for bundles of more than ``KEPT_TOGETHER`` bytes.
        style: merged into its graph whenever that is opened.
    """

    def __init__(
        self,
        bundle: Bundle,
        backend: SessionBackend,
        options: SessionOptions,
        *,
        low_memory: bool | None = None,
        style: Style | None = None,
    ) -> None:
        self._bundle = bundle
        self._backend = backend
        self._options = options
        self._low_memory = _is_large(bundle) if low_memory is None else low_memory
        self.style = style
        self._open: dict[str, Session] = {}
        self._placements: dict[str, Placement] = {}
        self._lock = threading.Lock()
        self._closed = False

    @property
    def on_cpu(self) -> bool:
        """Whether the CPU is the first provider asked for."""
        return self._options.providers[0] == CPU

    @property
    def providers(self) -> tuple[str, ...]:
        """Execution providers, in order of preference."""
        return self._options.providers

    @property
    def why(self) -> str:
        """The reason for these providers, where ``auto`` chose them."""
        return self._options.why

    @property
    def placements(self) -> dict[str, Placement]:
        """Which provider took which nodes of the graphs opened so far; empty on the CPU alone."""
        return dict(self._placements)

    @property
    def kept(self) -> tuple[str, ...]:
        """Graphs that ``preload`` opens; with two decoders, which of them is a run's own choice."""
        if self._low_memory:
            return ()
        decoders = [role for role in DECODERS.values() if role in self._bundle.manifest.graphs]
        return (*REQUIRED_ROLES, *(decoders if len(decoders) == 1 else ()))

    def settings(self, role: str) -> SessionSettings:
        """How a graph is opened; with low memory no pattern doubles a second run's peak."""
        settings = self._bundle.graph(role).session
        if self._low_memory:
            settings = settings.over(SessionSettings(memory_pattern=False))
        return self._options.settings.over(settings)

    def preload(self) -> None:
        """Open the graphs that every run needs, unless they are to be opened stage by stage."""
        try:
            for role in self.kept:
                self._session(role)
        except BaseException:
            self.close()
            raise

    @contextlib.contextmanager
    def stage(self, role: str, cancel: CancelToken) -> Iterator[Graph]:
        """One stage of a run: the graph is open inside the block."""
        session = self._session(role)
        try:
            yield Graph(role, session, cancel)
        finally:
            if self._low_memory:
                with self._lock:
                    self._open.pop(role, None)
                session.close()
                trim_heap()

    def close(self) -> None:
        """Wait for what is running inside a graph, then free them all; twice is fine."""
        with self._lock:
            self._closed = True
            sessions, self._open = list(self._open.values()), {}
        for session in sessions:
            session.close()

    def _session(self, role: str) -> Session:
        with self._lock:
            if self._closed:
                raise UsageError(
                    "runtime.closed", "the pipeline is closed already", hint="open a new one"
                )
            if role not in self._open:
                entry = self._bundle.graph(role)
                path = self._bundle.path(role)  # refuses files that changed
                style = self.style if self.style and self.style.role == role else None
                merged = style.merged() if style else {}
                options = self._options.for_graph(self.settings(role), merged)
                session = self._backend.open(path, options)
                try:
                    check_signature(session, entry, role)
                except BaseException:
                    session.close()
                    raise
                self._open[role] = session
                if where := getattr(session, "placement", None):
                    self._placements[role] = where
            return self._open[role]


def _is_large(bundle: Bundle) -> bool:
    return sum(entry.bytes for entry in bundle.manifest.files.values()) > KEPT_TOGETHER
