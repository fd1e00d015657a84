"""One opened graph, and the only place that talks to ONNX Runtime.

The pipeline sees two narrow protocols, so another binding of ONNX Runtime, or a plain function in
a test, can stand in. Paths given here must come from a verified bundle: nothing is checked twice.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hummingbird_runtime import plugins
from hummingbird_runtime.auto_providers import Machine
from hummingbird_runtime.cancel import CancelToken
from hummingbird_runtime.errors import HummingbirdError, ResourceError, UsageError
from hummingbird_runtime.manifest import Tensor
from hummingbird_runtime.native_options import open_native
from hummingbird_runtime.placement import Placement, leftovers, placement, require_use
from hummingbird_runtime.session_errors import is_left_to_the_cpu, load_error, run_error
from hummingbird_runtime.session_options import CPU, SessionOptions
from hummingbird_runtime.signature import check_feeds, declared_tensor

__all__ = [
    "CPU",
    "OnnxRuntimeBackend",
    "Session",
    "SessionBackend",
    "SessionOptions",
    "machine",
]

Array = NDArray[Any]
Feeds = Mapping[str, Array]


class Session(Protocol):
    """One opened graph. Runs may overlap; results never mix."""

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """What ``run`` takes."""

    @property
    def outputs(self) -> tuple[Tensor, ...]:
        """What ``run`` gives."""

    def run(self, feeds: Feeds, *, cancel: CancelToken | None = None) -> dict[str, Array]:
        """Every output by name."""

    def close(self) -> None:
        """Wait for running calls, then free the graph's memory."""


class SessionBackend(Protocol):
    """Something that opens graphs."""

    def open(self, path: Path, options: SessionOptions) -> Session:
        """Open the graph file ``path``."""


def machine() -> Machine:
    """Execution providers of the installed packages, and what the plug-ins among them run on."""
    import onnxruntime as ort

    broken = {}
    for provider in filter(plugins.is_installed, plugins.PLUGINS):
        try:
            plugins.register(ort, provider)
        except ResourceError as error:
            broken[provider] = error.message
    return Machine(list(ort.get_available_providers()), plugins.devices(ort), broken)


class OnnxRuntimeBackend:
    """Graphs run by the onnxruntime package."""

    def open(self, path: Path, options: SessionOptions) -> OnnxRuntimeSession:
        """Open one graph file of a verified bundle.

        Raises:
            InputError: ``bundle.unsupported_opset``, ``bundle.graph_unreadable``.
            IntegrityError: ``bundle.op_not_allowed``, ``bundle.unsafe_path``.
            ResourceError: ``provider.*``, ``resource.memory``.
            UsageError: ``provider.device_type``.
            ExecutionError: ``runtime.load_failed`` for anything else.
        """
        import onnxruntime as ort  # half a second that --help need not pay

        path = path.absolute()
        name = f"{path.parent.name}/{path.name}"
        for provider in options.providers:
            plugins.register(ort, provider)
        plugins.require_listed(options.providers, ort.get_available_providers())
        try:
            native, kept = open_native(ort, path, options)
        except HummingbirdError:
            raise
        except Exception as error:
            if is_left_to_the_cpu(error):
                allowed = replace(options, providers=(*options.providers, CPU))
                where = placement(open_native(ort, path, allowed)[0])
                raise leftovers(where, options.providers, name) from error
            raise load_error(error, name, options.providers) from error
        plugins.require_listed(options.providers, native.get_providers())
        native.disable_fallback()
        where = {} if options.providers == (CPU,) else placement(native)
        require_use(where, options.providers, name)
        return OnnxRuntimeSession(native, ort.RunOptions, name, kept, where)


class OnnxRuntimeSession:
    """A graph held by ONNX Runtime."""

    def __init__(
        self, native: Any, new_run_options: Any, name: str, kept: object, where: Placement
    ) -> None:
        self._native = native
        self._kept = kept  # weights that were handed in; ONNX Runtime only points at them
        self._new_run_options = new_run_options
        self._name = name
        self._idle = threading.Condition()
        self._running = 0
        self.placement = where
        """Nodes by provider and operator; empty on the CPU alone."""
        self.inputs = tuple(declared_tensor(node) for node in native.get_inputs())
        self.outputs = tuple(declared_tensor(node) for node in native.get_outputs())

    def run(self, feeds: Feeds, *, cancel: CancelToken | None = None) -> dict[str, Array]:
        """Run the graph.

        Args:
            feeds: one array per input, of the declared dtype and rank.
            cancel: stops the run within one node; the session stays usable.

        Raises:
            Cancelled: ``runtime.cancelled``.
            InputError: ``runtime.input_mismatch`` when the feeds do not fit the signature.
            ExecutionError, ResourceError: ``runtime.run_failed``, ``resource.memory``.
        """
        check_feeds(self.inputs, feeds, self._name)
        token = cancel if cancel is not None else CancelToken()
        token.raise_if_cancelled()
        native = self._enter()
        # A used RunOptions stays terminated, and ORT has no code for a cancel: the token decides.
        run_options = self._new_run_options()
        run_options.log_severity_level = 4
        try:
            with token.watch(lambda: setattr(run_options, "terminate", True)):
                values = native.run(None, dict(feeds), run_options)
        except Exception as error:
            token.raise_if_cancelled()
            raise run_error(error, self._name) from error
        finally:
            self._leave()
        token.raise_if_cancelled()  # one big node is not interrupted, its result is not wanted
        return {tensor.name: np.asarray(v) for tensor, v in zip(self.outputs, values, strict=True)}

    def close(self) -> None:
        """Wait for running calls, then drop the graph; closing twice is fine."""
        with self._idle:
            self._idle.wait_for(lambda: self._running == 0)
            self._native = self._kept = None

    def _enter(self) -> Any:
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
