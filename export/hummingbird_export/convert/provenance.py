"""Where converted weights come from, and under which terms: hashes, licence, and the notice."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hummingbird_runtime.errors import InputError, IntegrityError, UsageError

FETCH_RECORD = "fetch.json"
"""Written by ``hummingbird fetch`` beside what it downloads."""

NOTICE = (
    "The licences of the published weights of Hummingbird (AMD, RAIL-MS and AGPL-3.0) and "
    "VideoCrafter2 (research only, no commercial use) do not allow you to pass these weights on, "
    "in this or any other format."
)

_MAX_LICENCE = 1 << 20
_CHUNK = 8 << 20


@dataclass(frozen=True)
class Terms:
    """Licence of the weights as the caller states it."""

    name: str
    text: str


def read_terms(name: str | None, file: Path | None) -> Terms:
    """The licence that a conversion must be given.

    Raises:
        UsageError: ``convert.licence`` when the name or the file is missing or empty.
        InputError: ``recipe.unreadable`` for a file that is no text.
    """
    text = "" if file is None else _read_text(file)
    if not (name or "").strip() or not text.strip():
        raise UsageError(
            "convert.licence",
            f"licence of the weights, got {'no name' if not (name or '').strip() else 'no text'}, "
            "expected --licence NAME and --licence-file FILE",
            hint="as published: AMD's Hummingbird comes under RAIL-MS with AGPL-3.0, "
            "VideoCrafter2 under Apache-2.0 with a research-only clause; take the file from there",
        )
    return Terms((name or "").strip(), text.rstrip() + "\n")


def sha256_of(path: Path, *, watch: Callable[[], None] = lambda: None) -> str:
    """SHA-256 of a file; ``watch`` is called between chunks and may raise."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            watch()
    return digest.hexdigest()


def origin_of(path: Path, digest: str) -> dict[str, Any]:
    """Repository and revision of a file that ``hummingbird fetch`` brought, or nothing.

    Raises:
        IntegrityError: ``checkpoint.changed`` when the file is not the one that was fetched.
    """
    try:
        record = json.loads((path.parent / FETCH_RECORD).read_bytes())
        entry, repo, revision = record["files"][path.name], record["repo"], record["revision"]
        expected = entry["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    if expected != digest:
        raise IntegrityError(
            "checkpoint.changed",
            f"checkpoint {path}: got SHA-256 {digest}, expected {expected} of {FETCH_RECORD} "
            "beside it",
            hint="fetch it again",
        )
    return {"repo": str(repo), "revision": str(revision)}


def _read_text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_LICENCE + 1)
        if len(data) > _MAX_LICENCE:
            raise ValueError(f"more than {_MAX_LICENCE} bytes")
        return data.decode("utf-8")
    except (OSError, ValueError) as error:
        raise InputError(
            "recipe.unreadable",
            f"licence file {path}: got {error}, expected a text file",
            hint="check the path and the file's contents",
        ) from error
