"""SQLite index of a ledger: which clip has which stage behind it. Can be deleted at any time.

The parquet parts are the truth; the index remembers which of them it has read and is made again
when that does not fit the folder.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hummingbird_train.curation.arrow import plain_text
from hummingbird_train.curation.row import Row, Score, score_text

StageKey = tuple[str, int, str]
"""(stage, version, hash of the parameters)."""

_LAYOUT = 1
_TABLES = """
CREATE TABLE parts (name TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE stages (
    id INTEGER PRIMARY KEY, stage TEXT, version INTEGER, parameters TEXT,
    UNIQUE (stage, version, parameters));
CREATE TABLE rows (
    clip TEXT, stage INTEGER, status TEXT, cause TEXT, reason TEXT, scores TEXT, sequence INTEGER,
    PRIMARY KEY (clip, stage)) WITHOUT ROWID;
"""
_UPSERT = """
INSERT INTO rows VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (clip, stage) DO UPDATE SET
    status = excluded.status, cause = excluded.cause, reason = excluded.reason,
    scores = excluded.scores, sequence = excluded.sequence
WHERE excluded.sequence > rows.sequence
"""
_CHUNK = 500  # SQLite takes at least 999 placeholders


@dataclass(frozen=True)
class Known:
    """What the ledger holds of one stage on one clip."""

    status: str
    """as in the row."""
    cause: str
    """error code of a failure, or the stage that rejected the clip."""
    reason: str
    """one line."""
    scores: Mapping[str, Score]
    """as in the row."""


class Index:
    """One open index; every change is a transaction."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stages: dict[StageKey, int] = {}
        try:
            self._database = self._connect()
        except sqlite3.DatabaseError:
            self.clear()

    def clear(self) -> None:
        """Start from nothing."""
        with contextlib.suppress(AttributeError, sqlite3.Error):
            self._database.close()
        for suffix in ("", "-wal", "-shm", "-journal"):
            self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)
        self._database = self._connect()

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def parts(self) -> set[str]:
        """Names of the parts that were read into the index."""
        return {name for (name,) in self._database.execute("SELECT name FROM parts")}

    def add(self, part: str, rows: Iterable[tuple[Row, int]], replaces: Iterable[str] = ()) -> None:
        """Take in a part's rows, each with its sequence; the highest sequence of a key counts."""
        with self._database:
            self._database.execute("INSERT INTO parts VALUES (?)", (part,))
            self._database.executemany(
                "DELETE FROM parts WHERE name = ?", ((name,) for name in replaces)
            )
            self._database.executemany(_UPSERT, self._values(rows))

    def lookup(self, clips: Sequence[str]) -> dict[str, dict[StageKey, Known]]:
        """What is known of clips, by id; clips without rows are absent."""
        names = {number: key for key, number in self._stages.items()}
        found: dict[str, dict[StageKey, Known]] = {}
        for first in range(0, len(clips), _CHUNK):
            chunk = clips[first : first + _CHUNK]
            marks = ",".join("?" * len(chunk))
            query = (
                "SELECT clip, stage, status, cause, reason, scores FROM rows "
                f"WHERE clip IN ({marks})"
            )
            for clip, stage, status, cause, reason, scores in self._database.execute(query, chunk):
                known = Known(status, cause, reason, json.loads(scores))
                found.setdefault(clip, {})[names[stage]] = known
        return found

    def _connect(self) -> sqlite3.Connection:
        database = sqlite3.connect(self.path, check_same_thread=False)
        try:
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = NORMAL")
            (layout,) = database.execute("PRAGMA user_version").fetchone()
            (tables,) = database.execute("SELECT count(*) FROM sqlite_master").fetchone()
            if tables == 0:
                database.executescript(_TABLES)
                database.execute(f"PRAGMA user_version = {_LAYOUT}")
            elif layout != _LAYOUT:
                raise sqlite3.DatabaseError(f"layout {layout}")
            if database.execute("PRAGMA quick_check").fetchone() != ("ok",):
                raise sqlite3.DatabaseError("damaged")
            self._stages = {
                (stage, version, parameters): number
                for number, stage, version, parameters in database.execute("SELECT * FROM stages")
            }
        except sqlite3.DatabaseError:
            database.close()
            raise
        return database

    def _values(self, rows: Iterable[tuple[Row, int]]) -> Iterator[tuple[object, ...]]:
        for row, sequence in rows:
            stage = self._stage((row.stage, row.stage_version, row.parameters))
            scores = score_text(row.scores)
            reason = plain_text(row.error)
            yield row.clip_id, stage, row.status, row.error_code, reason, scores, sequence

    def _stage(self, key: StageKey) -> int:
        if key not in self._stages:
            number = len(self._stages) + 1
            self._database.execute("INSERT INTO stages VALUES (?, ?, ?, ?)", (number, *key))
            self._stages[key] = number
        return self._stages[key]
