"""A clip and where clips come from: a folder of videos, CSV/TSV, JSONL (data-juicer too), parquet.

A clip is a span of one video file with its caption. Its id names the bytes it was read from: path,
span, size and time of change, so an edited file is a new clip. Nothing is decoded here.
"""

from __future__ import annotations

import csv
import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from hummingbird_runtime.errors import InputError, ResourceError

VIDEO_SUFFIXES = frozenset(
    {
        ".mp4",
        ".m4v",
        ".mov",
        ".mkv",
        ".webm",
        ".avi",
        ".mpg",
        ".mpeg",
        ".ts",
        ".ogv",
        ".flv",
        ".wmv",
    }
)
# Columns by meaning, first match wins; every other column goes into Clip.meta.
PATH_COLUMNS = ("uri", "path", "video", "video_path", "file", "filename", "filepath")
CAPTION_COLUMNS = ("caption", "text", "prompt", "name")
START_COLUMNS = ("start", "start_time")
END_COLUMNS = ("end", "end_time")
DJ_VIDEO, DJ_CHUNK_END = "<__dj__video>", "<|__dj__eoc|>"  # data-juicer's special tokens

_LONGEST_FIELD = 1 << 20  # characters of one CSV cell


@dataclass(frozen=True)
class Clip:
    """A span of one video file and what it is said to show."""

    id: str
    """32 hexadecimal digits, see ``clip_id``."""
    uri: str
    """path of the file."""
    start: float = 0.0
    """seconds from the first frame."""
    end: float | None = None
    """seconds, not included; None: to the end of the file."""
    caption: str = ""
    """as found beside the video."""
    meta: Mapping[str, str] = field(default_factory=dict)
    """every other column of the source."""


def clip_id(uri: str, start: float, end: float | None, size: int, mtime_ns: int) -> str:
    """Name a clip by what it was read from: BLAKE2b of 16 bytes, in hexadecimal.

    Args:
        uri: path as the clip carries it.
        start: seconds.
        end: seconds or None.
        size: bytes of the file; -1 when there is none.
        mtime_ns: time of change, nanoseconds.
    """
    parts = (uri, repr(float(start)), repr(None if end is None else float(end)), size, mtime_ns)
    text = "\0".join(map(str, parts))
    return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()


def make_clip(
    path: Path | str,
    *,
    start: float = 0.0,
    end: float | None = None,
    caption: str = "",
    meta: Mapping[str, str] | None = None,
) -> Clip:
    """Describe a span of a file; a file that is not there still gives a clip, which fails later."""
    uri = os.path.abspath(path)
    try:
        facts = os.stat(uri)
        size, changed = facts.st_size, facts.st_mtime_ns
    except (OSError, ValueError):
        size, changed = -1, 0
    name = clip_id(uri, start, end, size, changed)
    return Clip(name, uri, float(start), end, caption, dict(meta or {}))


def read_clips(source: Path) -> Iterator[Clip]:
    """List the clips of a source, in its own order (a folder: sorted by path).

    Args:
        source: a folder, searched for video files at every depth, a caption in ``NAME.txt`` beside
            ``NAME.mp4``; or a ``.csv``, ``.tsv``, ``.jsonl`` or ``.parquet`` table, whose relative
            paths are taken from the table's own folder. WebVid's ``page_dir``/``videoid`` columns
            mean ``videos/PAGE_DIR/VIDEOID.mp4``.

    Yields:
        One Clip a row; in data-juicer's JSONL one for every entry of ``videos``.

    Raises:
        InputError: ``clip.source``, ``clip.row`` (names the row), ``clip.empty`` (no clip at all).
    """
    source = Path(source)
    if not source.exists():
        raise InputError(
            "clip.source",
            f"no clips there, got {str(source)!r}, expected a folder or a table",
            hint="pass a folder of videos, or a .csv, .tsv, .jsonl or .parquet file",
        )
    found = False
    for clip in _folder(source) if source.is_dir() else _table(source):
        found = True
        yield clip
    if not found:
        raise InputError(
            "clip.empty",
            f"{source}: got no clip, expected at least one",
            hint=f"video files end in {', '.join(sorted(VIDEO_SUFFIXES))}",
        )


def _folder(source: Path) -> Iterator[Clip]:
    def refuse(error: OSError) -> None:
        raise ResourceError(
            "clip.unreadable",
            f"a folder cannot be listed, got {error.filename!r}: {error.strerror}",
            hint="check its permissions",
        ) from error

    for folder, folders, names in os.walk(source, onerror=refuse):
        folders.sort()
        for name in sorted(names):
            path = Path(folder, name)
            if path.suffix.lower() in VIDEO_SUFFIXES:
                beside = path.with_suffix(".txt")
                text = beside.read_text("utf-8", "replace").strip() if beside.is_file() else ""
                yield make_clip(path, caption=text)


