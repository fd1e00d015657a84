"""What a manifest lists: files, graphs with their tensors, style adapters, the licence.

Each checks its own fields; that they fit together is checked in manifest.py.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal

from hummingbird_runtime.errors import IntegrityError
from hummingbird_runtime.session_settings import SessionSettings
from hummingbird_runtime.strict_json import fail

Precision = Literal[
    "fp32", "fp16", "fp16-storage", "int8-storage", "int8", "int8-dynamic", "w8", "w4", "mixed"
]
"""NAME-storage: weights stored so, arithmetic float32. int8: static, activations too;
int8-dynamic: activations scaled at run time; w8, w4: weights alone; mixed: chosen by layer."""

_SAFE_PATH = re.compile(
    r"(?:[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}/){0,6}[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}"
)
_SHA256 = re.compile(r"[0-9a-f]{64}")
_OPERATOR = re.compile(r"[A-Za-z0-9_.]{1,64}:[A-Za-z0-9_]{1,64}")


def check_relative_path(path: str, where: str) -> None:
    """Refuse a name that is not plain ASCII parts joined by ``/`` inside the bundle.

    Raises:
        IntegrityError: ``bundle.unsafe_path``.
    """
    if not _SAFE_PATH.fullmatch(path) or any(part.endswith(".") for part in path.split("/")):
        raise IntegrityError(
            "bundle.unsafe_path",
            f"{where}: got path {path[:80]!r}, expected letters, digits, '_', '.', '-' and '/' "
            "inside the bundle",
            hint="do not use this bundle unless you trust where it came from",
        )


@dataclass(frozen=True)
class FileEntry:
    """One file of the bundle."""

    sha256: str
    """64 lower-case hexadecimal digits."""
    bytes: int
    """Exact size."""

    def __post_init__(self) -> None:
        if not _SHA256.fullmatch(self.sha256):
            fail("files", f"got sha256 {self.sha256[:70]!r}, expected 64 lower-case hex digits")
        if self.bytes < 0:
            fail("files", f"got {self.bytes} bytes, expected 0 or more")


@dataclass(frozen=True)
class Tensor:
    """One input or output of a graph."""

    name: str
    dtype: Literal["float32", "float16", "int64", "int32", "uint8", "int8", "bool"]
    dims: tuple[int | str, ...]
    """A number is fixed, a name is a size chosen at run time; () is a scalar."""


@dataclass(frozen=True)
class Graph:
    """One ONNX graph of the bundle."""

    path: str
    opset: int
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    ops: tuple[str, ...]
    """Every operator in it, subgraphs included, as ``domain:Name`` (``ai.onnx:Conv``)."""
    precision: Precision = "fp32"
    parity: dict[str, float] = field(default_factory=dict)
    """Errors against the torch module it came from, measured at export."""
    quality: dict[str, float] = field(default_factory=dict)
    """How far it is from the same graph in float32, such as snr_db_mean and snr_db_worst."""
    session: SessionSettings = field(default_factory=SessionSettings)
    """How it is opened."""

    def __post_init__(self) -> None:
        check_relative_path(self.path, "graph")
        for op in self.ops:
            if not _OPERATOR.fullmatch(op):
                fail(f"{self.path} ops", f"got {op[:80]!r}, expected 'domain:Name'")


@dataclass(frozen=True)
class Adapter:
    """A style that can be merged into the U-Net when it is opened."""

    path: str
    """The safetensors file with its factors."""
    targets: tuple[str, ...] = ()
    """Module paths of the U-Net that it changes, for people."""

    def __post_init__(self) -> None:
        check_relative_path(self.path, "adapter")


@dataclass(frozen=True)
class Licence:
    """Under what terms the weights may be used."""

    name: str
    file: str
