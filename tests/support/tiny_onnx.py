"""Writes small ONNX files byte by byte, so that runtime tests need no onnx package.

Only what the tests use of the format: dense float and int64 constants, typed inputs and outputs.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

DTYPES = {"float32": 1, "uint8": 2, "int8": 3, "int32": 6, "int64": 7, "bool": 9, "float16": 10}


def varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def field(number: int, value: int | bytes | str) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def tensor(name: str, array: np.ndarray) -> bytes:
    """A TensorProto; keeps shape () for scalars."""
    dims = b"".join(field(1, size) for size in array.shape)
    data = np.asarray(array, order="C").tobytes()
    return dims + field(2, DTYPES[str(array.dtype)]) + field(8, name) + field(9, data)


def value_info(name: str, dtype: str, dims: Sequence[int | str]) -> bytes:
    shape = b"".join(
        field(1, field(1, dim) if isinstance(dim, int) else field(2, dim)) for dim in dims
    )
    kind = field(1, DTYPES[dtype]) + field(2, shape)
    return field(1, name) + field(2, field(1, kind))


def attribute(name: str, value: int | float | str | list[int]) -> bytes:
    if isinstance(value, int):
        return field(1, name) + field(3, value) + field(20, 2)
    if isinstance(value, float):
        return field(1, name) + varint(2 << 3 | 5) + struct.pack("<f", value) + field(20, 1)
    if isinstance(value, str):
        return field(1, name) + field(4, value) + field(20, 3)
    return field(1, name) + b"".join(field(8, i) for i in value) + field(20, 7)


def node(
    op: str, inputs: Iterable[str], outputs: Iterable[str], *, domain: str = "", **attributes
) -> bytes:
    body = b"".join(field(1, name) for name in inputs)
    body += b"".join(field(2, name) for name in outputs) + field(4, op)
    body += b"".join(field(5, attribute(k, v)) for k, v in attributes.items())
    return body + (field(7, domain) if domain else b"")


def model(
    nodes: Iterable[bytes],
    inputs: Iterable[tuple],
    outputs: Iterable[tuple],
    constants: Mapping[str, np.ndarray] | None = None,
    *,
    opset: int = 18,
    ir_version: int = 9,
    domains: Iterable[str] = (),
    raw_constants: Iterable[bytes] = (),
) -> bytes:
    """A ModelProto; inputs and outputs are (name, dtype, dims)."""
    graph = b"".join(field(1, n) for n in nodes) + field(2, "tiny")
    graph += b"".join(field(5, tensor(k, v)) for k, v in (constants or {}).items())
    graph += b"".join(field(5, raw) for raw in raw_constants)
    graph += b"".join(field(11, value_info(*v)) for v in inputs)
    graph += b"".join(field(12, value_info(*v)) for v in outputs)
    body = field(1, ir_version) + field(2, "tiny_onnx") + field(7, graph)
    body += field(8, field(1, "") + field(2, opset))
    return body + b"".join(field(8, field(1, d) + field(2, 1)) for d in domains)
