"""An OrtSession and the options of one run, as objects that free what they own.

ctypes lets other threads run during a call, so a cancel reaches a graph at its next node.
"""

from __future__ import annotations

import ctypes
import functools
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hummingbird_runtime.capi.api import SILENT, Api
from hummingbird_runtime.capi.options import NativeOptions
from hummingbird_runtime.capi.values import OwnedValue, array_from, signature, value_from

Array = NDArray[Any]


class RunOptions:
    """The options of one run, freed when nobody can set ``terminate`` any more.

    No lock: a cancel may come from a signal handler inside the thread that would hold it.
    """

    def __init__(self, api: Api) -> None:
        self._api, self.handle = api, api.create("CreateRunOptions")
        api.call("RunOptionsSetRunLogSeverityLevel", self.handle, SILENT)

    def terminate(self) -> None:
        """Stop the run at its next node."""
        self._api.call("RunOptionsSetTerminate", self.handle)

    def __del__(self) -> None:
        self._api.release("RunOptions", getattr(self, "handle", 0))


class NativeSession:
    """An OrtSession, freed with the last reference to it.

    Args:
        api: the library.
        path: graph file.
        options: as ONNX Runtime takes them.
    """

    def __init__(self, api: Api, path: Path, options: NativeOptions) -> None:
        self.api = api
        self.new_run_options = functools.partial(RunOptions, api)
        self._kept = options.kept  # weights that were handed in; ONNX Runtime points into them
        file = os.fspath(path) if sys.platform == "win32" else os.fsencode(path)
        self._handle = api.create("CreateSession", api.environment, file, options.handle)
        self.inputs = signature(api, self._handle, "Input")
        self.outputs = signature(api, self._handle, "Output")
        names = [tensor.name.encode() for tensor in self.outputs]
        self._output_names = (ctypes.c_char_p * len(names))(*names)

    def run(self, names: None, feeds: Mapping[str, Array], options: RunOptions) -> list[Array]:
        """Every output in order.

        Args:
            names: None, every output.
            feeds: arrays that fit the inputs.
            options: of this run alone.
        """
        arrays = [np.ascontiguousarray(a).reshape(a.shape) for a in feeds.values()]  # kept alive
        count, results = len(arrays), (ctypes.c_void_p * len(self.outputs))()
        keys = (ctypes.c_char_p * count)(*(name.encode() for name in feeds))
        values = (ctypes.c_void_p * count)()
        try:
            for index, array in enumerate(arrays):
                values[index] = value_from(self.api, array)
            self.api.call(
                "Run", self._handle, options.handle, keys, values, count,
                self._output_names, len(results), results,
            )  # fmt: skip
        finally:
            for value in values:
                self.api.release("Value", value or 0)
        return [array_from(owned) for owned in [OwnedValue(self.api, v or 0) for v in results]]

    def __del__(self) -> None:
        self.api.release("Session", getattr(self, "_handle", 0))
