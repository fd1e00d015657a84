"""Video files by suffix: a writer takes (path, video) and creates the file.

mp4 needs the extra ``video`` (PyAV); gif and webp need ``image`` (Pillow); png, y4m and npz need
nothing but NumPy. On Android mp4 is written by the system's own encoder.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from hummingbird_runtime.capi.library import on_android
from hummingbird_runtime.errors import ResourceError, UsageError

if TYPE_CHECKING:
    from hummingbird_runtime.video import Video

# suffix -> (module, the package it needs, the extra that brings it)
_WRITERS: dict[str, tuple[str, str | None, str]] = {
    ".mp4": ("mp4", "av", "video"),
    ".gif": ("gif", "PIL", "image"),
    ".webp": ("webp", "PIL", "image"),
    ".png": ("apng", None, ""),
    ".y4m": ("y4m", None, ""),
    ".npz": ("npz", None, ""),
}
SUFFIXES = tuple(_WRITERS)
# frames per second that every format above can say
FRAME_RATES = (0.01, 1000.0)


def find_writer(path: str | os.PathLike[str]) -> Callable[[Path, Video], None]:
    """The writer for a file name; call it before the work starts, to refuse early.

    Raises:
        UsageError: ``output.suffix`` for an unknown suffix.
        ResourceError: ``extra.missing`` when the package that writes it is not installed.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in _WRITERS:
        raise UsageError(
            "output.suffix",
            f"output {os.fspath(path)!r}, got suffix {suffix!r}, expected {', '.join(SUFFIXES)}",
            hint="name the file with one of these suffixes",
        )
    module, package, extra = _WRITERS[suffix]
    if suffix == ".mp4" and on_android():
        module, package, extra = "mediacodec", "jnius", "jni"
    if package is not None and importlib.util.find_spec(package) is None:
        raise ResourceError(
            "extra.missing",
            f"output {suffix}, got no package {package!r}, expected it to be installed",
            hint=f"pip install 'hummingbird-edge[{extra}]', or write .png, .y4m or .npz",
        )
    write: Callable[[Path, Video], None] = importlib.import_module(f".{module}", __name__).write
    return write
