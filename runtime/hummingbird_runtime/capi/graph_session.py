"""The face of an opened graph over any native binding: checks, cancel, close. See ``session``."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from numpy.typing import NDArray

from hummingbird_runtime.cancel import CancelToken
from hummingbird_runtime.capi.status import NativeError
from hummingbird_runtime.errors import UsageError
from hummingbird_runtime.manifest import Tensor
from hummingbird_runtime.session_errors import run_error
from hummingbird_runtime.signature import check_feeds

Array = NDArray[Any]


class NativeRunOptions(Protocol):
    """Options of one run, alive as long as anybody may still stop it."""

    def terminate(self) -> None:
        """Stop the run at its next node; from any thread, also after the run."""


class NativeGraph(Protocol):
    """What a binding gives for an opened graph; it frees it with the last reference."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]

    @property
    def new_run_options(self) -> Callable[[], NativeRunOptions]:
        """Makes the options of one run; holds no reference to the graph."""

    def run(self, names: None, feeds: Mapping[str, Array], options: Any) -> list[Array]:
        """Every output in order, for feeds that fit; raises ``NativeError``."""


class GraphSession:
    """A graph held by a binding of ONNX Runtime. Runs may overlap; results never mix."""

    def __init__(self, native: NativeGraph, name: str, left_out: tuple[str, ...]) -> None:
        self._native: NativeGraph | None = native
        self._new_run_options = native.new_run_options
        self._name = name
        self._idle = threading.Condition()
        self._running = 0
        self.inputs, self.outputs = native.inputs, native.outputs
        self.left_out = left_out
        """Settings that were asked for and that the binding has no word for."""

    def run(
        self, feeds: Mapping[str, Array], *, cancel: CancelToken | None = None
    ) -> dict[str, Array]:
        """Run the graph.

        Args:
            feeds: one array per input, of the declared dtype and rank.
            cancel: stops the run within one node; the session stays usable.

        Raises:
            HummingbirdError: as ``session.OnnxRuntimeSession.run``.
        """
        check_feeds(self.inputs, feeds, self._name)
        token = cancel if cancel is not None else CancelToken()
        token.raise_if_cancelled()
        native = self._enter()
        try:
            run_options = self._new_run_options()  # a used one stays terminated
            with token.watch(run_options.terminate):
                values = native.run(None, feeds, run_options)
        except NativeError as error:
            token.raise_if_cancelled()
            raise run_error(error, self._name) from error
        finally:
            self._leave()
        token.raise_if_cancelled()  # one big node is not interrupted, its result is not wanted
        return {tensor.name: value for tensor, value in zip(self.outputs, values, strict=True)}

    def close(self) -> None:
        """Wait for running calls, then drop the graph; closing twice is fine."""
        with self._idle:
            self._idle.wait_for(lambda: self._running == 0)
            self._native = None

    def _enter(self) -> NativeGraph:
        with self._idle:
            if self._native is None:
                raise UsageError(
                    "runtime.closed", f"{self._name}: closed already", hint="open a new pipeline"
                )
            self._running += 1
            return self._native

    def _leave(self) -> None:
        with self._idle:
            self._running -= 1
            self._idle.notify_all()
