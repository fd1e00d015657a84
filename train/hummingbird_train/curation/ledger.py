"""The ledger of a curation run: every (clip, stage, version, parameters) once, never overwritten.

Append-only parquet parts are the truth, an SQLite index beside them answers "what is missing" and
is made again when it does not fit. One process writes at a time; any number may read meanwhile.
A part that is torn or foreign is set aside, so that its clips are measured again.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import sqlite3
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from hummingbird_runtime.errors import (
    HummingbirdError,
    InputError,
    IntegrityError,
    ResourceError,
    UsageError,
)
from hummingbird_runtime.output import check_parent, output_error
from hummingbird_train.curation.arrow import pyarrow
from hummingbird_train.curation.ledger_index import Index, Known, StageKey
from hummingbird_train.curation.ledger_parts import (
    DAMAGED,
    DamagedPart,
    part_number,
    read_part,
    table_of,
    table_rows,
    write_part,
)
from hummingbird_train.curation.row import OK, Row, Score, canonical_line

__all__ = ["Known", "Ledger", "Row", "Score", "StageKey"]

FOLDER = "ledger"
STAGES_FILE = "stages.json"
_INDEX, _LOCK = "index.sqlite", "writer.lock"
_SMALL_BYTES = 1 << 22
_SMALL_PARTS = 64
_KEY = ("clip_id", "stage", "stage_version", "parameters")


class Ledger:
    """An open ledger; a context manager. Make one with ``Ledger.open``.

    Attributes:
        notes: one line for every part that was set aside or left out.
    """

    def __init__(self, folder: Path, index: Index | None, lock: sqlite3.Connection | None) -> None:
        self._folder = folder
        self._index = index
        self._lock = lock
        self._number = 0
        self.notes: list[str] = []

    @classmethod
    def open(cls, folder: str | os.PathLike[str], *, write: bool = False) -> Ledger:
        """Open the ledger of a run.

        Args:
            folder: the run's folder; the ledger lies in its sub-folder ``ledger``.
            write: whether rows will be appended. Makes the ledger when there is none, takes the
                lock, sets damaged parts aside, sweeps what a killed writer left.

        Raises:
            InputError: ``ledger.missing`` when there is nothing to read.
            ResourceError: ``ledger.busy`` when another process writes; ``output.*``.
        """
        path = Path(folder) / FOLDER
        if not write:
            if not path.is_dir():
                raise InputError(
                    "ledger.missing",
                    f"run {folder}: got no ledger in it, expected a folder that was scored",
                    hint="run `hummingbird curate score SOURCE -o RUN` first",
                )
            return cls(path, None, None)
        check_parent(path)
        try:
            path.mkdir(exist_ok=True)
            check_parent(path / _LOCK)
            lock = _take_lock(path / _LOCK)
        except OSError as error:
            raise output_error(error, path) from error
        try:
            with _writing(path):
                ledger = cls(path, Index(path / _INDEX), lock)
                ledger._recover()
        except BaseException:
            lock.close()
            raise
        return ledger

    def close(self) -> None:
        """Give the lock back; a second call does nothing."""
        if self._index is not None:
            self._index.close()
        if self._lock is not None:
            self._lock.close()
        self._index = self._lock = None

    def __enter__(self) -> Ledger:
        """The ledger itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it."""
        self.close()

    def append(self, rows: Sequence[Row]) -> None:
        """Write rows as one part: all of them are there afterwards, or none.

        A row may follow a ``failed`` or ``skipped`` one of the same key and counts in its stead.

        Raises:
            IntegrityError: ``ledger.doubled`` when a key is ``ok`` already, or comes twice.
            ResourceError: ``output.disk_full`` and the other ``output.*`` codes.
        """
        index = self._writable()
        if not rows:
            return
        self._refuse_doubles(index, rows)
        with _writing(self._folder):
            number = self._number + 1
            table = table_of(rows, number)
            path = write_part(self._folder, number, table)
            self._number = number
            index.add(path.name, zip(rows, table.column("sequence").to_pylist(), strict=True))

    def lookup(self, clips: Sequence[str]) -> dict[str, dict[StageKey, Known]]:
        """What is known of clips, by clip id and (stage, version, parameters); needs ``write``."""
        return self._writable().lookup(clips)

    def merge(self, *, small: int = _SMALL_PARTS) -> int:
        """Put small parts together once there are more than ``small``; returns how many.

        A crash in the middle leaves the old parts, or the new one that replaces them.
        """
        index = self._writable()
        pa, _, _ = pyarrow()
        chosen = [path for path in self._paths() if path.stat().st_size < _SMALL_BYTES]
        if len(chosen) <= small:
            return 0
        with _writing(self._folder):
            number, names = self._number + 1, [path.name for path in chosen]
            merged = _newest(pa.concat_tables([read_part(path)[0] for path in chosen]))
            path = write_part(self._folder, number, merged, names)
            self._number = number
            index.add(path.name, (), names)
            for old in chosen:
                old.unlink()
        return len(chosen)

    def done(self) -> set[tuple[str, str, int, str]]:
        """Every (clip id, stage, version, parameters) that has a row."""
        table = self._table("status")
        return set(zip(*(table.column(name).to_pylist() for name in _KEY), strict=True))

    def rows(self) -> Iterator[Row]:
        """The row that counts for every key, sorted by key."""
        return table_rows(self._table())

    def stored_rows(self) -> int:
        """Rows lying in the parts, those that no longer count among them."""
        return sum(table.num_rows for table in self._tables())

    def scores(
        self, stages: Mapping[str, tuple[int, str]] | None = None
    ) -> dict[str, dict[str, Score]]:
        """Scores by clip id, then by ``stage.key``; a clip that has rows but no score is there too.

        Args:
            stages: (version, parameters) by stage. None takes those of the run's last `score`,
                and without a record of it the newest row of each clip and stage.
        """
        stages = self._last_stages() if stages is None else stages
        table = self._table("status", "scores")
        if stages is None:
            table = _newest(table, _KEY[:2])
        found: dict[str, dict[str, Score]] = {}
        names = (*_KEY, "status", "scores")
        for clip, stage, version, parameters, status, text in zip(
            *(table.column(name).to_pylist() for name in names), strict=True
        ):
            if stages is not None and stages.get(stage) != (version, parameters):
                continue
            of_clip = found.setdefault(clip, {})
            if status == OK:
                for key, value in json.loads(text).items():
                    of_clip[sys.intern(f"{stage}.{key}")] = value
        return found

    def canonical(self) -> bytes:
        """The rows that count as JSON lines, sorted by key, without timings."""
        return "".join(canonical_line(row) + "\n" for row in self.rows()).encode()

    def _last_stages(self) -> dict[str, tuple[int, str]] | None:
        try:
            text = (self._folder.parent / STAGES_FILE).read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        return {s["name"]: (s["version"], s["hash"]) for s in json.loads(text)["stages"]}

    def _writable(self) -> Index:
        if self._index is None:
            raise UsageError(
                "ledger.closed",
                f"ledger {self._folder}: got a ledger that is closed or open for reading only",
                hint="open it with Ledger.open(folder, write=True)",
            )
        return self._index

    def _refuse_doubles(self, index: Index, rows: Sequence[Row]) -> None:
        known = index.lookup(sorted({row.clip_id for row in rows}))
        seen: set[tuple[str, str, int, str]] = set()
        for row in rows:
            old = known.get(row.clip_id, {}).get((row.stage, row.stage_version, row.parameters))
            if row.key in seen or (old is not None and old.status == OK):
                raise IntegrityError(
                    "ledger.doubled",
                    f"clip {row.clip_id}: got stage {row.stage} a second time, expected once",
                    hint="this is a fault of ours; please report it",
                )
            seen.add(row.key)

    def _paths(self) -> list[Path]:
        return sorted(path for path in self._folder.glob("*.parquet") if path.name[0] != ".")

    def _recover(self) -> None:
        """Sweep, set damaged parts aside, and bring the index up to the parts."""
        index = self._writable()
        for stale in self._folder.glob(".hummingbird-*.partial*"):
            stale.unlink()
        self._number = max((part_number(path) for path in self._folder.iterdir()), default=0)
        parts: dict[str, Any] = {}
        replaced: set[str] = set()
        for path in self._paths():
            try:
                parts[path.name], replaces = read_part(path)
                replaced |= replaces
            except DamagedPart as damage:
                aside = path.with_name(path.name + DAMAGED)
                os.replace(path, aside)
                self.notes.append(f"{path.name}: {damage}; set aside as {aside.name}")
        for name in replaced & parts.keys():
            (self._folder / name).unlink()
            del parts[name]
        with contextlib.suppress(sqlite3.DatabaseError):
            self._fill(index, parts)
            return
        index.clear()
        self._fill(index, parts)

    def _fill(self, index: Index, parts: Mapping[str, Any]) -> None:
        if not index.parts() <= parts.keys():
            index.clear()
        for name in sorted(parts.keys() - index.parts()):
            sequences = parts[name].column("sequence").to_pylist()
            index.add(name, zip(table_rows(parts[name]), sequences, strict=True))

    def _tables(self) -> list[Any]:
        for _ in range(10):  # a writer may merge parts between the listing and the reading
            with contextlib.suppress(FileNotFoundError):
                return self._read_all()
        raise ResourceError(
            "ledger.busy",
            f"ledger {self._folder}: got parts that changed while they were read, ten times",
            hint="try again when the run that writes it is done",
        )

    def _read_all(self) -> list[Any]:
        tables: dict[str, Any] = {}
        replaced: set[str] = set()
        for path in self._paths():
            try:
                tables[path.name], replaces = read_part(path)
                replaced |= replaces
            except DamagedPart as damage:
                note = f"{path.name}: {damage}; left out"
                if note not in self.notes:
                    self.notes.append(note)
        return [table for name, table in tables.items() if name not in replaced]

    def _table(self, *columns: str) -> Any:
        """The rows that count, sorted by key; of ``columns`` and the key only, if any are named."""
        pa, _, _ = pyarrow()
        tables = [t.replace_schema_metadata(None) for t in self._tables() or [table_of([], 0)]]
        if columns:
            tables = [table.select([*_KEY, *columns, "sequence"]) for table in tables]
        return _newest(pa.concat_tables(tables))


def _newest(table: Any, key: Sequence[str] = _KEY) -> Any:
    """Sort by key and keep the row with the highest sequence of each."""
    pa, _, pc = pyarrow()
    order = [(name, "ascending") for name in key]
    table = table.sort_by([*order, ("sequence", "descending")]).combine_chunks()
    if table.num_rows < 2:
        return table
    changes = None
    for name in key:
        column = table.column(name)
        differs = pc.not_equal(column.slice(1), column.slice(0, table.num_rows - 1))
        changes = differs if changes is None else pc.or_(changes, differs)
    first = pa.chunked_array([pa.array([True]), *changes.chunks])
    return table.filter(first)


def _take_lock(path: Path) -> sqlite3.Connection:
    """Hold SQLite's exclusive lock on a file: portable, and gone with the process that had it."""
    lock = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
    try:
        lock.execute("BEGIN EXCLUSIVE")
    except sqlite3.OperationalError as error:
        lock.close()
        if getattr(error, "sqlite_errorname", "").startswith("SQLITE_BUSY"):
            raise ResourceError(
                "ledger.busy",
                f"ledger {path.parent}: got another process writing to it, expected none",
                hint="wait for it, or score into another folder",
            ) from error
        raise _database_error(error, path) from error
    return lock


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise _database_error(error, folder / _INDEX) from error
    except OSError as error:
        raise output_error(error, folder) from error


def _database_error(error: sqlite3.Error, path: Path) -> HummingbirdError:
    name = getattr(error, "sqlite_errorname", "")
    if name.startswith("SQLITE_FULL"):
        return output_error(OSError(errno.ENOSPC, str(error)), path)
    if name.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM")):
        return output_error(OSError(errno.EACCES, str(error)), path)
    return output_error(OSError(errno.EIO, str(error)), path)
