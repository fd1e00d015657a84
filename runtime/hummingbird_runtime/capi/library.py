"""Where ONNX Runtime's library lies: as given, in the app (Android), or in the installed wheel."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import sys
from pathlib import Path

from hummingbird_runtime.errors import ResourceError

ANDROID_NAME = "libonnxruntime.so"
"""Found by the system's linker among the native libraries of the app, wherever it unpacked them."""

_WHEEL_NAMES = (
    "libonnxruntime.so.*",
    "libonnxruntime.so",
    "libonnxruntime*.dylib",
    "onnxruntime.dll",
)


def on_android() -> bool:
    """Whether this Python runs inside an Android app."""
    return sys.platform == "android" or hasattr(sys, "getandroidapilevel")


def find_library(given: str | os.PathLike[str] | None = None) -> str:
    """The file to open, or on Android its bare name.

    Args:
        given: a path; None looks where this platform keeps it.

    Raises:
        ResourceError: ``capi.no_library``.
    """
    if given is not None:
        path = Path(given)
        if not path.is_file():
            raise _missing(f"no file {os.fspath(given)!r}")
        return os.fspath(path.absolute())
    if on_android():
        return ANDROID_NAME
    package = importlib.util.find_spec("onnxruntime")  # located, not imported
    for folder in (package.submodule_search_locations or ()) if package else ():
        for pattern in _WHEEL_NAMES:
            found = sorted((Path(folder) / "capi").glob(pattern))
            if found:
                return os.fspath(found[-1])
    raise _missing("no installed onnxruntime package with a library")


def load_library(path: str) -> ctypes.CDLL:
    """Open a shared library that has ONNX Runtime's entry point.

    Raises:
        ResourceError: ``capi.bad_library`` when it cannot be loaded or is another library.
    """
    try:
        library = ctypes.CDLL(path)
    except OSError as error:
        text = " ".join(str(error).split())[:200]
        raise _bad(path, f"the system's linker said: {text}") from error
    if not hasattr(library, "OrtGetApiBase"):
        raise _bad(path, "it has no OrtGetApiBase")
    return library


def _missing(got: str) -> ResourceError:
    return ResourceError(
        "capi.no_library",
        f"ONNX Runtime's library, got {got}, expected a shared library",
        hint="pip install onnxruntime, or give the path of libonnxruntime",
    )


def _bad(path: str, why: str) -> ResourceError:
    return ResourceError(
        "capi.bad_library",
        f"ONNX Runtime's library {Path(path).name!r}, expected one for this processor: {why}",
        hint="install onnxruntime again, or put the library of the onnxruntime-android AAR there",
    )
