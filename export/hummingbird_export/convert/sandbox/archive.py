"""The zip files that torch.save writes: one pickle and one stored entry per storage.

Only what torch writes is accepted: no compression, no encryption, no entry twice, no overlap. So
the bytes that are read are never more than those of the file.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from typing import BinaryIO

from hummingbird_export.convert.sandbox.values import Malformed, Refused

MAX_ENTRIES = 100_000
MAX_PICKLE = 64 << 20
"""Bytes of the pickle; tensors lie outside it. A published module has about 3 MiB."""

_LOCAL_HEADER = 30
_ENCRYPTED = 0x1


@dataclass(frozen=True)
class Archive:
    """Where everything lies in the file."""

    pickle: bytes
    storages: dict[str, tuple[int, int]]
    """Key -> (first byte in the file, number of bytes)."""


def read_archive(file: BinaryIO, size: int) -> Archive:
    """Find and check the entries of a torch archive.

    Args:
        file: the whole file, opened for reading.
        size: its number of bytes.

    Raises:
        Refused: for an archive that torch.save would not write, or one that holds a program.
        Malformed: for a damaged archive.
    """
    try:
        with zipfile.ZipFile(file) as zipped:
            entries = zipped.infolist()
            where = _locate(file, size, entries)
            root = _root(where)
            pickled = f"{root}/data.pkl"
            if where[pickled][1] > MAX_PICKLE:
                raise Refused(f"a pickle of {where[pickled][1]} bytes, more than {MAX_PICKLE}")
            order = f"{root}/byteorder"
            if order in where and zipped.read(order) != b"little":
                raise Malformed("an archive of a big-endian machine")
            data = zipped.read(pickled)  # checks its CRC
    except zipfile.BadZipFile as error:
        raise Malformed(f"a damaged archive: {error}") from error
    folder = f"{root}/data/"
    storages = {n.removeprefix(folder): w for n, w in where.items() if n.startswith(folder)}
    return Archive(data, storages)


def _locate(
    file: BinaryIO, size: int, entries: list[zipfile.ZipInfo]
) -> dict[str, tuple[int, int]]:
    if len(entries) > MAX_ENTRIES:
        raise Refused(f"an archive of {len(entries)} entries, more than {MAX_ENTRIES}")
    where: dict[str, tuple[int, int]] = {}
    end = 0
    for entry in sorted(entries, key=lambda e: e.header_offset):
        name = entry.filename
        if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & _ENCRYPTED:
            raise Refused(f"a compressed or encrypted entry {name[:80]!r}")
        if name in where:
            raise Refused(f"entry {name[:80]!r} twice")
        if entry.header_offset < end:
            raise Refused(f"entry {name[:80]!r} on top of another one")
        file.seek(entry.header_offset)
        header = file.read(_LOCAL_HEADER)
        if len(header) < _LOCAL_HEADER or header[:4] != b"PK\x03\x04":
            raise Malformed(f"a damaged archive: entry {name[:80]!r} has no header")
        lengths = (int.from_bytes(header[i : i + 2], "little") for i in (26, 28))
        start = entry.header_offset + _LOCAL_HEADER + sum(lengths)
        end = start + entry.file_size
        if entry.file_size != entry.compress_size or end > size:
            raise Malformed(f"a damaged archive: entry {name[:80]!r} ends beyond the file")
        where[name] = (start, entry.file_size)
    return where


def _root(where: dict[str, tuple[int, int]]) -> str:
    roots = [name.removesuffix("/data.pkl") for name in where if name.endswith("/data.pkl")]
    roots = [root for root in roots if "/" not in root]
    if len(roots) != 1:
        raise Malformed("an archive that torch.save did not write: it has no data.pkl")
    if any(name.startswith(f"{roots[0]}/code/") for name in where):
        raise Refused("a TorchScript program")
    return roots[0]
