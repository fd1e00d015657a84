"""Hummingbird's runtime: a sentence in, a short clip out, with NumPy and ONNX Runtime only.

Names load on first use, so importing the package costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "Bundle": "bundle",
    "CancelToken": "cancel",
    "Cancelled": "errors",
    "ExecutionError": "errors",
    "HummingbirdError": "errors",
    "InputError": "errors",
    "IntegrityError": "errors",
    "ResourceError": "errors",
    "SchedulerConfig": "schedule",
    "SessionBackend": "session",
    "SessionOptions": "session",
    "SessionSettings": "session_settings",
    "TextToVideoPipeline": "pipeline",
    "TimeLimitError": "errors",
    "UsageError": "errors",
    "Video": "video",
    "builtin_bundle": "bundle",
}

__all__ = [
    "Bundle",
    "CancelToken",
    "Cancelled",
    "ExecutionError",
    "HummingbirdError",
    "InputError",
    "IntegrityError",
    "ResourceError",
    "SchedulerConfig",
    "SessionBackend",
    "SessionOptions",
    "SessionSettings",
    "TextToVideoPipeline",
    "TimeLimitError",
    "UsageError",
    "Video",
    "builtin_bundle",
]

if TYPE_CHECKING:
    from hummingbird_runtime.bundle import Bundle, builtin_bundle
    from hummingbird_runtime.cancel import CancelToken
    from hummingbird_runtime.errors import (
        Cancelled,
        ExecutionError,
        HummingbirdError,
        InputError,
        IntegrityError,
        ResourceError,
        TimeLimitError,
        UsageError,
    )
    from hummingbird_runtime.pipeline import TextToVideoPipeline
    from hummingbird_runtime.schedule import SchedulerConfig
    from hummingbird_runtime.session import SessionBackend, SessionOptions
    from hummingbird_runtime.session_settings import SessionSettings
    from hummingbird_runtime.video import Video


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{home}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
