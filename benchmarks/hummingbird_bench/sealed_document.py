"""JSON documents that hold raw measurements, what follows from them, and a SHA-256 over each.

The raw part is read strictly; the derived part is computed from it by a pure function, and is
computed again whenever the document is opened. This finds accidents and sloppy editing. It is no
signature: whoever edits the raw part can also write new derived figures and new hashes.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from hummingbird_runtime.atomic import atomic_file
from hummingbird_runtime.errors import InputError, IntegrityError, ResourceError, UsageError
from hummingbird_runtime.strict_json import parse_json, record

MAX_BYTES = 64 << 20
"""A report of a few hundred samples has some hundred kilobytes."""

CLOSE = 1e-9
"""Relative difference that another processor's last bits may make in a derived figure."""

_ADDED = ("derived", "sha256")

T = TypeVar("T")


@dataclass(frozen=True)
class Kind(Generic[T]):
    """One kind of document."""

    schema: str
    """what its key ``schema`` says, with the version"""
    raw: type[T]
    """frozen dataclass of every key but ``derived`` and ``sha256``"""
    derive: Callable[[T], Mapping[str, Any]]
    """pure; the derived part out of the raw part, made of JSON values"""


@dataclass(frozen=True)
class Sealed(Generic[T]):
    """A document that was read and held."""

    kind: Kind[T]
    raw: T
    """what was measured"""
    derived: Mapping[str, Any]
    """what follows, computed here and equal to what the file says"""
    sha256: str
    """of the raw part"""


def seal(kind: Kind[T], raw: Mapping[str, Any]) -> dict[str, Any]:
    """The whole document out of its raw part.

    Args:
        kind: what it is to be.
        raw: JSON values, or what ``dataclasses.asdict`` gives; checked against the kind.

    Raises:
        InputError: ``report.invalid``.
    """
    values = json.loads(canonical(raw, "the new document"))
    derived = json.loads(canonical(kind.derive(_record(kind, values, "the new document")), "it"))
    return {**values, "derived": derived, "sha256": _hashes(values, derived)}


def write(kind: Kind[T], raw: Mapping[str, Any], path: Path, *, overwrite: bool = False) -> None:
    """Seal and write as JSON, one key or list item a line where that stays readable.

    Raises:
        InputError: ``report.invalid``.
        UsageError, ResourceError: ``output.*``.
    """
    text = json.dumps(seal(kind, raw), ensure_ascii=False, indent=1, allow_nan=False)
    with atomic_file(path, overwrite=overwrite) as partial:
        partial.write_text(text + "\n", encoding="utf-8")


def open_sealed(path: str | os.PathLike[str], kinds: Mapping[str, Kind[Any]]) -> Sealed[Any]:
    """Read a document, check it against its schema, its hashes and its own raw part.

    Raises:
        InputError: ``report.invalid``, ``report.version``.
        IntegrityError: ``report.raw_changed``, ``report.derived_changed``.
        UsageError, ResourceError: ``report.not_found``, ``report.unreadable``.
    """
    return check_sealed(read_json(path), kinds, str(path))


def check_sealed(value: Any, kinds: Mapping[str, Kind[Any]], what: str) -> Sealed[Any]:
    """The same for a parsed document; ``what`` is its name in messages."""
    if not isinstance(value, dict) or not isinstance(value.get("schema"), str):
        raise invalid(what, "got no object with a text 'schema'")
    kind = kinds.get(value["schema"])
    if kind is None:
        raise InputError(
            "report.version",
            f"{what}: got schema {value['schema'][:60]!r}, expected {' or '.join(sorted(kinds))}",
            hint="use the release that wrote it",
        )
    raw = {key: item for key, item in value.items() if key not in _ADDED}
    parsed = _record(kind, raw, what)
    missing = [key for key in _ADDED if not isinstance(value.get(key), dict)]
    if missing:
        raise invalid(what, f"got no object {' and '.join(missing)}")
    found = _hashes(raw, value["derived"])
    if value["sha256"].get("raw") != found["raw"]:
        raise IntegrityError(
            "report.raw_changed",
            f"{what}: got SHA-256 {found['raw'][:16]}... of the raw part, expected "
            f"{str(value['sha256'].get('raw'))[:16]}...: a raw figure was edited",
            hint="take the file as it was written, or measure again",
        )
    derived = json.loads(canonical(kind.derive(parsed), what))
    differing = difference(derived, value["derived"], "derived")
    if differing or value["sha256"].get("derived") != found["derived"]:
        raise IntegrityError(
            "report.derived_changed",
            f"{what}: {differing or 'the SHA-256 of the derived part is another'}: "
            "it does not follow from the raw samples",
            hint="take the file as it was written, or derive it again from its samples",
        )
    return Sealed(kind, parsed, derived, found["raw"])


