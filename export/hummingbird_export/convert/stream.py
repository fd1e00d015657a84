"""A safetensors file written tensor by tensor: one tensor in memory at a time, hashed on the way.

The file equals what ``models.weights.save_model`` stores: same names, shapes, values and metadata.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from hummingbird_runtime.errors import InputError

DTYPES = {"fp32": torch.float32, "fp16": torch.float16}
"""Names of the storage formats."""

_NAMES = {torch.float32: "F32", torch.float16: "F16"}
_HALF_MAX = 65504


def write_stream(
    path: Path,
    shapes: Mapping[str, tuple[int, ...]],
    dtype: torch.dtype,
    metadata: Mapping[str, str],
    read: Callable[[str], Tensor],
) -> str:
    """Write a safetensors file and return its SHA-256.

    Args:
        path: the new file.
        shapes: name -> shape of every tensor, in the order of writing.
        dtype: storage format, one of ``DTYPES``.
        metadata: of the file.
        read: gives a tensor by name, in any floating format.

    Raises:
        InputError: ``checkpoint.not_finite``, ``checkpoint.half_range``.
        OSError: as the system gives it.
    """
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    end = 0
    for name, shape in shapes.items():
        start, end = end, end + math.prod(shape) * dtype.itemsize
        header[name] = {"dtype": _NAMES[dtype], "shape": list(shape), "data_offsets": [start, end]}
    encoded = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    encoded += b" " * (-len(encoded) % 8)
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for data in (len(encoded).to_bytes(8, "little"), encoded):
            digest.update(data)
            file.write(data)
        for name, shape in shapes.items():
            tensor = stored(name, read(name), dtype)
            assert tuple(tensor.shape) == shape, name
            values = tensor.numpy().reshape(-1).view("uint8").data
            digest.update(values)
            file.write(values)
    return digest.hexdigest()


def stored(name: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """A tensor in a storage format, contiguous; a refusal instead of lost values.

    Raises:
        InputError: ``checkpoint.not_finite`` for NaN and infinities, ``checkpoint.half_range`` for
            a value beyond float16.
    """
    if not bool(torch.isfinite(tensor).all()):
        broken = int((~torch.isfinite(tensor)).sum())
        raise InputError(
            "checkpoint.not_finite",
            f"weight {name}: got {broken} of {tensor.numel()} values infinite or NaN, expected "
            "finite values",
            hint="get the file again, or another checkpoint of that training run",
        )
    result = tensor.to(dtype).contiguous()
    if result.dtype != tensor.dtype and not bool(torch.isfinite(result).all()):
        raise InputError(
            "checkpoint.half_range",
            f"weight {name}: got magnitude {float(tensor.abs().max()):.3g}, expected at most "
            f"{_HALF_MAX} for float16 storage"
            if dtype == torch.float16
            else f"weight {name}: got magnitude beyond float32, expected finite values",
            hint="convert with --dtype fp32",
        )
    return result
