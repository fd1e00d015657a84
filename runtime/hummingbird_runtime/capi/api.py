"""The function table OrtApi: an array of pointers that only ever grows at its end.

Positions are those of ``onnxruntime_c_api.h``; what is here has kept its place since API version
12. A function that fails gives a status, which becomes an exception named like the package's own.
"""

from __future__ import annotations

import ctypes
import functools
import sys
from ctypes import POINTER, c_char_p, c_int, c_int64, c_size_t, c_uint32, c_void_p, c_wchar_p
from typing import Any

from hummingbird_runtime.capi.library import load_library
from hummingbird_runtime.capi.status import error_of
from hummingbird_runtime.errors import ResourceError

API_VERSION = 14
"""Asked for, and the oldest taken: ONNX Runtime 1.14 was the first to know opset 18."""

SILENT = 4

Handle = int
_OUT = POINTER(c_void_p)
_PATH = c_wchar_p if sys.platform == "win32" else c_char_p

_SHAPE = (c_size_t, POINTER(c_int64), c_size_t)  # bytes of data, sizes, rank
_PAIRS = (c_void_p, c_void_p, c_size_t)  # keys, values, how many

# name -> (place in the table, arguments); every one of them gives a status
_CALLS: dict[str, tuple[int, tuple[Any, ...]]] = {
    "CreateEnv": (3, (c_int, c_char_p, _OUT)),
    "CreateSession": (7, (c_void_p, _PATH, c_void_p, _OUT)),
    "Run": (9, (c_void_p, c_void_p, c_void_p, _OUT, c_size_t, c_void_p, c_size_t, _OUT)),
    "CreateSessionOptions": (10, (_OUT,)),
    "EnableMemPattern": (16, (c_void_p,)),
    "DisableMemPattern": (17, (c_void_p,)),
    "EnableCpuMemArena": (18, (c_void_p,)),
    "DisableCpuMemArena": (19, (c_void_p,)),
    "SetSessionLogSeverityLevel": (22, (c_void_p, c_int)),
    "SetSessionGraphOptimizationLevel": (23, (c_void_p, c_int)),
    "SetIntraOpNumThreads": (24, (c_void_p, c_int)),
    "SessionGetInputCount": (30, (c_void_p, POINTER(c_size_t))),
    "SessionGetOutputCount": (31, (c_void_p, POINTER(c_size_t))),
    "SessionGetInputTypeInfo": (33, (c_void_p, c_size_t, _OUT)),
    "SessionGetOutputTypeInfo": (34, (c_void_p, c_size_t, _OUT)),
    "SessionGetInputName": (36, (c_void_p, c_size_t, c_void_p, _OUT)),
    "SessionGetOutputName": (37, (c_void_p, c_size_t, c_void_p, _OUT)),
    "CreateRunOptions": (39, (_OUT,)),
    "RunOptionsSetRunLogSeverityLevel": (41, (c_void_p, c_int)),
    "RunOptionsSetTerminate": (46, (c_void_p,)),
    "CreateTensorWithDataAsOrtValue": (49, (c_void_p, c_void_p, *_SHAPE, c_int, _OUT)),
    "GetTensorMutableData": (51, (c_void_p, _OUT)),
    "CastTypeInfoToTensorInfo": (55, (c_void_p, _OUT)),
    "GetTensorElementType": (60, (c_void_p, POINTER(c_int))),
    "GetDimensionsCount": (61, (c_void_p, POINTER(c_size_t))),
    "GetDimensions": (62, (c_void_p, POINTER(c_int64), c_size_t)),
    "GetSymbolicDimensions": (63, (c_void_p, POINTER(c_char_p), c_size_t)),
    "GetTensorTypeAndShape": (65, (c_void_p, _OUT)),
    "CreateCpuMemoryInfo": (69, (c_int, c_int, _OUT)),
    "AllocatorFree": (76, (c_void_p, c_void_p)),
    "GetAllocatorWithDefaultOptions": (78, (_OUT,)),
    "GetAvailableProviders": (125, (POINTER(POINTER(c_char_p)), POINTER(c_int))),
    "ReleaseAvailableProviders": (126, (POINTER(c_char_p), c_int)),
    "AddSessionConfigEntry": (130, (c_void_p, c_char_p, c_char_p)),
    "AddExternalInitializers": (210, (c_void_p, c_void_p, _OUT, c_size_t)),
    "SessionOptionsAppendExecutionProvider": (216, (c_void_p, c_char_p, *_PAIRS)),
}
_RELEASES = {
    "Status": 93,
    "Session": 95,
    "Value": 96,
    "RunOptions": 97,
    "TypeInfo": 98,
    "TensorTypeAndShapeInfo": 99,
    "SessionOptions": 100,
}
_GET_ERROR_CODE, _GET_ERROR_MESSAGE = 1, 2