def read_json(path: str | os.PathLike[str]) -> Any:
    """One strict JSON document of at most ``MAX_BYTES``.

    Raises:
        InputError: ``report.invalid``.
        UsageError: ``report.not_found``.
        ResourceError: ``report.unreadable``.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (FileNotFoundError, IsADirectoryError) as error:
        raise UsageError(
            "report.not_found", f"got {str(path)[:200]!r}, expected a JSON file", hint="a file"
        ) from error
    except OSError as error:
        raise ResourceError(
            "report.unreadable", f"{path}: {error.strerror}", hint="check its permissions"
        ) from error
    try:
        return parse_json(data, what=str(path), limit=MAX_BYTES)
    except InputError as error:
        raise invalid("", error.message) from error


def read_record(cls: type[T], value: Any, what: str) -> T:
    """A parsed object as a frozen dataclass, see ``strict_json.record``.

    Raises:
        InputError: ``report.invalid``.
    """
    try:
        return record(cls, value, what)
    except InputError as error:
        raise invalid("", error.message) from error


def invalid(what: str, problem: str) -> InputError:
    """The error of a document that breaks its schema."""
    return InputError(
        "report.invalid",
        f"{what}: {problem}" if what else problem,
        hint="compare it with its schema in hummingbird_bench",
    )


def canonical(value: Any, what: str) -> bytes:
    """The one spelling that is hashed: sorted keys, no spaces, shortest floats, UTF-8.

    Raises:
        InputError: ``report.invalid`` for NaN, infinities and what JSON cannot say.
    """
    try:
        text = json.dumps(
            value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
        )
        return text.encode("utf-8")
    except (TypeError, ValueError) as error:
        raise invalid(what, f"not JSON: {error}") from error


def difference(expected: Any, got: Any, where: str) -> str:
    """The first place where two JSON values differ by more than ``CLOSE``, or nothing."""
    if isinstance(expected, dict) and isinstance(got, dict):
        if expected.keys() != got.keys():
            odd = sorted(expected.keys() ^ got.keys())
            return f"{where}: keys {', '.join(odd[:3])} stand in only one of the two"
        parts = [(f"{where}.{key}", expected[key], got[key]) for key in expected]
    elif isinstance(expected, list) and isinstance(got, list):
        if len(expected) != len(got):
            return f"{where}: got {len(got)} entries, expected {len(expected)}"
        parts = [(f"{where}[{i}]", *pair) for i, pair in enumerate(zip(expected, got, strict=True))]
    else:
        numbers = (int, float)
        both = type(expected) in numbers and type(got) in numbers
        same = math.isclose(expected, got, rel_tol=CLOSE) if both else expected == got
        if same and (both or type(expected) is type(got)):
            return ""
        return f"{where}: got {str(got)[:40]}, expected {str(expected)[:40]}"
    return next(filter(None, (difference(*part[1:], part[0]) for part in parts)), "")


def _record(kind: Kind[T], values: Mapping[str, Any], what: str) -> T:
    if values.get("schema") != kind.schema:
        raise invalid(what, f"got schema {values.get('schema')!r}, expected {kind.schema!r}")
    return read_record(kind.raw, dict(values), what)


def _hashes(raw: Mapping[str, Any], derived: Any) -> dict[str, str]:
    return {
        name: hashlib.sha256(canonical(value, name)).hexdigest()
        for name, value in (("raw", raw), ("derived", derived))
    }