def _table(source: Path) -> Iterator[Clip]:
    readers = {".csv": _csv, ".tsv": _csv, ".jsonl": _jsonl, ".parquet": _parquet}
    reader = readers.get(source.suffix.lower())
    if reader is None:
        raise InputError(
            "clip.source",
            f"not a table of clips, got {source.name!r}, expected one of {', '.join(readers)}",
            hint="pass a folder of videos or such a table",
        )
    for number, row in reader(source):
        try:
            yield from _row(row, source.parent)
        except (TypeError, ValueError, KeyError) as error:
            raise _bad_row(source, number, str(error)) from error


def _bad_row(source: Path, number: int, why: str) -> InputError:
    return InputError(
        "clip.row",
        f"{source.name} row {number}: got {why[:200]}, expected a path and numbers for its span",
        hint=f"a path stands in one of the columns {', '.join(PATH_COLUMNS)}",
    )


def _row(row: Mapping[str, object], folder: Path) -> Iterator[Clip]:
    used = set[str]()

    def take(names: tuple[str, ...]) -> object:
        for name in names:
            if row.get(name) not in (None, ""):
                used.add(name)
                return row[name]
        return None

    start, end = _seconds(take(START_COLUMNS)), _seconds(take(END_COLUMNS))
    if end is not None and end <= (start or 0.0):
        raise ValueError(f"a span from {start} to {end}")
    caption = str(take(CAPTION_COLUMNS) or "")
    videos = row.get("videos")
    if isinstance(videos, list):
        used.add("videos")
        pairs = list(zip(videos, _chunk_captions(caption, len(videos)), strict=True))
    else:
        pairs = [(take(PATH_COLUMNS) or _webvid(row, used), caption)]
    meta = {
        key: value if isinstance(value, str) else json.dumps(value, default=str)
        for key, value in row.items()
        if key not in used and value not in (None, "")
    }
    for path, text in pairs:
        if not isinstance(path, str) or not path or "\0" in path:
            raise ValueError(f"the path {path!r}")
        yield make_clip(folder / path, start=start or 0.0, end=end, caption=text, meta=meta)


def _webvid(row: Mapping[str, object], used: set[str]) -> str:
    if not row.get("videoid"):
        raise ValueError(f"no path in the columns {', '.join(map(str, row))}")
    used.update({"page_dir"} & row.keys())
    return f"videos/{row.get('page_dir') or ''}/{row['videoid']}.mp4".replace("//", "/")


def _chunk_captions(text: str, count: int) -> list[str]:
    """Give each video of a data-juicer sample the text of the chunk that names it."""
    captions = list[str]()
    for chunk in text.split(DJ_CHUNK_END):
        captions += [" ".join(chunk.replace(DJ_VIDEO, " ").split())] * chunk.count(DJ_VIDEO)
    if not captions:
        return [text.strip()] * count
    if len(captions) != count:
        raise ValueError(f"{len(captions)} {DJ_VIDEO} in the text and {count} videos")
    return captions


def _seconds(value: object) -> float | None:
    if value is None:
        return None
    seconds = float(value)  # type: ignore[arg-type]
    if not math.isfinite(seconds) or seconds < 0:
        raise ValueError(f"the time {value!r}")
    return seconds


def _csv(source: Path) -> Iterator[tuple[int, Mapping[str, object]]]:
    csv.field_size_limit(_LONGEST_FIELD)
    delimiter = "\t" if source.suffix.lower() == ".tsv" else ","
    with source.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as stream:
        reader = csv.DictReader(stream, delimiter=delimiter)
        number = 1
        while True:
            number += 1
            try:
                row = next(reader, None)
            except csv.Error as error:
                raise _bad_row(source, number, str(error)) from error
            if row is None:
                return
            if None in row or None in row.values():
                raise _bad_row(source, number, "more or fewer cells than the header has")
            yield number, row


def _jsonl(source: Path) -> Iterator[tuple[int, Mapping[str, object]]]:
    with source.open(encoding="utf-8", errors="surrogateescape") as stream:
        for number, line in enumerate(stream, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise _bad_row(source, number, f"no JSON ({error})") from error
            if not isinstance(row, dict):
                raise _bad_row(source, number, f"a JSON {type(row).__name__}")
            yield number, row


def _parquet(source: Path) -> Iterator[tuple[int, Mapping[str, object]]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        number = 0
        for batch in pq.ParquetFile(source).iter_batches(batch_size=1024):
            for row in batch.to_pylist():
                number += 1
                yield number, row
    except (pa.ArrowException, OSError) as error:
        raise InputError(
            "clip.source",
            f"{source.name}: got no readable parquet ({error}), expected a table of clips",
            hint="write it again",
        ) from error
