"""Tensors between NumPy and ONNX Runtime: inputs are never copied, large outputs neither."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from hummingbird_runtime.capi.api import Api, Handle
from hummingbird_runtime.errors import InputError
from hummingbird_runtime.manifest import Tensor

COPIED_BYTES = 2**20
"""Outputs up to this size are copied, in less than a millisecond: a view keeps alive the whole
block of the arena that it lies in, which a small tensor is not worth."""

ELEMENT_TYPES = {
    "float32": 1, "uint8": 2, "int8": 3, "uint16": 4, "int16": 5, "int32": 6, "int64": 7,
    "bool": 9, "float16": 10, "float64": 11, "uint32": 12, "uint64": 13,
}  # fmt: skip
_NAMES = {number: name for name, number in ELEMENT_TYPES.items()}


class OwnedValue:
    """Owns one OrtValue; arrays made from it keep it alive, and it goes with the last of them."""

    def __init__(self, api: Api, value: Handle) -> None:
        self.api, self.handle = api, value
        self.__array_interface__: dict[str, Any] = {}

    def __del__(self) -> None:
        self.api.release("Value", self.handle)


def value_from(api: Api, array: NDArray[Any]) -> Handle:
    """An OrtValue over the memory of a C-contiguous array, which must outlive it."""
    shape = (ctypes.c_int64 * max(array.ndim, 1))(*array.shape)
    kind = ELEMENT_TYPES.get(str(array.dtype))
    if kind is None:
        raise InputError(
            "runtime.input_mismatch",
            f"array of {array.dtype}, expected one of {', '.join(ELEMENT_TYPES)}",
            hint="convert the array first",
        )
    return api.create(
        "CreateTensorWithDataAsOrtValue",
        api.cpu_memory,
        array.ctypes.data,
        array.nbytes,
        shape,
        array.ndim,
        kind,
    )


def array_from(value: OwnedValue) -> NDArray[Any]:
    """The array of a tensor: a view that owns ``value``, or a copy up to ``COPIED_BYTES``."""
    api = value.api
    info = api.create("GetTensorTypeAndShape", value.handle)
    try:
        name, sizes, _ = _type_and_shape(api, info)
    finally:
        api.release("TensorTypeAndShapeInfo", info)
    dtype = np.dtype(name)
    if 0 in sizes:
        return np.empty(sizes, dtype)
    address = api.create("GetTensorMutableData", value.handle)
    value.__array_interface__ = {
        "data": (address, False), "shape": tuple(sizes), "typestr": dtype.str, "version": 3
    }  # fmt: skip
    view = np.asarray(value)
    return view.copy() if view.nbytes <= COPIED_BYTES else view


def signature(api: Api, session: Handle, side: str) -> tuple[Tensor, ...]:
    """What a session declares.

    Args:
        api: the library.
        session: an OrtSession.
        side: ``Input`` or ``Output``.
    """
    count = api.number(f"SessionGet{side}Count", session)
    return tuple(_declared(api, session, side, index) for index in range(count))


def _declared(api: Api, session: Handle, side: str, index: int) -> Tensor:
    text = api.create(f"SessionGet{side}Name", session, index, api.allocator)
    name = ctypes.string_at(text).decode("utf-8", "replace")
    api.call("AllocatorFree", api.allocator, text)
    info = api.create(f"SessionGet{side}TypeInfo", session, index)
    try:
        tensor = api.create("CastTypeInfoToTensorInfo", info)  # owned by info
        if not tensor:
            return Tensor(name, cast("Any", "no tensor"), ())
        dtype, sizes, symbols = _type_and_shape(api, tensor)
    finally:
        api.release("TypeInfo", info)
    dims = tuple(
        size if size >= 0 else symbol or "?" for size, symbol in zip(sizes, symbols, strict=True)
    )
    return Tensor(name, cast("Any", dtype), dims)


def _type_and_shape(api: Api, info: Handle) -> tuple[str, list[int], Sequence[str]]:
    kind = api.number("GetTensorElementType", info, ctypes.c_int)
    rank = api.number("GetDimensionsCount", info)
    sizes, symbols = (ctypes.c_int64 * rank)(), (ctypes.c_char_p * rank)()
    if rank:
        api.call("GetDimensions", info, sizes, rank)
        api.call("GetSymbolicDimensions", info, symbols, rank)
    names = [(symbol or b"").decode("utf-8", "replace") for symbol in symbols]
    return _NAMES.get(kind, f"element type {kind}"), list(sizes), names
