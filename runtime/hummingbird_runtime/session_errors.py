"""ONNX Runtime's exceptions as typed one-line errors, without C++ paths and signatures.

ORT tells failures apart by text only; the patterns are those of releases 1.27 to 1.32.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from hummingbird_runtime.errors import (
    ExecutionError,
    HummingbirdError,
    InputError,
    IntegrityError,
    ResourceError,
)
from hummingbird_runtime.session_options import CPU

_PREFIX = re.compile(r"\[ONNXRuntimeError\] : \d+ : \w+ : ")
# a C++ source position and, behind it, the signature of the function it is in
_SOURCE = re.compile(
    r"(?<!\S)\S*\.(?:cc|h|cpp):\d+ "
    r"(?:[\w:<>*&~ ]{0,200}::[\w~]+\((?:[^()]|\([^()]*\))*\)(?: const)? )?"
)
_LOAD = re.compile(r"^Load model from .*? failed:")
_MEMORY = re.compile(
    r"bad_alloc|bfc_arena|[Ff]ailed to allocate memory|Out of memory|Cannot allocate memory"
    r"|pthread_create failed"  # no room for a thread's stack
)
_IR_VERSION = re.compile(r"Unsupported model IR version: (\d+), max supported IR version: (\d+)")
_OPSET = re.compile(r"Opset (\d+) is under development")
_OPSET_LIMIT = re.compile(r"support for domain \S+ is till opset (\d+)")
_UNKNOWN_OP = re.compile(
    r"(\S+)\(-?\d+\) is not a registered function/op|No Op registered for (\w+)"
)


def is_left_to_the_cpu(error: Exception) -> bool:
    """Whether a graph was refused because other providers do not take all of it."""
    return "fallback to CPU EP has been explicitly disabled" in str(error)


def load_error(error: Exception, name: str, providers: Sequence[str] = (CPU,)) -> HummingbirdError:
    """The typed error for a graph that could not be opened.

    Args:
        error: of ONNX Runtime.
        name: of the graph.
        providers: that it was to be opened with.
    """
    text = str(error)
    if _MEMORY.search(text) or isinstance(error, MemoryError):
        return _memory(name, "opening")
    if (found := _IR_VERSION.search(text)) is not None:
        return _version(name, f"IR version {found[1]}", f"up to {found[2]}")
    if (found := _OPSET.search(text)) is not None:
        limit = _OPSET_LIMIT.search(text)
        return _version(name, f"opset {found[1]}", f"up to {limit[1]}" if limit else "older ones")
    if (found := _UNKNOWN_OP.search(text)) is not None:
        return IntegrityError(
            "bundle.op_not_allowed",
            f"graph {name}: got operator {found[1] or found[2]}, ONNX Runtime has no such operator",
            hint="export the bundle again for this runtime",
        )
    if "External data path" in text:
        return IntegrityError(
            "bundle.unsafe_path",
            f"graph {name}: its external data is outside the bundle or missing",
            hint="export or copy the bundle again",
        )
    if "ReplaceInitializedTensor" in text:
        return InputError(
            "adapter.mismatch",
            f"graph {name}: the weights that a style changes are not those of the graph: "
            f"{plain_text(text)}",
            hint="export the bundle again; its initializers.json belongs to another graph",
        )
    if is_left_to_the_cpu(error):
        return ResourceError(
            "provider.unsupported_nodes",
            f"graph {name}: {', '.join(providers)} cannot run every node",
            hint="add CPUExecutionProvider to --providers for the rest",
        )
    if type(error).__name__ in ("InvalidProtobuf", "InvalidGraph", "InvalidArgument", "NoSuchFile"):
        return InputError(
            "bundle.graph_unreadable",
            f"graph {name}: not a usable ONNX file: {plain_text(text)}",
            hint="export or copy the bundle again",
        )
    if others := [provider for provider in providers if provider != CPU]:
        return ResourceError(
            "provider.failed",
            f"graph {name}: {', '.join(others)} cannot open it: {plain_text(text)}",
            hint="check the driver with `hummingbird doctor`, or use the CPU",
        )
    return ExecutionError(
        "runtime.load_failed",
        f"graph {name}: {plain_text(text)}",
        hint="run `hummingbird doctor`",
    )


def run_error(error: Exception, name: str) -> HummingbirdError:
    """The typed error for a graph that failed while running."""
    text = str(error)
    if _MEMORY.search(text) or isinstance(error, MemoryError):
        return _memory(name, "running")
    return ExecutionError(
        "runtime.run_failed",
        f"graph {name}: {plain_text(text)}",
        hint="run `hummingbird verify --deep` on the bundle",
    )


def plain_text(text: str) -> str:
    """One line of at most 300 characters: no error prefix, source file or C++ signature."""
    text = text[:2000]
    for pattern in (_PREFIX, _LOAD, _SOURCE):
        text = pattern.sub("", text)
    line = " ".join(text.split())
    return line if len(line) <= 300 else line[:297] + "..."


def _memory(name: str, doing: str) -> ResourceError:
    return ResourceError(
        "resource.memory",
        f"graph {name}: out of memory while {doing} it",
        hint="ask for fewer frames or a smaller size, or close other programs",
    )


def _version(name: str, got: str, expected: str) -> InputError:
    return InputError(
        "bundle.unsupported_opset",
        f"graph {name}: got {got}, this ONNX Runtime reads {expected}",
        hint="update onnxruntime or export the bundle with an older opset",
    )
