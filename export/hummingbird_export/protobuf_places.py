"""Where the bytes of each initializer lie inside an ONNX file: a walk over its protobuf fields.

Only lengths are read and skipped, so a file of any size takes milliseconds. Field numbers are those
of onnx.proto: ModelProto.graph 7, GraphProto.initializer 5, TensorProto.name 8 and raw_data 9.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

_GRAPH, _INITIALIZER, _NAME, _RAW_DATA = 7, 5, 8, 9
_VARINT, _EIGHT, _BYTES, _FOUR = 0, 1, 2, 5


def raw_data_offsets(path: Path) -> dict[str, int]:
    """Offset in the file of the raw data of every initializer that has it inside, by name."""
    found: dict[str, int] = {}
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        for begin, end in _messages(data, 0, len(data), _GRAPH):
            for first, last in _messages(data, begin, end, _INITIALIZER):
                names = [data[a:b].decode() for a, b in _messages(data, first, last, _NAME)]
                raw = [a for a, _ in _messages(data, first, last, _RAW_DATA)]
                if names and raw:
                    found[names[-1]] = raw[-1]
    return found


def _messages(data: mmap.mmap, at: int, end: int, wanted: int) -> Iterator[tuple[int, int]]:
    """Begin and end of each field of a number and of the length-delimited kind."""
    while at < end:
        key, at = _varint(data, at)
        number, kind = key >> 3, key & 7
        if kind == _BYTES:
            length, at = _varint(data, at)
            if number == wanted:
                yield at, at + length
            at += length
        elif kind == _VARINT:
            _, at = _varint(data, at)
        else:
            assert kind in (_EIGHT, _FOUR), f"protobuf wire type {kind}"
            at += 8 if kind == _EIGHT else 4


def _varint(data: mmap.mmap, at: int) -> tuple[int, int]:
    """A number of seven bits a byte, and the position behind it."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            return value, at
