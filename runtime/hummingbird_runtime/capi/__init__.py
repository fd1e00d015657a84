"""ONNX Runtime through its C interface, by ctypes: the library that a phone app carries.

``CapiBackend`` stands in for the onnxruntime package wherever a backend is taken. The package is
never imported; on a desktop only its library file is opened. Names are loaded on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hummingbird_runtime.capi.backend import CapiBackend
    from hummingbird_runtime.capi.library import find_library

__all__ = ["CapiBackend", "find_library"]

_MODULES = {"CapiBackend": "backend", "find_library": "library"}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_MODULES[name]}", __name__), name)
