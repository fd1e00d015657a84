"""The files of a bundle as they lie on disk: listed, hashed and read without following links.

What they should be is in the manifest; the comparison is in integrity.py.
"""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from hummingbird_runtime.errors import InputError, IntegrityError, ResourceError
from hummingbird_runtime.manifest import MAX_FILES, FileEntry, check_relative_path

_CHUNK = 1 << 20


@dataclass(frozen=True)
class FileIdentity:
    """What tells an untouched file from a replaced one without reading it."""

    device: int
    inode: int
    size: int
    modified_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> FileIdentity:
        """The identity in a stat result."""
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


def list_files(root: Path) -> dict[str, int]:
    """Size in bytes of every file below ``root``, by relative path.

    Args:
        root: the folder.

    Raises:
        InputError: ``bundle.not_found``.
        IntegrityError: ``bundle.unsafe_path`` for links, devices, FIFOs, sockets, odd names, names
            that differ only by case, and folders that lead elsewhere.
        ResourceError: ``bundle.unreadable``.
    """
    if not os.path.isdir(root):  # Path.is_dir raises for some names that cannot be
        got = "a file" if os.path.exists(root) else "nothing"
        raise InputError(
            "bundle.not_found",
            f"bundle {root}: got {got}, expected a folder",
            hint="name a folder that `hummingbird export` wrote",
        )
    root = Path(os.path.realpath(root))
    found: dict[str, int] = {}
    folders, seen = [""], 0
    while folders:
        folder = folders.pop()
        entries = _scan(root, folder)
        seen += len(entries)
        if seen > 2 * MAX_FILES:
            raise unsafe(folder or ".", f"the bundle has more than {MAX_FILES} files")
        if len({entry.name.casefold() for entry in entries}) != len(entries):
            raise unsafe(folder or ".", "has names that differ only by case")
        for entry in entries:
            path = f"{folder}/{entry.name}" if folder else entry.name
            check_relative_path(path, "bundle folder")
            status = entry.stat(follow_symlinks=False)
            if stat.S_ISREG(status.st_mode):
                found[path] = status.st_size
            elif stat.S_ISDIR(status.st_mode) and _stays_inside(root / path):
                folders.append(path)
            else:
                raise unsafe(path, "is a link or no regular file")
    return found


def digest_file(path: Path, *, limit: int | None = None) -> tuple[FileEntry, FileIdentity]:
    """SHA-256 and size of a file, through one descriptor that no link or FIFO stands behind.

    Args:
        path: the file.
        limit: stop reading once more bytes than this have come.

    Raises:
        IntegrityError: ``bundle.unsafe_path``.
        ResourceError: ``bundle.unreadable``.
    """
    flags = os.O_RDONLY
    for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_BINARY"):
        flags |= getattr(os, name, 0)  # each system has its own of these
    try:
        with open(os.open(path, flags), "rb", buffering=0) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise unsafe(path.name, "is no regular file")
            digest, size = hashlib.sha256(), 0
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
                size += len(chunk)
                if limit is not None and size > limit:
                    break
    except OSError as error:
        raise unreadable(path.name, error) from error
    return FileEntry(digest.hexdigest(), size), FileIdentity.of(status)


def read_small(path: Path, limit: int) -> bytes:
    """At most ``limit`` bytes of a file.

    Raises:
        ResourceError: ``bundle.unreadable``.
    """
    try:
        with path.open("rb") as file:
            return file.read(limit)
    except OSError as error:
        raise unreadable(path.name, error) from error


def unsafe(path: str, problem: str) -> IntegrityError:
    """The error of something a bundle must not contain."""
    return IntegrityError(
        "bundle.unsafe_path",
        f"bundle file {path!r}: {problem}, expected plain files and folders",
        hint="copy the bundle as real files (cp -rL) or export it again",
    )


def unreadable(name: str, error: OSError) -> ResourceError:
    """The error of a file that the system would not let us read."""
    return ResourceError(
        "bundle.unreadable",
        f"bundle file {name}: {error.strerror or error}, expected a readable file",
        hint="check its permissions and the disk",
    )


def _scan(root: Path, folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(root / folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise unreadable(folder or str(root), error) from error


def _stays_inside(folder: Path) -> bool:
    """False for a folder that is a junction or mount leading elsewhere."""
    return os.path.realpath(folder) == str(folder)
