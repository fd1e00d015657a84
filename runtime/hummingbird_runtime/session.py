"""One opened graph, and the only place that talks to ONNX Runtime.

The pipeline sees two narrow protocols, so another binding of ONNX Runtime, or a plain function in
a test, can stand in. Paths given here must come from a verified bundle: nothing is checked twice.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hummingbird_runtime.cancel import CancelToken
from hummingbird_runtime.errors import ResourceError, UsageError
from hummingbird_runtime.manifest import Tensor
from hummingbird_runtime.native_options import native_options
from hummingbird_runtime.session_errors import load_error, run_error
from hummingbird_runtime.session_options import CPU, SessionOptions
from hummingbird_runtime.signature import check_feeds, declared_tensor

__all__ = [
    "CPU",
    "OnnxRuntimeBackend",
    "Session",
    "SessionBackend",
    "SessionOptions",
    "available_providers",
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


def available_providers() -> list[str]:
    """Execution providers of the installed onnxruntime package."""
    import onnxruntime as ort

    return list(ort.get_available_providers())


class OnnxRuntimeBackend:
    """Graphs run by the onnxruntime package."""

    def open(self, path: Path, options: SessionOptions) -> Session:
        """Open one graph file of a verified bundle.

        Raises:
            InputError: ``bundle.unsupported_opset``, ``bundle.graph_unreadable``.
            IntegrityError: ``bundle.op_not_allowed``, ``bundle.unsafe_path``.
            ResourceError: ``provider.unavailable``, ``provider.unsupported_nodes``,
                ``resource.memory``.
            ExecutionError: ``runtime.load_failed`` for anything else.
        """
        import onnxruntime as ort  # half a second that --help need not pay

        path = path.absolute()
        by_name = options.provider_options
        name = f"{path.parent.name}/{path.name}"
        _check_providers(options.providers, available_providers())
        try:
            native_settings, kept = native_options(ort, options)
            native = ort.InferenceSession(
                os.fspath(path),
                native_settings,
                providers=list(options.providers),
                provider_options=[dict(by_name.get(p, {})) for p in options.providers],
                disabled_optimizers=list(options.settings.disabled_optimizers),
                enable_fallback=False,
            )
        except Exception as error:
            raise load_error(error, name) from error
        _check_providers(options.providers, native.get_providers())
        native.disable_fallback()
        return OnnxRuntimeSession(native, ort.RunOptions, name, kept)


class OnnxRuntimeSession:
    """A graph held by ONNX Runtime."""

    def __init__(self, native: Any, new_run_options: Any, name: str, kept: object) -> None:
        self._native = native
        self._kept = kept  # weights that were handed in; ONNX Runtime only points at them
        self._new_run_options = new_run_options
        self._name = name
        self._idle = threading.Condition()
        self._running = 0
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


def _check_providers(asked: Sequence[str], available: Sequence[str]) -> None:
    for provider in asked:
        if provider not in available:
            raise ResourceError(
                "provider.unavailable",
                f"got execution provider {provider!r}, available: {', '.join(available)}",
                hint="choose one of these or install the matching onnxruntime package",
            )
