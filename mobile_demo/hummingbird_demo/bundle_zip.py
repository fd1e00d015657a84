"""A bundle inside a zip file, read as data that may be hostile: names, counts, sizes, hashes.

The manifest is read first and decides everything: the archive must hold its files and no others,
each of exactly the size it states, so no compression can make more bytes than were announced.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from hummingbird_runtime import CancelToken, InputError, IntegrityError
from hummingbird_runtime.manifest import DIGEST, MANIFEST, MAX_FILES, Manifest, check_relative_path
from hummingbird_runtime.strict_json import MAX_BYTES

MAX_RATIO = 100
"""Largest expansion of the whole archive; weights compress to half, a bomb thousandfold."""
_MAX_DIRECTORY = 1 << 20
_MAX_ENTRIES = 2 * MAX_FILES
_CHUNK = 1 << 20
_END, _END64, _LOCATOR = b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07"
_BROKEN = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
    UnicodeError,
    ValueError,
)


class BundleZip:
    """An opened archive whose list of files agrees with its manifest. Use :func:`open_zip`."""

    def __init__(self, archive: zipfile.ZipFile, entries: dict[str, zipfile.ZipInfo]) -> None:
        self._archive = archive
        self._entries = entries
        text = self._small(MANIFEST, MAX_BYTES)
        digest = self._small(DIGEST, 80)
        if not re.fullmatch(rb"[0-9a-f]{64}\n", digest) or (
            hashlib.sha256(text).hexdigest().encode() != digest.strip()
        ):
            raise IntegrityError(
                "bundle.hash_mismatch",
                f"zip: {MANIFEST} has another SHA-256 than {DIGEST} says",
                hint="copy or export the bundle again",
            )
        self._texts = {MANIFEST: text, DIGEST: digest}
        self.manifest = Manifest.from_json(text)
        self._check_files()

    @property
    def size(self) -> int:
        """Bytes of all files together, unpacked."""
        return sum(entry.file_size for entry in self._entries.values())

    def extract(self, folder: Path, report: Callable[[int], None], cancel: CancelToken) -> None:
        """Write every file below an empty folder, hashing it on the way.

        Raises:
            IntegrityError: ``bundle.hash_mismatch``.
            InputError: ``import.bad_zip``.
            Cancelled: ``runtime.cancelled``.
        """
        written = 0
        for name, entry in self._entries.items():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if name in self._texts:
                target.write_bytes(self._texts[name])
                continue
            digest, size = hashlib.sha256(), 0
            with _readable(), self._archive.open(entry) as source, target.open("xb") as file:
                while chunk := source.read(min(_CHUNK, entry.file_size - size + 1)):
                    cancel.raise_if_cancelled()
                    size += len(chunk)
                    if size > entry.file_size:
                        raise zipfile.BadZipFile(f"{name} is longer than it says")
                    digest.update(chunk)
                    file.write(chunk)
                    report(written + size)
            written += size
            if digest.hexdigest() != self.manifest.files[name].sha256:
                raise IntegrityError(
                    "bundle.hash_mismatch",
                    f"zip: {name} has another SHA-256 than the manifest says",
                    hint="the file is damaged or was changed; copy or export the bundle again",
                )

    def _small(self, name: str, limit: int) -> bytes:
        entry = self._entries.get(name)
        if entry is None:
            raise InputError(
                "import.not_a_bundle",
                f"zip: got no {name}, expected a bundle that `hummingbird export` wrote",
                hint="pack the bundle's folder, or what is in it",
            )
        with _readable(), self._archive.open(entry) as file:
            return file.read(limit + 1)

    def _check_files(self) -> None:
        listed = self.manifest.files
        names = self._entries.keys() - {MANIFEST, DIGEST}
        missing, extra = sorted(listed.keys() - names), sorted(names - listed.keys())
        if missing:
            raise InputError(
                "bundle.missing_file",
                f"zip: lacks {', '.join(missing[:8])} ({len(missing)} in all)",
                hint="pack the whole bundle folder",
            )
        if extra:
            raise IntegrityError(
                "bundle.unlisted_file",
                f"zip: got {', '.join(extra[:8])} ({len(extra)} in all), "
                "expected only files the manifest lists",
                hint="pack the bundle's folder and nothing else",
            )
        for name in sorted(names):
            if self._entries[name].file_size != listed[name].bytes:
                raise IntegrityError(
                    "bundle.size_mismatch",
                    f"zip: {name} has {self._entries[name].file_size} bytes, "
                    f"expected {listed[name].bytes}",
                    hint="copy or export the bundle again",
                )


@contextlib.contextmanager
def open_zip(path: Path) -> Iterator[BundleZip]:
    """Open and check an archive; nothing is written.

    Raises:
        InputError: ``import.bad_zip``, ``import.not_a_bundle``, ``bundle.*``.
        IntegrityError: ``import.bomb``, ``bundle.*``.
        ResourceError: ``bundle.unreadable``.
    """
    with path.open("rb") as file:
        _check_directory(file)
        file.seek(0)
        with _readable():
            archive = zipfile.ZipFile(file)
        with archive:
            yield BundleZip(archive, _entries(archive, path))


def _entries(archive: zipfile.ZipFile, path: Path) -> dict[str, zipfile.ZipInfo]:
    """Files by their path inside the bundle; a single folder around them all is dropped."""
    files: dict[str, zipfile.ZipInfo] = {}
    for entry in archive.infolist():
        name = entry.filename
        if name.startswith("__MACOSX/") or name.rpartition("/")[2] == ".DS_Store":
            continue  # what one system's packer adds; never unpacked
        check_relative_path(name.rstrip("/"), "zip")
        mode = entry.external_attr >> 16
        if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise IntegrityError(
                "bundle.unsafe_path",
                f"zip: {name!r} is a link or device, expected plain files and folders",
                hint="pack real files (zip without -y)",
            )
        if name.endswith("/"):
            continue
        if entry.flag_bits & 1:
            raise _bad_zip(f"{name} is encrypted, expected plain files")
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise _bad_zip(f"{name} uses method {entry.compress_type}, expected stored or deflated")
        if name.casefold() in {known.casefold() for known in files}:
            raise _bad_zip(f"{name} is in it twice")
        files[name] = entry
    unpacked = sum(entry.file_size for entry in files.values())
    packed = path.stat().st_size
    if unpacked > MAX_RATIO * packed:
        raise IntegrityError(
            "import.bomb",
            f"zip: {packed} bytes would unpack to {unpacked}, expected at most {MAX_RATIO} times",
            hint="do not use this file unless you trust where it came from",
        )
    tops = {name.partition("/")[0] for name in files}
    if len(tops) == 1 and MANIFEST not in files:
        return {name.partition("/")[2]: entry for name, entry in files.items()}
    return files


def _check_directory(file: BinaryIO) -> None:
    """Refuse a list of files too long to be a bundle's before anything parses it."""
    size = file.seek(0, os.SEEK_END)
    start = max(0, size - (1 << 16) - 22)
    file.seek(start)
    tail = file.read()
    place = tail.rfind(_END)
    if place < 0 or len(tail) - place < 22:
        raise _bad_zip("it has no end record")
    count, length = struct.unpack_from("<HI", tail, place + 10)
    if tail[max(place - 20, 0) : place].startswith(_LOCATOR):
        (offset,) = struct.unpack_from("<Q", tail, place - 12)
        file.seek(min(offset, size))
        record = file.read(56)
        if len(record) < 56 or not record.startswith(_END64):
            raise _bad_zip("its zip64 end record is missing")
        count, length = struct.unpack_from("<QQ", record, 32)
    if count > _MAX_ENTRIES or length > _MAX_DIRECTORY:
        raise _bad_zip(f"it lists {count} files in {length} bytes, expected a bundle's few")


@contextlib.contextmanager
def _readable() -> Iterator[None]:
    try:
        yield
    except _BROKEN as error:
        raise _bad_zip(str(error).splitlines()[0][:120] if str(error) else "damaged") from error


def _bad_zip(problem: str) -> InputError:
    return InputError(
        "import.bad_zip", f"zip: {problem}", hint="pack the bundle's folder as a plain .zip again"
    )
