"""Graphs opened and run through the C interface, with the face of ``OnnxRuntimeBackend``."""

from __future__ import annotations

import os
from pathlib import Path

from hummingbird_runtime.capi.api import open_api
from hummingbird_runtime.capi.graph_session import GraphSession
from hummingbird_runtime.capi.library import find_library
from hummingbird_runtime.capi.native import NativeSession
from hummingbird_runtime.capi.options import NativeOptions, check_providers, left_out
from hummingbird_runtime.capi.status import NativeError
from hummingbird_runtime.session_errors import load_error
from hummingbird_runtime.session_options import SessionOptions


class CapiBackend:
    """Graphs run by ONNX Runtime's shared library.

    Args:
        library: its path; None looks in the app (Android) or in the installed package.

    Raises:
        ResourceError: ``capi.no_library``, ``capi.bad_library``, ``capi.old_library``.
    """

    def __init__(self, library: str | os.PathLike[str] | None = None) -> None:
        self._api = open_api(find_library(library))

    @property
    def version(self) -> str:
        """Version of the library, such as ``1.32.0``."""
        return self._api.version

    def available_providers(self) -> list[str]:
        """Execution providers of the library."""
        return list(self._api.providers())

    def open(self, path: Path, options: SessionOptions) -> GraphSession:
        """Open one graph file of a verified bundle.

        Raises:
            HummingbirdError: as ``session.OnnxRuntimeBackend.open``.
        """
        path = path.absolute()
        name = f"{path.parent.name}/{path.name}"
        check_providers(options.providers, self._api.providers())
        try:
            native = NativeSession(self._api, path, NativeOptions(self._api, options))
        except NativeError as error:
            raise load_error(error, name, options.providers) from error
        return GraphSession(native, name, left_out(options))
