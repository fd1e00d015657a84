"""Which clips a source holds: WebDataset shards, a folder, or a table of paths and captions.

Only names are read here, never pixels. A member of a shard is addressed by its bytes in the tar, so
any clip of any shard is one seek away and nothing has to be unpacked or read in order.
"""

from __future__ import annotations

import csv
import json
import math
import os
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from hummingbird_runtime.errors import InputError

VIDEOS = (".mp4", ".webm", ".mkv", ".mov", ".avi", ".m4v")
IMAGES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".apng")
ARRAYS = (".npy",)
MEDIA = (*VIDEOS, *ARRAYS, *IMAGES)
"""Suffixes of what is a clip; a key with several takes the first of this order."""

PATH_COLUMNS = ("path", "file_name", "video", "file", "uri")
CAPTION_COLUMNS = ("caption", "text", "name")
TABLES = ("metadata.csv", "metadata.jsonl")
MAX_TEXT = 1 << 20


@dataclass(frozen=True)
class Place:
    """Bytes of a file."""

    path: Path
    offset: int = 0
    size: int | None = None
    """None: to the end of the file."""

    def read(self) -> bytes:
        """All of them; ``OSError`` as the system raises it."""
        with self.path.open("rb") as file:
            file.seek(self.offset)
            return file.read(-1 if self.size is None else self.size)

    def identity(self) -> tuple[str, int, int, int]:
        """Name, place, size and time of change: what a cache of it depends on."""
        state = self.path.stat()
        size = state.st_size if self.size is None else self.size
        return self.path.name, self.offset, size, state.st_mtime_ns


@dataclass(frozen=True)
class Entry:
    """One clip or image that has not been opened."""

    key: str
    """Unique in its source."""
    caption: str
    """Empty where the source has none."""
    place: Place
    suffix: str
    """One of ``MEDIA``."""
    fps: float | None = None
    """As the source says; None leaves it to the file."""


def read_entries(source: str | os.PathLike[str]) -> tuple[Entry, ...]:
    """List a source.

    Args:
        source: a folder with ``*.tar`` shards in it or in ``shards/``; a folder with
            ``metadata.csv`` or ``metadata.jsonl``; a folder of videos and images with captions
            in ``.txt`` beside them; one ``.tar``; or a ``.csv``, ``.tsv`` or ``.jsonl``
            table with a path and a caption.

    Returns:
        Entries in a stable order: shards and files by name, rows as they stand.

    Raises:
        InputError: ``data.source`` for what is no source, ``data.empty`` for none, ``data.row`` for
            a row or a member that cannot be used.
    """
    path = Path(source)
    if path.is_dir():
        entries = list(_folder(path))
    elif path.suffix == ".tar" and path.is_file():
        entries = list(_shard(path))
    elif path.suffix in (".csv", ".tsv", ".jsonl") and path.is_file():
        entries = list(_table(path))
    else:
        raise InputError(
            "data.source",
            f"data {str(path)[:200]!r}: got no folder, shard or table, expected one",
            hint="give a folder, a .tar, or a .csv, .tsv or .jsonl with a path and a caption",
        )
    if not entries:
        raise InputError(
            "data.empty",
            f"data {path}: got no clips, expected files ending in {', '.join(MEDIA)}",
            hint="see the page on data for the layouts that are read",
        )
    seen: set[str] = set()
    for entry in entries:
        if entry.key in seen:
            raise _row(path, entry.key, "got this key twice", "give every clip a name of its own")
        seen.add(entry.key)
    return tuple(entries)


def _folder(folder: Path) -> Iterator[Entry]:
    shards = sorted(folder.glob("*.tar")) or sorted(folder.glob("shards/*.tar"))
    if shards:
        for shard in shards:
            yield from _shard(shard)
        return
    for name in TABLES:
        if (folder / name).is_file():
            yield from _table(folder / name)
            return
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in MEDIA and path.is_file():
            caption = path.with_suffix(".txt")
            text = _text(Place(caption), folder) if caption.is_file() else ""
            key = path.relative_to(folder).as_posix()
            yield Entry(key, text, Place(path), path.suffix.lower())


