"""Graph signatures: what a file declares against the manifest, and arrays against what it takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, cast

from numpy.typing import NDArray

from hummingbird_runtime.errors import InputError, IntegrityError
from hummingbird_runtime.manifest import Graph, Tensor

_DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(int64)": "int64",
    "tensor(int32)": "int32",
    "tensor(uint8)": "uint8",
    "tensor(int8)": "int8",
    "tensor(bool)": "bool",
}


class _HasSignature(Protocol):
    @property
    def inputs(self) -> tuple[Tensor, ...]: ...

    @property
    def outputs(self) -> tuple[Tensor, ...]: ...


def declared_tensor(node: Any) -> Tensor:
    """A Tensor from ONNX Runtime's NodeArg; an unnamed free size is called ``?``."""
    dims = tuple(d if isinstance(d, int) else str(d or "?") for d in node.shape)
    return Tensor(node.name, cast("Any", _DTYPES.get(node.type, node.type)), dims)


def check_signature(session: _HasSignature, graph: Graph, role: str) -> None:
    """Compare an opened graph with its entry in the manifest.

    Names, dtypes and ranks must be equal and so must fixed sizes. A size that is free in one and
    fixed in the other is a difference for inputs; for outputs the loader may have inferred it.

    Raises:
        IntegrityError: ``bundle.signature_mismatch``.
    """
    for side, expected, got in (
        ("input", graph.inputs, session.inputs),
        ("output", graph.outputs, session.outputs),
    ):
        by_name = {tensor.name: tensor for tensor in got}
        if by_name.keys() != {tensor.name for tensor in expected}:
            raise _mismatch(role, f"{side}s", sorted(by_name), sorted(t.name for t in expected))
        for tensor in expected:
            found = by_name[tensor.name]
            if found.dtype != tensor.dtype or not _dims_agree(
                found.dims, tensor.dims, strict=side == "input"
            ):
                raise _mismatch(
                    role,
                    f"{side} {tensor.name}",
                    f"{found.dtype} {list(found.dims)}",
                    f"{tensor.dtype} {list(tensor.dims)}",
                )


def check_feeds(inputs: Sequence[Tensor], feeds: Mapping[str, NDArray[Any]], name: str) -> None:
    """Refuse arrays that do not fit the declared inputs.

    Raises:
        InputError: ``runtime.input_mismatch``.
    """
    if feeds.keys() != {tensor.name for tensor in inputs}:
        raise _bad_feed(name, "inputs", sorted(feeds), sorted(t.name for t in inputs))
    for tensor in inputs:
        array = feeds[tensor.name]
        fits = len(array.shape) == len(tensor.dims) and all(
            isinstance(dim, str) or dim == size
            for dim, size in zip(tensor.dims, array.shape, strict=True)
        )
        if str(array.dtype) != tensor.dtype or not fits:
            raise _bad_feed(
                name,
                f"input {tensor.name}",
                f"{array.dtype} {list(array.shape)}",
                f"{tensor.dtype} {list(tensor.dims)}",
            )


def _dims_agree(got: Sequence[int | str], expected: Sequence[int | str], *, strict: bool) -> bool:
    if len(got) != len(expected):
        return False
    for a, b in zip(got, expected, strict=True):
        both_fixed = isinstance(a, int) and isinstance(b, int)
        if (both_fixed and a != b) or (strict and isinstance(a, int) != isinstance(b, int)):
            return False
    return True


def _mismatch(role: str, what: str, got: object, expected: object) -> IntegrityError:
    return IntegrityError(
        "bundle.signature_mismatch",
        f"graph {role}: {what} got {got}, the manifest says {expected}",
        hint="the graph belongs to another bundle; export or copy the bundle again",
    )


def _bad_feed(name: str, what: str, got: object, expected: object) -> InputError:
    return InputError(
        "runtime.input_mismatch",
        f"{name}: {what} got {got}, expected {expected}",
        hint="pass arrays that fit the graph's signature",
    )
