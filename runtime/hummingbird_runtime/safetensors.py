"""Reads a small .safetensors file strictly: standard library and NumPy, nothing is executed.

The format: 8 bytes of little-endian header length, a JSON header, raw tensors. Here every byte of
the data belongs to exactly one tensor, types are float32 and float16, and all values are finite.
"""

from __future__ import annotations

import math
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hummingbird_runtime.errors import InputError, ResourceError
from hummingbird_runtime.strict_json import parse_json, record

MAX_HEADER = 4 << 20
MAX_FILE = 1 << 30
MAX_TENSORS = 1 << 14
MAX_RANK = 5
_TYPES = {"F32": ("<f4", 4), "F16": ("<f2", 2)}
_METADATA = "__metadata__"


@dataclass(frozen=True)
class _Entry:
    dtype: Literal["F32", "F16"]
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]


@dataclass(frozen=True)
class TensorFile:
    """What a file held."""

    metadata: dict[str, str]
    tensors: dict[str, NDArray[np.float32]]
    """By name; float16 widened to float32."""


def read_safetensors(path: Path) -> TensorFile:
    """Read a whole file.

    Raises:
        InputError: ``adapter.not_found``, ``adapter.invalid``.
        ResourceError: ``adapter.unreadable``.
    """
    data = _read(path)
    length = int.from_bytes(data[:8], "little")
    if len(data) < 10 or not 2 <= length <= min(MAX_HEADER, len(data) - 8):
        raise invalid(
            path,
            f"got a header of {length} bytes in a file of {len(data)}, "
            f"expected one inside the file of at most {MAX_HEADER}",
        )
    try:
        header = parse_json(data[8 : 8 + length], what="header", limit=MAX_HEADER)
        if not isinstance(header, dict) or len(header) > MAX_TENSORS:
            raise invalid(path, f"got no header object of at most {MAX_TENSORS} tensors")
        metadata = header.pop(_METADATA, {})
        entries = {name: record(_Entry, value, name[:80]) for name, value in header.items()}
    except InputError as error:
        raise invalid(path, error.message) from error
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise invalid(path, f"got a {_METADATA} that is no table of texts")
    _check_layout(path, entries, len(data) - 8 - length)
    body = memoryview(data)[8 + length :]
    return TensorFile(metadata, {name: _tensor(path, name, e, body) for name, e in entries.items()})


def invalid(path: Path, problem: str) -> InputError:
    """The error of a file that is no adapter."""
    return InputError(
        "adapter.invalid",
        f"adapter {path.name}: {problem}",
        hint="use a safetensors file that `hummingbird export` wrote for this model",
    )


def _read(path: Path) -> bytes:
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        with open(os.open(path, flags), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_FILE:
                raise invalid(path, f"expected a regular file of at most {MAX_FILE} bytes")
            return file.read(status.st_size)
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:
        raise InputError(
            "adapter.not_found",
            f"adapter {str(path)[:200]!r}: got nothing there, expected a safetensors file",
            hint="name the file, or a style that `hummingbird info` lists",
        ) from error
    except IsADirectoryError as error:
        raise invalid(path, "got a folder, expected a file") from error
    except OSError as error:
        raise ResourceError(
            "adapter.unreadable",
            f"adapter {path.name}: {error.strerror or error}, expected a readable file",
            hint="check its permissions and the disk",
        ) from error


def _check_layout(path: Path, entries: dict[str, _Entry], size: int) -> None:
    """Every byte of the data belongs to exactly one tensor, and sizes follow from shapes."""
    position = 0
    for name, entry in sorted(entries.items(), key=lambda item: item[1].data_offsets):
        begin, end = entry.data_offsets
        if len(entry.shape) > MAX_RANK or min(entry.shape, default=1) < 1:
            raise invalid(path, f"tensor {name[:80]!r} has shape {list(entry.shape)!r:.60}")
        expected = math.prod(entry.shape) * _TYPES[entry.dtype][1]
        if begin != position or end - begin != expected:
            raise invalid(
                path,
                f"tensor {name[:80]!r} lies at {begin}..{end}, "
                f"expected {position}..{position + expected}",
            )
        position = end
    if position != size:
        raise invalid(path, f"got {size} bytes of data, expected {position}")


def _tensor(path: Path, name: str, entry: _Entry, body: memoryview) -> NDArray[np.float32]:
    begin, end = entry.data_offsets
    array = np.frombuffer(body[begin:end], _TYPES[entry.dtype][0]).astype(np.float32)
    if not np.isfinite(array).all():
        raise invalid(path, f"tensor {name[:80]!r} holds NaN or infinities")
    return array.reshape(entry.shape)