def _shard(path: Path) -> Iterator[Entry]:
    """Members of a WebDataset shard, grouped by the name before the first dot."""
    groups: dict[str, dict[str, Place]] = {}
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                if member.isfile():
                    folder, slash, name = member.name.rpartition("/")
                    stem, dot, suffix = name.partition(".")
                    place = Place(path, member.offset_data, member.size)
                    groups.setdefault(folder + slash + stem, {})[dot + suffix.lower()] = place
    except (tarfile.TarError, OSError) as error:
        raise InputError(
            "data.source",
            f"shard {path}: {error}, expected an uncompressed tar file",
            hint="write the shard again",
        ) from error
    for name, parts in groups.items():
        suffix = next((s for s in MEDIA if s in parts), None)
        if suffix is None:
            raise _row(path, name, f"got members {sorted(parts)}", "add the clip, or drop the key")
        facts = _facts(parts[".json"], path) if ".json" in parts else {}
        given = next((facts[c] for c in CAPTION_COLUMNS if isinstance(facts.get(c), str)), "")
        caption = _text(parts[".txt"], path) if ".txt" in parts else str(given).strip()
        fps = _fps(facts.get("fps"), path, name)
        yield Entry(f"{path.stem}/{name}", caption, parts[suffix], suffix, fps)


def _table(path: Path) -> Iterator[Entry]:
    for number, row in _rows(path):
        where = f"row {number}"
        given = next((row[c] for c in PATH_COLUMNS if row.get(c)), None)
        if not isinstance(given, str):
            raise _row(
                path, where, f"got columns {sorted(map(str, row))[:8]}",
                f"name a file in one of {', '.join(PATH_COLUMNS)}",
            )  # fmt: skip
        file = path.parent / given
        if file.suffix.lower() not in MEDIA:
            raise _row(path, where, f"got {given[:80]!r}", f"use one of {', '.join(MEDIA)}")
        caption = next((row[c] for c in CAPTION_COLUMNS if isinstance(row.get(c), str)), "")
        fps = _fps(row.get("fps"), path, where)
        yield Entry(f"{number}:{given}", caption.strip(), Place(file), file.suffix.lower(), fps)


def _rows(path: Path) -> Iterator[tuple[int, Mapping[str, object]]]:
    """Rows of a table, counted from 1, the header not among them."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            if path.suffix == ".jsonl":
                for number, line in enumerate(file, 1):
                    if line.strip():
                        row = json.loads(line)
                        if not isinstance(row, dict):
                            raise _row(path, f"row {number}", "got no object", "write an object")
                        yield number, row
            else:
                delimiter = "\t" if path.suffix == ".tsv" else ","
                yield from enumerate(csv.DictReader(file, delimiter=delimiter, strict=True), 1)
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(
            "data.source",
            f"table {path}: {error}, expected UTF-8 rows with a path and a caption",
            hint="correct the table",
        ) from error


def _text(place: Place, source: Path) -> str:
    try:
        text = place.read()[:MAX_TEXT].decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise _row(source, place.path.name, f"got {error}", "write the caption in UTF-8") from error
    return " ".join(text.split())


def _facts(place: Place, source: Path) -> dict[str, object]:
    try:
        facts = json.loads(place.read())
    except (OSError, ValueError) as error:
        raise _row(source, place.path.name, f"got {error}", "write one JSON object") from error
    return facts if isinstance(facts, dict) else {}


def _fps(value: object, source: Path, where: str) -> float | None:
    if value in (None, ""):
        return None
    try:
        fps = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        fps = math.nan
    if not 0 < fps < 1000:
        raise _row(source, where, f"got fps {value!r:.40}", "give frames per second, or nothing")
    return fps


def _row(source: Path, where: str, got: str, hint: str) -> InputError:
    return InputError(
        "data.row", f"data {source}: {where[:120]}: {got}, expected a clip", hint=hint
    )
