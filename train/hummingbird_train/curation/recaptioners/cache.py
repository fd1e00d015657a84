"""Rewrites that were paid for once: an SQLite file in the run's folder, safe against a kill.

Keyed by the recaptioner's identity (kind, model, instruction, parameters) and the original caption,
so equal captions are asked for once and another model never reads this one's answers.
"""

from __future__ import annotations

import errno
import hashlib
import sqlite3
from collections.abc import Iterable, Mapping
from pathlib import Path

from hummingbird_runtime.errors import InputError
from hummingbird_runtime.output import output_error

FILE = "captions.sqlite"


class CaptionCache:
    """An open cache; ``close`` or ``with`` ends it.

    Args:
        path: the file, made when absent.

    Raises:
        InputError: ``recaption.cache`` for a file that is no such cache.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._base = sqlite3.connect(path, timeout=30.0, check_same_thread=False)
            self._base.execute("PRAGMA journal_mode=WAL")
            self._base.execute("CREATE TABLE IF NOT EXISTS rewrites (key BLOB PRIMARY KEY, text)")
            self._base.commit()
        except sqlite3.DatabaseError as error:
            raise InputError(
                "recaption.cache",
                f"cache {path}: {error}, expected one that `curate recaption` wrote",
                hint="delete the file; what it held is asked for again",
            ) from error

    def find(self, identity: str, captions: Iterable[str]) -> dict[str, str]:
        """The rewrites that are known, by original caption."""
        found: dict[str, str] = {}
        for caption in captions:
            row = self._base.execute(
                "SELECT text FROM rewrites WHERE key = ?", (_key(identity, caption),)
            ).fetchone()
            if row is not None:
                found[caption] = str(row[0])
        return found

    def add(self, identity: str, rewrites: Mapping[str, str]) -> None:
        """Keep rewrites; they are on disk afterwards.

        Raises:
            ResourceError: ``output.disk_full`` and the like.
        """
        try:
            with self._base:
                self._base.executemany(
                    "INSERT OR REPLACE INTO rewrites VALUES (?, ?)",
                    [(_key(identity, original), text) for original, text in rewrites.items()],
                )
        except sqlite3.OperationalError as error:
            number = errno.ENOSPC if "full" in str(error) else errno.EIO
            raise output_error(OSError(number, str(error)), self._path) from error

    def close(self) -> None:
        """Close the file."""
        self._base.close()

    def __enter__(self) -> CaptionCache:
        """The cache itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()


def _key(identity: str, caption: str) -> bytes:
    text = f"{len(identity)}:{identity}{caption}".encode("utf-8", "surrogatepass")
    return hashlib.blake2b(text, digest_size=16).digest()
