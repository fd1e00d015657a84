"""A status of ONNX Runtime as an exception named like the onnxruntime package's own.

``session_errors`` turns these into typed errors, whatever binding they came through.
"""

from __future__ import annotations

_CODES = (
    "OK", "FAIL", "INVALID_ARGUMENT", "NO_SUCHFILE", "NO_MODEL", "ENGINE_ERROR",
    "RUNTIME_EXCEPTION", "INVALID_PROTOBUF", "MODEL_LOADED", "NOT_IMPLEMENTED", "INVALID_GRAPH",
    "EP_FAIL",
)  # fmt: skip
_NAMES = (
    "Ok", "Fail", "InvalidArgument", "NoSuchFile", "NoModel", "EngineError", "RuntimeException",
    "InvalidProtobuf", "ModelLoaded", "NotImplemented", "InvalidGraph", "EPFail",
)  # fmt: skip


class NativeError(Exception):
    """A status of ONNX Runtime; its subclasses have the names of the package's exceptions."""


_ERRORS: tuple[type[NativeError], ...] = tuple(type(name, (NativeError,), {}) for name in _NAMES)


def error_of(code: int | str, text: str) -> NativeError:
    """The exception for a status.

    Args:
        code: OrtErrorCode, as a number or as ``INVALID_GRAPH``; newer ones are plain errors.
        text: ONNX Runtime's message.
    """
    number = _CODES.index(code) if code in _CODES else code
    known = isinstance(number, int) and 0 <= number < len(_ERRORS)
    return (_ERRORS[int(number)] if known else NativeError)(text)
