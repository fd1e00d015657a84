"""The ledger's parquet parts: written whole, named by their own hash, never changed.

A part is ``part-NUMBER-HASH.parquet``, HASH the BLAKE2b-128 of its bytes, so that any tear or
flipped bit is seen. A part made by merging names the parts it stands for; those still lying there
after a crash do not count.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from hummingbird_runtime.atomic import atomic_file
from hummingbird_train.curation.arrow import path_text, plain_text, pyarrow, text_path
from hummingbird_train.curation.row import Row, score_text

NAME = re.compile(r"part-([0-9]{8,})-([0-9a-f]{32})\.parquet")
DAMAGED = ".damaged"
_ROWS_BITS = 24  # a row's sequence is its part's number, then its place in the part
_REPLACES = b"hummingbird.replaces"
_COLUMNS = (
    ("clip_id", "large_string"),
    ("uri", "large_string"),
    ("stage", "large_string"),
    ("stage_version", "int32"),
    ("parameters", "large_string"),
    ("status", "large_string"),
    ("scores", "large_string"),
    ("error_code", "large_string"),
    ("error", "large_string"),
    ("seconds", "float64"),
    ("decode_seconds", "float64"),
    ("sequence", "int64"),
)


class DamagedPart(Exception):
    """A part whose bytes are not those that were written, or that is no part at all."""


def schema() -> Any:
    """The arrow schema of every part."""
    pa, _, _ = pyarrow()
    return pa.schema([(name, getattr(pa, kind)()) for name, kind in _COLUMNS])


def table_of(rows: Sequence[Row], number: int) -> Any:
    """Rows as the table of part ``number``."""
    pa, _, _ = pyarrow()
    if len(rows) >= 1 << _ROWS_BITS:
        raise ValueError(f"{len(rows)} rows in one part")
    columns = {
        "clip_id": [row.clip_id for row in rows],
        "uri": [path_text(row.uri) for row in rows],
        "stage": [row.stage for row in rows],
        "stage_version": [row.stage_version for row in rows],
        "parameters": [row.parameters for row in rows],
        "status": [row.status for row in rows],
        "scores": [score_text(row.scores) for row in rows],
        "error_code": [row.error_code for row in rows],
        "error": [plain_text(row.error) for row in rows],
        "seconds": [row.seconds for row in rows],
        "decode_seconds": [row.decode_seconds for row in rows],
        "sequence": [(number << _ROWS_BITS) + place for place in range(len(rows))],
    }
    return pa.table(columns, schema=schema())


def table_rows(table: Any) -> Iterator[Row]:
    """The rows of a table, in its order."""
    for batch in table.to_batches(max_chunksize=4096):
        for values in batch.to_pylist():
            del values["sequence"]
            values["uri"] = text_path(values["uri"])
            values["scores"] = json.loads(values["scores"])
            yield Row(**values)


def write_part(folder: Path, number: int, table: Any, replaces: Iterable[str] = ()) -> Path:
    """Write one part, synced, under its final name or not at all.

    Raises:
        ResourceError: the ``output.*`` codes (disk full, permission).
    """
    _, pq, _ = pyarrow()
    names = json.dumps(sorted(replaces)).encode()
    sink = io.BytesIO()
    pq.write_table(table.replace_schema_metadata({_REPLACES: names}), sink, compression="zstd")
    data = sink.getvalue()
    path = folder / f"part-{number:08d}-{_digest(data)}.parquet"
    with atomic_file(path) as partial:
        partial.write_bytes(data)
    return path


def read_part(path: Path) -> tuple[Any, frozenset[str]]:
    """The table of a part, and the names of the parts that it replaces.

    Raises:
        DamagedPart: what is wrong with it, in words.
        FileNotFoundError: it went away, as merged parts do.
    """
    pa, pq, _ = pyarrow()
    found = NAME.fullmatch(path.name)
    if found is None:
        raise DamagedPart("its name is not that of a part")
    data = path.read_bytes()
    if _digest(data) != found[2]:
        raise DamagedPart(f"its {len(data)} bytes are not those that were written")
    try:
        # One thread: a pool's thread that lets go of Python's bytes while Python ends is an abort.
        with pq.ParquetFile(pa.BufferReader(data), pre_buffer=False) as file:
            table = file.read(use_threads=False)
    except (pa.ArrowException, OSError) as error:
        raise DamagedPart("it is no parquet file") from error
    if not table.schema.equals(schema()):
        raise DamagedPart("its columns are not those of a ledger")
    replaced = json.loads((table.schema.metadata or {}).get(_REPLACES, b"[]"))
    return table, frozenset(replaced)


def part_number(path: Path) -> int:
    """The number in a part's name; 0 for any other file."""
    found = re.match(r"part-([0-9]{8,})-", path.name)
    return int(found[1]) if found else 0


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()
