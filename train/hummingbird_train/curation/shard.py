"""One WebDataset shard: a tar file that depends on its members only, with equal bytes every time.

Members are ``{key}.mp4`` (or the stored suffix), ``{key}.json`` and ``{key}.txt``, in the order
given; owner, time and mode are constants. The SHA-256 is taken while writing.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO

BLOCK = 512


@dataclass(frozen=True)
class ShardFacts:
    """What a finished shard is."""

    name: str
    """file name"""
    sha256: str
    """of the whole file, in hexadecimal"""
    bytes: int
    """size of the file"""
    clips: int
    """keys in it"""


class ShardWriter:
    """Writes a shard to a path; ``with`` ends it.

    Args:
        path: the file, which must not matter to anyone yet.
    """

    def __init__(self, path: Path) -> None:
        self._hasher = hashlib.sha256()
        self._file = path.open("wb")
        self._tar = tarfile.open(fileobj=_Hashing(self._file, self._hasher), mode="w:",  # noqa: SIM115
                                 format=tarfile.USTAR_FORMAT)  # fmt: skip
        self.bytes = 0
        self.clips = 0

    def add(self, key: str, parts: dict[str, bytes]) -> None:
        """Append one key's members, by suffix with its dot."""
        for suffix, data in parts.items():
            info = tarfile.TarInfo(key + suffix)
            info.size, info.mtime, info.mode = len(data), 0, 0o644
            info.uid = info.gid = 0
            self._tar.addfile(info, io.BytesIO(data))
            self.bytes += member_bytes(len(data))
        self.clips += 1

    def close(self) -> None:
        """Write the end of the archive."""
        try:
            self._tar.close()
        finally:
            self._file.close()

    def facts(self, name: str) -> ShardFacts:
        """What was written, after ``close``."""
        return ShardFacts(name, self._hasher.hexdigest(), self._file_bytes, self.clips)

    @property
    def _file_bytes(self) -> int:
        rounded = self.bytes + 2 * BLOCK
        return -(-rounded // tarfile.RECORDSIZE) * tarfile.RECORDSIZE

    def __enter__(self) -> ShardWriter:
        """The writer itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close; after a failure of the disk, without hiding it behind a second one."""
        if kind is None:
            self.close()
        else:
            self._file.close()


def member_bytes(size: int) -> int:
    """Bytes that a member of ``size`` bytes takes in the tar."""
    return BLOCK + -(-size // BLOCK) * BLOCK


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class _Hashing:
    """A writable stream that hashes what passes."""

    def __init__(self, file: IO[bytes], hasher: object) -> None:
        self._file = file
        self._hasher = hasher

    def tell(self) -> int:
        return self._file.tell()

    def write(self, data: bytes) -> int:
        self._hasher.update(data)  # type: ignore[attr-defined]
        return self._file.write(data)
