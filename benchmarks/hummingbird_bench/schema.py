"""JSON Schema (2020-12) of the documents, written out of the dataclasses that really check them.

``python -m hummingbird_bench.schema`` writes the published files beside this one; a test holds
them against the dataclasses. Nothing here runs when a document is read.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from hummingbird_bench.devices import DeviceIndex, DeviceMeasurement
from hummingbird_bench.report import Report
from hummingbird_bench.scaling import Scaling

PUBLISHED: dict[str, tuple[type[Any], bool]] = {
    "report_schema.json": (Report, True),
    "scaling_schema.json": (Scaling, True),
    "device_schema.json": (DeviceMeasurement, False),
    "device_index_schema.json": (DeviceIndex, True),
}
"""File -> raw part, and whether the document is sealed: has ``derived`` and ``sha256`` too."""

_PLAIN: dict[Any, dict[str, Any]] = {
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"type": "number"},
    str: {"type": "string"},
    types.NoneType: {"type": "null"},
    Any: {},
}


def schema_text(name: str) -> str:
    """The published file ``name``."""
    cls, sealed = PUBLISHED[name]
    defined: dict[str, Any] = {}
    top = _object(cls, defined)
    if sealed:
        hashes = {
            key: {"type": "string", "pattern": "^[0-9a-f]{64}$"} for key in ("raw", "derived")
        }
        top["properties"] |= {
            "derived": {
                "type": "object",
                "description": "what follows from the rest; computed again by `bench verify`",
            },
            "sha256": {
                "type": "object",
                "description": "of the canonical spelling of either part",
                "properties": hashes,
                "required": sorted(hashes),
                "additionalProperties": False,
            },
        }
        top["required"] = sorted([*top["required"], "derived", "sha256"])
    whole = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": next(iter(typing.get_args(typing.get_type_hints(cls)["schema"]))),
        **top,
        "$defs": dict(sorted(defined.items())),
    }
    return json.dumps(whole, indent=1, ensure_ascii=False) + "\n"


def _object(cls: type[Any], defined: dict[str, Any]) -> dict[str, Any]:
    hints, notes = typing.get_type_hints(cls), _field_notes(cls)
    fields = dataclasses.fields(cls)
    needed = [
        f.name
        for f in fields
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ]
    properties = {}
    for field in fields:
        properties[field.name] = _value(hints[field.name], defined)
        if note := notes.get(field.name):
            properties[field.name] = {**properties[field.name], "description": note}
    return {
        "type": "object",
        "description": (inspect.getdoc(cls) or "").partition("\n")[0],
        "properties": properties,
        "required": sorted(needed),
        "additionalProperties": False,
    }


def _value(hint: Any, defined: dict[str, Any]) -> dict[str, Any]:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        cls = typing.cast("type[Any]", hint)
        if cls.__name__ not in defined:
            defined[cls.__name__] = {}  # holds the place of a class that names itself
            defined[cls.__name__] = _object(cls, defined)
        return {"$ref": f"#/$defs/{cls.__name__}"}
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin in (typing.Union, types.UnionType):
        return {"anyOf": [_value(one, defined) for one in arguments]}
    if origin is tuple:
        if len(arguments) == 2 and arguments[1] is ...:
            return {"type": "array", "items": _value(arguments[0], defined)}
        items = [_value(one, defined) for one in arguments]
        size = len(items)
        return {"type": "array", "prefixItems": items, "minItems": size, "maxItems": size}
    if origin in (dict, Mapping):
        return {"type": "object", "additionalProperties": _value(arguments[1], defined)}
    return dict(_PLAIN[hint])


def _field_notes(cls: type[Any]) -> dict[str, str]:
    """The line under each field, as the source has it."""
    (body,) = ast.parse(inspect.getsource(cls)).body
    assert isinstance(body, ast.ClassDef)
    notes = {}
    for field, note in zip(body.body, body.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            text = note.value if isinstance(note, ast.Expr) else None
            if isinstance(text, ast.Constant) and isinstance(text.value, str):
                notes[field.target.id] = " ".join(text.value.split())
    return notes


if __name__ == "__main__":
    for _name in PUBLISHED:
        Path(__file__).with_name(_name).write_text(schema_text(_name), encoding="utf-8")
