"""JSON read strictly into frozen dataclasses: size, depth, numbers, duplicate and unknown keys.

Python's reader takes NaN, duplicate keys and endless nesting; a bundle's documents may have none.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import re
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, NoReturn, TypeVar

from hummingbird_runtime.errors import InputError

MAX_BYTES = 1 << 20
MAX_DEPTH = 8
MAX_INTEGER = 1 << 53

# C0 and C1 controls but line feed and tab, and halves of surrogate pairs: they could rewrite a
# terminal's lines, or could not be written out again
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")

T = TypeVar("T")


def parse_json(data: bytes, *, what: str, limit: int = MAX_BYTES) -> Any:
    """Parse one JSON document of a bundle.

    Args:
        data: UTF-8 text, nested at most 8 deep.
        what: the name of the document, for the message.
        limit: largest allowed number of bytes.

    Raises:
        InputError: ``bundle.manifest_invalid``.
    """
    if len(data) > limit:
        fail(what, f"got {len(data)} bytes, expected at most {limit}")
    try:
        value = json.loads(
            data.decode("utf-8"),
            parse_constant=lambda name: fail(what, f"got {name}, expected a finite number"),
            object_pairs_hook=lambda pairs: _object(pairs, what),
        )
    except RecursionError:
        fail(what, f"nested too deeply, expected at most {MAX_DEPTH} levels")
    except ValueError as error:  # UnicodeDecodeError, JSONDecodeError, integers of 4300 digits
        fail(what, f"not JSON: {str(error).splitlines()[0]}")
    _check_depth(value, what)
    return value


def record(cls: type[T], value: object, where: str) -> T:
    """Build a frozen dataclass from a parsed JSON object; its annotations are the schema.

    Keys must be exactly the fields, those with a default may be absent. Understood annotations:
    bool, int, float, str, None, Any, Literal, unions, tuples, ``dict[str, V]`` and dataclasses.

    Raises:
        InputError: ``bundle.manifest_invalid`` naming the field, what it held and what it may hold.
    """
    if not isinstance(value, Mapping):
        fail(where, f"got {_shown(value)}, expected an object")
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    unknown = sorted(str(key) for key in value.keys() - fields.keys())
    missing = sorted(
        name
        for name in fields.keys() - value.keys()
        if fields[name].default is dataclasses.MISSING
        and fields[name].default_factory is dataclasses.MISSING
    )
    if unknown or missing:
        fail(where, f"unknown keys {unknown[:5]}, missing keys {missing[:5]}")
    kinds = _type_hints(cls)  # type: ignore[arg-type]
    return cls(**{k: _convert(kinds[k], v, f"{where}.{k}") for k, v in value.items()})


def fail(where: str, problem: str) -> NoReturn:
    """Raise ``bundle.manifest_invalid`` for one place of a document."""
    raise InputError(
        "bundle.manifest_invalid", f"{where}: {problem}", hint="export or copy the bundle again"
    )


@functools.cache
def _type_hints(cls: type[Any]) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def _object(pairs: list[tuple[str, Any]], what: str) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        names = [name for name, _ in pairs]
        twice = sorted({name for name in names if names.count(name) > 1})
        fail(what, f"key {_shown(twice[0])} appears twice, expected once")
    return value


def _check_depth(value: Any, what: str) -> None:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [
            child
            for item in level
            if isinstance(item, dict | list)
            for child in (item.values() if isinstance(item, dict) else item)
        ]
    if any(isinstance(item, dict | list) for item in level):
        fail(what, f"nested too deeply, expected at most {MAX_DEPTH} levels")


def _convert(kind: Any, value: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if dataclasses.is_dataclass(kind):
        return record(typing.cast("type[Any]", kind), value, where)
    if origin is Literal:
        if value in arguments and type(value) in {type(a) for a in arguments}:
            return value
        fail(where, f"got {_shown(value)}, expected one of {', '.join(map(repr, arguments))}")
    if origin in (typing.Union, types.UnionType):
        return _convert_union(arguments, value, where)
    if origin is tuple:
        return _convert_tuple(arguments, value, where)
    if origin is dict:
        if not isinstance(value, dict):
            fail(where, f"got {_shown(value)}, expected an object")
        return {
            _convert(str, k, where): _convert(arguments[1], v, f"{where}[{_shown(k)}]")
            for k, v in value.items()
        }
    return _convert_scalar(kind, value, where)


def _convert_union(arguments: tuple[Any, ...], value: Any, where: str) -> Any:
    for kind in arguments:
        if kind is types.NoneType and value is None:
            return None
        if kind is not types.NoneType:
            try:
                return _convert(kind, value, where)
            except InputError:
                if len(arguments) == 2 and types.NoneType in arguments and value is not None:
                    raise  # the message of the one real alternative says more
    names = " or ".join(getattr(kind, "__name__", str(kind)) for kind in arguments)
    fail(where, f"got {_shown(value)}, expected {names}")


def _convert_tuple(arguments: tuple[Any, ...], value: Any, where: str) -> Any:
    if not isinstance(value, list | tuple):
        fail(where, f"got {_shown(value)}, expected a list")
    if len(arguments) == 2 and arguments[1] is ...:
        return tuple(_convert(arguments[0], v, f"{where}[{i}]") for i, v in enumerate(value))
    if len(value) != len(arguments):
        fail(where, f"got {len(value)} values, expected {len(arguments)}")
    pairs = zip(arguments, value, strict=True)
    return tuple(_convert(kind, v, f"{where}[{i}]") for i, (kind, v) in enumerate(pairs))


def _convert_scalar(kind: Any, value: Any, where: str) -> Any:
    if kind is float and type(value) in (int, float):
        if math.isfinite(value):
            return float(value)
    elif type(value) is kind and not (kind is int and abs(value) > MAX_INTEGER):
        if kind is not str or _UNPRINTABLE.search(value) is None:
            return value
        fail(where, f"got {_shown(value)}, expected text without control characters")
    name = {str: "text", int: "a whole number", float: "a finite number", bool: "true or false"}
    fail(where, f"got {_shown(value)}, expected {name[kind]}")


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
