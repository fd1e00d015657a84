"""A checkpoint file as named tensors, whatever its container; tensors are read one at a time."""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from hummingbird_export.convert.pickle_reader import read_index
from hummingbird_export.convert.sandbox.index import Row
from hummingbird_runtime.errors import InputError, IntegrityError

_HEAD = 1 << 16
_MAX_HEADER = 100_000_000  # of safetensors
_SAFETENSORS_TYPES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64",
    "I32": "int32", "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool",
}  # fmt: skip


@dataclass(frozen=True)
class TensorInfo:
    """What is known of a tensor before it is read."""

    shape: tuple[int, ...]
    dtype: str
    """Name of the torch number type, or the container's own name for one that torch lacks."""


@dataclass(frozen=True)
class Checkpoint:
    """An opened file."""

    path: Path
    container: str
    """For people: safetensors, state dict, pickled module .., list of tensors."""
    tensors: Mapping[str, TensorInfo]
    read: Callable[[str], Tensor] = field(repr=False)
    """A tensor by name, on the CPU, in its stored type."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    """Of a safetensors file."""

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return self.path.stat().st_size


def open_checkpoint(path: Path, *, modules: bool = False, stubs: Sequence[str] = ()) -> Checkpoint:
    """Open a safetensors file or a torch archive; its first bytes decide which it is.

    Args:
        path: the file.
        modules: also read whole pickled modules, as data.
        stubs: further packages whose classes such a module may name.

    Raises:
        InputError: ``checkpoint.missing``, ``checkpoint.corrupt``.
        IntegrityError: ``checkpoint.legacy_pickle`` for formats that cannot be read safely, and
            those of ``read_index``.
        UsageError: ``convert.stub``.
    """
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError as error:
        raise InputError(
            "checkpoint.missing",
            f"checkpoint {path}: got {error.strerror or error}, expected a readable file",
            hint="check the path; a folder must be given file by file",
        ) from error
    if head[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        return _open_archive(path, modules, stubs)
    if path.suffix == ".safetensors" or _is_safetensors(head):
        return _open_safetensors(path)
    if _is_pickle(head) or head[257:262] == b"ustar":
        raise IntegrityError(
            "checkpoint.legacy_pickle",
            f"checkpoint {path}: got a bare pickle or tar, the format of torch before 1.6, "
            "expected a zip archive of torch.save or a safetensors file; nothing was run",
            hint="in a place where it can do no harm, load it with weights_only=True and save it "
            "again",
        )
    raise InputError(
        "checkpoint.corrupt",
        f"checkpoint {path}: got bytes of no known format ({head[:8].hex(' ') or 'none'}), "
        "expected a safetensors file or a file of torch.save",
        hint="get the file again and compare its SHA-256",
    )


def _open_archive(path: Path, modules: bool, stubs: Sequence[str]) -> Checkpoint:
    index = read_index(path, modules=modules, stubs=stubs)
    rows = {row[0]: row for row in index.rows}
    tensors = {name: TensorInfo(tuple(row[4]), row[1]) for name, row in rows.items()}
    return Checkpoint(path, index.container, tensors, lambda name: _read_row(path, rows[name]))


def _read_row(path: Path, row: Row) -> Tensor:
    name, dtype, start, count, shape, stride = row
    kind: torch.dtype = getattr(torch, dtype)
    if count == 0:
        return torch.empty(shape, dtype=kind)
    data = bytearray(count * kind.itemsize)
    with path.open("rb") as file:
        file.seek(start)
        if file.readinto(data) != len(data):
            raise InputError(
                "checkpoint.corrupt",
                f"checkpoint {path}: tensor {name!r} is cut off, expected {len(data)} bytes",
                hint="the file changed while it was read; try again",
            )
    return torch.frombuffer(data, dtype=kind).as_strided(shape, stride)


def _open_safetensors(path: Path) -> Checkpoint:
    try:
        file: Any = safe_open(str(path), framework="pt")
        tensors = {}
        for name in file.keys():  # noqa: SIM118
            part = file.get_slice(name)
            stored = part.get_dtype()
            tensors[name] = TensorInfo(
                tuple(part.get_shape()), _SAFETENSORS_TYPES.get(stored, stored)
            )
        metadata = dict(file.metadata() or {})
    except (OSError, SafetensorError) as error:
        raise InputError(
            "checkpoint.corrupt",
            f"checkpoint {path}: got {error}, expected a safetensors file",
            hint="get the file again and compare its SHA-256",
        ) from error
    return Checkpoint(path, "safetensors", tensors, file.get_tensor, metadata)


def _is_safetensors(head: bytes) -> bool:
    return int.from_bytes(head[:8], "little") <= _MAX_HEADER and head[8:9] == b"{"


def _is_pickle(head: bytes) -> bool:
    """Whether the bytes begin with instructions of the pickle language, up to a name or an end."""
    telling = {"PROTO", "GLOBAL", "STACK_GLOBAL", "INST", "REDUCE", "STOP"}
    try:
        return any(opcode.name in telling for opcode, _, _ in pickletools.genops(head))
    except ValueError:
        return False
