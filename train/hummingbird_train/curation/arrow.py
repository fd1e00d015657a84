"""The door to pyarrow, and text as parquet can hold it: file names need not be UTF-8."""

from __future__ import annotations

import os
from types import ModuleType
from urllib.parse import quote_from_bytes, unquote_to_bytes

from hummingbird_runtime.cli.verbs import missing_extra

_RAW = "bytes:"  # before a percent-encoded name that is no UTF-8


def pyarrow() -> tuple[ModuleType, ModuleType, ModuleType]:
    """``pyarrow``, ``pyarrow.parquet`` and ``pyarrow.compute``.

    Raises:
        ResourceError: ``extra.missing``.
    """
    try:
        import pyarrow
        import pyarrow.compute
        import pyarrow.parquet
    except ModuleNotFoundError as error:
        raise missing_extra("hummingbird curate", "pyarrow", "curate") from error
    return pyarrow, pyarrow.parquet, pyarrow.compute


def path_text(path: str) -> str:
    """A path as valid Unicode; what is no UTF-8 becomes ``bytes:`` and percent codes."""
    if path.startswith(_RAW) or not _encodable(path):
        return _RAW + quote_from_bytes(os.fsencode(path))
    return path


def text_path(text: str) -> str:
    """The path that ``path_text`` was given."""
    return os.fsdecode(unquote_to_bytes(text[len(_RAW) :])) if text.startswith(_RAW) else text


def plain_text(text: str) -> str:
    """Any text as valid Unicode; stray bytes become question marks in a diamond."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _encodable(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
