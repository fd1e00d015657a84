"""``SessionOptions`` in the terms of the C interface. See ``native_options`` for the package's."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hummingbird_runtime.capi.api import SILENT, Api, Handle
from hummingbird_runtime.capi.values import value_from
from hummingbird_runtime.errors import ResourceError
from hummingbird_runtime.session_options import CPU, SessionOptions

NNAPI = "NnapiExecutionProvider"
NNAPI_FLAGS = {"use_fp16": 1, "use_nchw": 2, "cpu_disabled": 4, "cpu_only": 8}
"""Options of NNAPI, each ``1`` or ``0``: it takes bits where others take text."""

_LEVELS = {"disabled": 0, "basic": 1, "extended": 2, "layout": 3, "all": 99}
_SHORT_NAMES = {
    "XnnpackExecutionProvider": "XNNPACK", "QNNExecutionProvider": "QNN",
    "WebGpuExecutionProvider": "WebGPU", "OpenVINOExecutionProvider": "OpenVINO",
    "CoreMLExecutionProvider": "CoreML", "VitisAIExecutionProvider": "VitisAI",
    "AzureExecutionProvider": "AZURE",
}  # fmt: skip


class NativeOptions:
    """An OrtSessionOptions, and what must live as long as a session opened with it.

    Args:
        api: the library.
        options: what is left at its default there is left at ONNX Runtime's default.

    Raises:
        ResourceError: ``provider.unavailable``.
        NativeError: an option that ONNX Runtime refuses.
    """

    def __init__(self, api: Api, options: SessionOptions) -> None:
        self._api = api
        self.handle = api.create("CreateSessionOptions")
        self.kept = _Initializers(api, options.initializers)
        _switches(api, self.handle, options)
        for key, value in config_entries(options).items():
            api.call("AddSessionConfigEntry", self.handle, key.encode(), value.encode())
        self.kept.add_to(self.handle)
        for name in _before_cpu(options.providers):
            _append(api, self.handle, name, options.provider_options.get(name, {}))

    def __del__(self) -> None:
        self._api.release("SessionOptions", getattr(self, "handle", 0))


def left_out(options: SessionOptions) -> tuple[str, ...]:
    """Settings that the C interface cannot say. They change memory, never results."""
    return () if options.settings.memory_reuse in (None, True) else ("memory_reuse",)


def check_providers(asked: Sequence[str], available: Sequence[str]) -> None:
    """Refuse providers that the library was built without, or that are not reached by name.

    Raises:
        ResourceError: ``provider.unavailable``.
    """
    reached = [name for name in available if name in (CPU, NNAPI, *_SHORT_NAMES)]
    for name in asked:
        if name not in reached:
            raise ResourceError(
                "provider.unavailable",
                f"got execution provider {name!r}, this library has {', '.join(reached)}",
                hint="choose one of these or give another ONNX Runtime library",
            )


class _Initializers:
    """Arrays in place of external weights; ONNX Runtime points into them."""

    def __init__(self, api: Api, given: Mapping[str, Any]) -> None:
        self._api = api
        self._names = [name.encode() for name in given]
        self._arrays = [np.ascontiguousarray(array) for array in given.values()]
        self._values: list[Handle] = []
        for array in self._arrays:
            self._values.append(value_from(api, array))

    def add_to(self, handle: Handle) -> None:
        if count := len(self._values):
            names = (ctypes.c_char_p * count)(*self._names)
            values = (ctypes.c_void_p * count)(*self._values)
            self._api.call("AddExternalInitializers", handle, names, values, count)

    def __del__(self) -> None:
        for value in getattr(self, "_values", ()):
            self._api.release("Value", value)


def _switches(api: Api, handle: Handle, options: SessionOptions) -> None:
    settings = options.settings
    api.call("SetSessionLogSeverityLevel", handle, SILENT)
    if options.threads is not None:
        api.call("SetIntraOpNumThreads", handle, options.threads)
    if settings.memory_pattern is not None:
        api.call(f"{_verb(settings.memory_pattern)}MemPattern", handle)
    if settings.cpu_arena is not None:
        api.call(f"{_verb(settings.cpu_arena)}CpuMemArena", handle)
    if settings.optimization is not None:
        api.call("SetSessionGraphOptimizationLevel", handle, _LEVELS[settings.optimization])


def _verb(on: bool) -> str:
    return "Enable" if on else "Disable"


def config_entries(options: SessionOptions) -> dict[str, str]:
    """Session configuration entries, the caller's own last."""
    settings, entries = options.settings, {}
    if settings.prepacking is not None:
        entries["session.disable_prepacking"] = "0" if settings.prepacking else "1"
    if settings.disabled_optimizers:
        names = ";".join(settings.disabled_optimizers)
        entries["optimization.disable_specified_optimizers"] = names
    if CPU not in options.providers:
        entries["session.disable_cpu_ep_fallback"] = "1"
    return {**entries, **options.config}


def _before_cpu(providers: Sequence[str]) -> Sequence[str]:
    """The CPU is always there and takes every node: what is named after it would get none."""
    return providers[: providers.index(CPU)] if CPU in providers else providers


def _append(api: Api, handle: Handle, name: str, options: Mapping[str, str]) -> None:
    if name == NNAPI:
        append = api.library.OrtSessionOptionsAppendExecutionProvider_Nnapi  # type: ignore[attr-defined]
        append.argtypes, append.restype = (ctypes.c_void_p, ctypes.c_uint32), ctypes.c_void_p
        api.check(append(handle, _nnapi_bits(options)))
        return
    keys = (ctypes.c_char_p * len(options))(*(key.encode() for key in options))
    values = (ctypes.c_char_p * len(options))(*(os.fsencode(v) for v in options.values()))
    api.call(
        "SessionOptionsAppendExecutionProvider",
        handle,
        _SHORT_NAMES[name].encode(),
        keys,
        values,
        len(options),
    )


def _nnapi_bits(options: Mapping[str, str]) -> int:
    unknown = sorted(options.keys() - NNAPI_FLAGS.keys())
    if unknown:
        raise ResourceError(
            "provider.unavailable",
            f"{NNAPI}, got options {', '.join(unknown)}, expected {', '.join(NNAPI_FLAGS)}",
            hint="give these with 1 or 0",
        )
    return sum(bit for key, bit in NNAPI_FLAGS.items() if options.get(key) == "1")
