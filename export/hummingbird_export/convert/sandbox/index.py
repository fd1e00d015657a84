"""From the value of a pickle to a flat list of named tensors with their place in the file.

Knows state dicts, plain or under a key, whole modules (their tensors get the names that
``Module.state_dict`` gives) and lists of tensors.
"""

from __future__ import annotations

import math
from typing import Any

from hummingbird_export.convert.sandbox.archive import Archive
from hummingbird_export.convert.sandbox.values import Instance, Malformed, Refused, TensorView

MAX_TENSORS = 50_000
MAX_NAME = 300
MAX_DEPTH = 64
MAX_MODULES = 50_000

ITEM_SIZES = {
    "float64": 8, "int64": 8, "float32": 4, "int32": 4, "float16": 2, "bfloat16": 2, "int16": 2,
    "int8": 1, "uint8": 1, "bool": 1,
}  # fmt: skip

_WRAPPERS = ("state_dict", "module", "model")
"""Keys under which trainers keep the state dict: Lightning, DeepSpeed, others."""

Row = list[Any]
"""[name, number type, first byte, number of elements read, shape, strides]."""


def find_tensors(root: Any) -> tuple[str, dict[str, TensorView]]:
    """What kind of container a pickled value is, and its tensors by name.

    Raises:
        Malformed: when it holds no tensors in any known way.
        Refused: for modules nested without end.
    """
    if isinstance(root, dict):
        for key in _WRAPPERS:
            inner = root.get(key)
            if isinstance(inner, dict) and _tensors(inner):
                named = "DeepSpeed state dict" if key == "module" else "state dict"
                return f"{named} under {key!r}", _tensors(inner)
            if isinstance(inner, Instance) and _is_module(inner):
                return f"pickled module {inner.type} under {key!r}", _walk(inner)
        found = _tensors(root)
        if found:
            return "state dict", found
    if isinstance(root, Instance) and _is_module(root):
        return f"pickled module {root.type}", _walk(root)
    if isinstance(root, list | tuple) and root and all(isinstance(t, TensorView) for t in root):
        return "list of tensors", {str(i): t for i, t in enumerate(root)}
    raise Malformed(f"a pickle of {_outline(root)}, which holds no tensors by name")


def rows(tensors: dict[str, TensorView], archive: Archive) -> list[Row]:
    """Places of tensors in the file, each checked against the archive.

    Raises:
        Refused: for a tensor that is larger than what is stored, or absurd names.
        Malformed: for a tensor whose storage is missing or too short.
    """
    if len(tensors) > MAX_TENSORS:
        raise Refused(f"{len(tensors)} tensors, more than {MAX_TENSORS}")
    found = []
    for name, view in tensors.items():
        if len(name) > MAX_NAME or not name.isprintable():
            raise Refused(f"a tensor with the name {name[:60]!r}")
        found.append([name, view.storage.dtype, *_place(name, view, archive)])
    return found


def _place(name: str, view: TensorView, archive: Archive) -> list[Any]:
    storage = view.storage
    place = archive.storages.get(storage.key)
    if place is None:
        raise Malformed(f"tensor {name!r}: its storage {storage.key[:40]!r} is missing")
    size = ITEM_SIZES[storage.dtype]
    if storage.numel * size > place[1]:
        raise Malformed(
            f"tensor {name!r}: {place[1]} bytes stored, {storage.numel * size} expected"
        )
    elements = math.prod(view.shape)
    if elements > storage.numel:
        raise Refused(f"tensor {name!r}: {elements} elements from {storage.numel} stored ones")
    last = sum((n - 1) * step for n, step in zip(view.shape, view.stride, strict=True))
    span = last + 1 if elements else 0
    if view.offset + span > storage.numel:
        raise Malformed(f"tensor {name!r}: it reaches beyond its storage")
    return [place[0] + view.offset * size, span, list(view.shape), list(view.stride)]


def _tensors(table: dict[Any, Any]) -> dict[str, TensorView]:
    found = {k: v for k, v in table.items() if isinstance(v, TensorView)}
    if any(not isinstance(key, str) for key in found):
        raise Malformed("tensors under keys that are no text")
    return found


def _state(module: Instance) -> dict[Any, Any]:
    merged: dict[Any, Any] = {}
    for state in module.states:
        parts = state if isinstance(state, tuple) else (state,)  # (attributes, slots)
        for part in parts:
            if isinstance(part, dict):
                merged.update(part)
    return merged


def _is_module(value: Instance) -> bool:
    return {"_modules", "_parameters"} <= _state(value).keys()


def _walk(root: Instance) -> dict[str, TensorView]:
    """Parameters and persistent buffers by dotted path, in order of registration."""
    found: dict[str, TensorView] = {}
    visited = 0
    pending: list[tuple[str, Instance, tuple[int, ...]]] = [("", root, ())]
    while pending:
        prefix, module, above = pending.pop()
        visited += 1
        if id(module) in above or len(above) > MAX_DEPTH or visited > MAX_MODULES:
            raise Refused("modules nested without end")
        state = _state(module)
        volatile = state.get("_non_persistent_buffers_set")
        skipped = volatile if isinstance(volatile, list) else []
        for kind in ("_parameters", "_buffers"):
            table = state.get(kind)
            for name, view in _tensors(table if isinstance(table, dict) else {}).items():
                if not (kind == "_buffers" and name in skipped):
                    found[_bounded(prefix + name)] = view
        children = state.get("_modules")
        named = children.items() if isinstance(children, dict) else ()
        below = [
            (_bounded(f"{prefix}{name}."), child, (*above, id(module)))
            for name, child in named
            if isinstance(name, str) and isinstance(child, Instance)
        ]
        pending += reversed(below)
    if not found:
        raise Malformed(f"module {root.type}, which holds no tensors")
    return found


def _bounded(name: str) -> str:
    if len(name) > MAX_NAME:
        raise Refused(f"a tensor with the name {name[:60]!r}...")
    return name


def _outline(root: Any) -> str:
    if isinstance(root, dict):
        keys = [key[:40] for key in root if isinstance(key, str)][:6]
        return f"a dict with the keys {', '.join(keys) or 'none'}"
    if isinstance(root, Instance):
        return f"a {root.type}"
    return f"a {type(root).__name__}"
