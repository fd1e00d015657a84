"""Reads a .safetensors file with the standard library and NumPy: length, JSON header, raw bytes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

_DTYPES = {"F32": "<f4", "F16": "<f2", "F64": "<f8", "I64": "<i8"}


def read(path: Path) -> dict[str, np.ndarray]:
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    header.pop("__metadata__", None)
    arrays = {}
    for name, entry in header.items():
        begin, end = (start + offset for offset in entry["data_offsets"])
        flat = np.frombuffer(data[begin:end], _DTYPES[entry["dtype"]])
        arrays[name] = flat.reshape(entry["shape"])
    return arrays


def encode(header: dict, data: bytes) -> bytes:
    """A file of any header, right or wrong."""
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def layout(arrays: dict[str, np.ndarray]) -> tuple[dict, bytes]:
    """Header entries and data of arrays, one after the other."""
    names = {np.dtype(code): name for name, code in _DTYPES.items()}
    header, data = {}, b""
    for name, array in arrays.items():
        raw = np.asarray(array, order="C").tobytes()
        offsets = [len(data), len(data) + len(raw)]
        kind = names[array.dtype]
        header[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": offsets}
        data += raw
    return header, data


def write(path: Path, arrays: dict[str, np.ndarray], metadata: dict[str, str]) -> Path:
    header, data = layout(arrays)
    path.write_bytes(encode({"__metadata__": metadata, **header}, data))
    return path