class _Base(ctypes.Structure):
    _fields_ = (
        ("get_api", ctypes.CFUNCTYPE(c_void_p, c_uint32)),
        ("get_version", ctypes.CFUNCTYPE(c_char_p)),
    )


class Api:
    """The functions of one loaded library and its environment, which lives with the process.

    Args:
        base: address of ``OrtApiBase``.
        library: kept loaded.

    Raises:
        ResourceError: ``capi.old_library``.
    """

    def __init__(self, base: int, library: object) -> None:
        self.library = library
        entry = _Base.from_address(base)
        self.version = (entry.get_version() or b"?").decode("ascii", "replace")
        # asking a library for more than it has would make it print
        table = entry.get_api(API_VERSION) if _release(self.version) >= (1, API_VERSION) else None
        if not table:
            raise ResourceError(
                "capi.old_library",
                f"ONNX Runtime's library, got version {self.version}, "
                f"expected 1.{API_VERSION} or newer",
                hint="update onnxruntime, or the onnxruntime-android AAR of the app",
            )
        places = ctypes.cast(table, POINTER(c_void_p))
        self._calls = {
            name: ctypes.CFUNCTYPE(c_void_p, *arguments)(places[place])
            for name, (place, arguments) in _CALLS.items()
        }
        self._releases = {
            name: ctypes.CFUNCTYPE(None, c_void_p)(places[place])
            for name, place in _RELEASES.items()
        }
        self._error_code = ctypes.CFUNCTYPE(c_int, c_void_p)(places[_GET_ERROR_CODE])
        self._error_message = ctypes.CFUNCTYPE(c_char_p, c_void_p)(places[_GET_ERROR_MESSAGE])
        self.environment = self.create("CreateEnv", SILENT, b"hummingbird")
        self.allocator = self.create("GetAllocatorWithDefaultOptions")
        device_allocator, default_memory = 0, 0
        self.cpu_memory = self.create("CreateCpuMemoryInfo", device_allocator, default_memory)

    def call(self, name: str, *arguments: Any) -> None:
        """Call a function of the table.

        Raises:
            NativeError: with ONNX Runtime's own text.
        """
        self.check(self._calls[name](*arguments))

    def create(self, name: str, *arguments: Any) -> Handle:
        """Call a function whose last argument receives a pointer; 0 for a null pointer."""
        out = c_void_p()
        self.call(name, *arguments, ctypes.byref(out))
        return out.value or 0

    def number(self, name: str, handle: Handle, kind: Any = c_size_t) -> int:
        """Call a function that writes one number."""
        out = kind()
        self.call(name, handle, ctypes.byref(out))
        return int(out.value)

    def check(self, status: Handle | None) -> None:
        """Raise what a status says, and release it."""
        if not status:
            return
        code = self._error_code(status)
        text = (self._error_message(status) or b"").decode("utf-8", "replace")
        self.release("Status", status)
        raise error_of(code, text)

    def release(self, kind: str, handle: Handle) -> None:
        """Free an object of the library."""
        if handle:
            self._releases[kind](handle)

    def providers(self) -> tuple[str, ...]:
        """Execution providers compiled into the library."""
        names, count = POINTER(c_char_p)(), c_int()
        self.call("GetAvailableProviders", ctypes.byref(names), ctypes.byref(count))
        found = tuple((names[i] or b"").decode() for i in range(count.value))
        self.call("ReleaseAvailableProviders", names, count)
        return found


@functools.lru_cache(maxsize=8)
def open_api(path: str) -> Api:
    """The table of the library at ``path``; one for each file and process.

    Raises:
        ResourceError: ``capi.bad_library``, ``capi.old_library``.
    """
    library = load_library(path)
    library.OrtGetApiBase.restype = c_void_p
    return Api(library.OrtGetApiBase(), library)


def _release(version: str) -> tuple[int, int]:
    parts = version.split(".")
    if len(parts) < 2 or not (parts[0].isdigit() and parts[1].isdigit()):
        return (0, 0)
    return (int(parts[0]), int(parts[1]))
