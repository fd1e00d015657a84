"""Takes single files out of an AAR and a wheel, which are zip files that others made.

A member is read only when its name, kind, size and content are what they must be. Nothing here
knows python-for-android; the recipes call it on the machine that builds the app.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import os
import stat
import struct
import zipfile
import zlib
from pathlib import Path, PurePosixPath

LIBRARY = "libonnxruntime.so"
LARGEST_FILE = 256 * 2**20
"""Bytes of one unpacked member; the library has about 20 MB, the built-in bundle 15 MB in all."""
LARGEST_SUM = 512 * 2**20
"""Bytes of everything unpacked from one archive."""

_ELF_MACHINES = {"arm64-v8a": 183, "armeabi-v7a": 40, "x86_64": 62, "x86": 3}
_MACHINE_OFFSET = 18
# what zipfile raises of damaged archives: RuntimeError for encrypted or unknown kinds, ValueError
# and struct.error for fields without sense
_UNREADABLE = (
    zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, ValueError, struct.error,
    OverflowError,
)  # fmt: skip


class ArchiveRefused(ValueError):
    """An archive is not what the build expects; the text says what was got and expected."""


def check_sha256(path: Path, expected: str) -> None:
    """Refuse a file that is not the one that was pinned.

    Args:
        path: the archive.
        expected: 64 hexadecimal digits.

    Raises:
        ArchiveRefused: the file is missing or has another hash.
    """
    if not path.is_file():
        raise ArchiveRefused(f"got no file {path}, expected an archive")
    got = hashlib.sha256(path.read_bytes()).hexdigest()
    if got != expected.strip().lower():
        raise ArchiveRefused(f"{path.name}: got SHA-256 {got}, expected {expected!r}")


def library_from_aar(aar: Path, abi: str, folder: Path) -> Path:
    """Write ``libonnxruntime.so`` of one processor into ``folder``.

    Args:
        aar: onnxruntime-android, as Maven Central has it.
        abi: Android's name of the processor, such as ``arm64-v8a``.
        folder: existing.

    Returns:
        The file written.

    Raises:
        ArchiveRefused: no such member, or not a library for that processor.
    """
    if abi not in _ELF_MACHINES:
        raise ArchiveRefused(f"got ABI {abi!r}, expected one of {', '.join(_ELF_MACHINES)}")
    name = f"jni/{abi}/{LIBRARY}"
    with _opened(aar) as archive:
        found = [member for member in archive.infolist() if member.filename == name]
        if len(found) != 1:
            raise ArchiveRefused(f"{aar.name}: got {len(found)} members {name}, expected one")
        data = _content(archive, found[0])
    machine = struct.unpack_from("<H", data, _MACHINE_OFFSET)[0] if len(data) > 20 else None
    if data[:4] != b"\x7fELF" or machine != _ELF_MACHINES[abi]:
        raise ArchiveRefused(f"{aar.name}: {name} is no ELF library for {abi}")
    if b"OrtGetApiBase" not in data:
        raise ArchiveRefused(f"{aar.name}: {name} does not have OrtGetApiBase")
    return _written(folder / LIBRARY, data)


def package_from_wheel(wheel: Path, package: str, site_packages: Path) -> list[Path]:
    """Unpack one package of a wheel, each file checked against the wheel's RECORD.

    Args:
        wheel: a pure wheel.
        package: import name; other packages of the wheel stay where they are.
        site_packages: existing folder.

    Returns:
        The files written.

    Raises:
        ArchiveRefused: an unsafe name, a link, a file that is too large or not as recorded.
    """
    with _opened(wheel) as archive:
        hashes = _record(archive, wheel)
        contents = {}
        for member in archive.infolist():
            parts = _safe_parts(member, wheel)
            if parts[0] != package or member.is_dir():
                continue
            if member.filename in contents:
                raise ArchiveRefused(f"{wheel.name}: {member.filename} is there twice")
            data = contents[member.filename] = _content(archive, member)
            if hashes.get(member.filename) != _digest(data):
                raise ArchiveRefused(f"{wheel.name}: {member.filename} is not as RECORD says")
            if sum(map(len, contents.values())) > LARGEST_SUM:
                raise ArchiveRefused(f"{wheel.name}: more than {LARGEST_SUM} bytes unpacked")
    if f"{package}/__init__.py" not in contents:
        raise ArchiveRefused(f"{wheel.name}: got no package {package}")
    return [_written(site_packages / name, data) for name, data in contents.items()]


def _opened(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except _UNREADABLE as error:
        raise ArchiveRefused(f"{path.name}: not a readable zip file ({error})") from error


def _safe_parts(member: zipfile.ZipInfo, archive: Path) -> tuple[str, ...]:
    """The parts of a member's name, which stay below the folder on every system."""
    name = member.filename
    path = PurePosixPath(name)
    unsafe = not path.parts or path.is_absolute() or ".." in path.parts
    if unsafe or "\\" in name or ":" in name or "\0" in name:
        raise ArchiveRefused(f"{archive.name}: got member {name[:80]!r}, expected a plain path")
    return path.parts


def _content(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    kind = stat.S_IFMT(member.external_attr >> 16)
    if kind not in (0, stat.S_IFREG):
        raise ArchiveRefused(f"{member.filename}: got a link or device, expected a plain file")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ArchiveRefused(f"{member.filename}: got compression {member.compress_type}")
    if member.file_size > LARGEST_FILE:
        raise ArchiveRefused(f"{member.filename}: got {member.file_size} bytes")
    try:
        with archive.open(member) as file:
            data = file.read(LARGEST_FILE + 1)  # the header's size is only a claim
    except _UNREADABLE as error:
        raise ArchiveRefused(f"{member.filename}: cannot be read ({error})") from error
    if len(data) != member.file_size:
        raise ArchiveRefused(f"{member.filename}: got {len(data)} bytes, {member.file_size} said")
    return data


def _record(archive: zipfile.ZipFile, wheel: Path) -> dict[str, str]:
    names = [n for n in archive.namelist() if n.endswith(".dist-info/RECORD") and n.count("/") == 1]
    if len(names) != 1:
        raise ArchiveRefused(f"{wheel.name}: got {len(names)} RECORD files, expected one")
    data = _content(archive, archive.getinfo(names[0]))
    try:
        rows = list(csv.reader(io.StringIO(data.decode("utf-8"))))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ArchiveRefused(f"{wheel.name}: RECORD cannot be read ({error})") from error
    return {row[0]: row[1] for row in rows if len(row) == 3}


def _digest(data: bytes) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=")
    return f"sha256={digest.decode('ascii')}"


def _written(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(data)
    os.replace(partial, path)
    return path
