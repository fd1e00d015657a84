"""A bundle folder checked against its manifest before anything in it is used.

ONNX Runtime loads a graph with a flipped weight byte without a word, and follows links out of the
folder; so every file is a listed regular file of the listed size and SHA-256, or the bundle is
refused. This guards against accident; it is no signature of who made the bundle.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path

from hummingbird_runtime.bundle_files import FileIdentity, digest_file, list_files, read_small
from hummingbird_runtime.errors import InputError, IntegrityError
from hummingbird_runtime.manifest import DIGEST, MANIFEST, FileEntry, Manifest
from hummingbird_runtime.operators import check_operators
from hummingbird_runtime.strict_json import MAX_BYTES

_COPY_AGAIN = "copy or export the bundle again"


def verify_folder(root: Path) -> tuple[Manifest, dict[str, FileIdentity]]:
    """Check everything about a bundle that can be checked without opening a graph.

    Args:
        root: resolved path of the bundle folder.

    Returns:
        The manifest, and the identity of every listed file at the moment it was hashed.

    Raises:
        InputError: ``bundle.not_found``, ``bundle.missing_file`` (all of them at once),
            ``bundle.manifest_invalid``, ``bundle.version``, ``bundle.unsupported_opset``.
        IntegrityError: ``bundle.unsafe_path``, ``bundle.unlisted_file``, ``bundle.size_mismatch``,
            ``bundle.hash_mismatch``, ``bundle.op_not_allowed``.
        ResourceError: ``bundle.unreadable``.
    """
    present = list_files(root)
    _refuse_missing(root, {MANIFEST, DIGEST} - present.keys())
    manifest = _read_manifest(root)
    _refuse_missing(root, manifest.files.keys() - present.keys())
    unlisted = sorted(present.keys() - manifest.files.keys() - {MANIFEST, DIGEST})
    if unlisted:
        raise IntegrityError(
            "bundle.unlisted_file",
            f"bundle {root}: got {', '.join(unlisted[:8])} ({len(unlisted)} in all), "
            "expected only files the manifest lists",
            hint="remove them, or " + _COPY_AGAIN,
        )
    for path, entry in manifest.files.items():
        _check_size(path, present[path], entry.bytes)
    for graph in manifest.graphs.values():
        check_operators(graph.ops, opset=graph.opset, graph=graph.path)
    return manifest, {p: _check_content(root, p, e) for p, e in manifest.files.items()}


def file_entries(root: Path) -> dict[str, FileEntry]:
    """Hash and size of every file of a folder that is being packed, the manifest itself left out.

    Raises:
        IntegrityError: ``bundle.unsafe_path``.
    """
    paths = sorted(list_files(root).keys() - {MANIFEST, DIGEST})
    return {path: digest_file(root / path)[0] for path in paths}


def seal(root: Path, manifest: Manifest) -> None:
    """Write manifest.json and manifest.sha256: the last step of packing a bundle."""
    text = manifest.to_bytes()
    (root / MANIFEST).write_bytes(text)
    (root / DIGEST).write_bytes(hashlib.sha256(text).hexdigest().encode() + b"\n")


def _read_manifest(root: Path) -> Manifest:
    recorded = read_small(root / DIGEST, 80)
    text = read_small(root / MANIFEST, MAX_BYTES + 1)
    if not re.fullmatch(rb"[0-9a-f]{64}\n", recorded):
        raise _hash_mismatch(DIGEST, "text that is not one SHA-256", "64 hex digits and a newline")
    digest = hashlib.sha256(text).hexdigest()
    if len(text) <= MAX_BYTES and digest.encode() != recorded.strip():
        raise _hash_mismatch(MANIFEST, f"SHA-256 {digest[:12]}..", recorded[:12].decode() + "..")
    return Manifest.from_json(text)


def _check_content(root: Path, path: str, entry: FileEntry) -> FileIdentity:
    got, identity = digest_file(root / path, limit=entry.bytes)
    _check_size(path, got.bytes, entry.bytes)
    if got.sha256 != entry.sha256:
        raise _hash_mismatch(path, f"SHA-256 {got.sha256[:12]}..", f"{entry.sha256[:12]}..")
    return identity


def _check_size(path: str, got: int, expected: int) -> None:
    if got != expected:
        raise IntegrityError(
            "bundle.size_mismatch",
            f"bundle file {path}: got {got} bytes, expected {expected}",
            hint=_COPY_AGAIN,
        )


def _hash_mismatch(path: str, got: str, expected: str) -> IntegrityError:
    return IntegrityError(
        "bundle.hash_mismatch",
        f"bundle file {path}: got {got}, expected {expected}",
        hint=f"the file is damaged or was changed; {_COPY_AGAIN}",
    )


def _refuse_missing(root: Path, missing: Iterable[str]) -> None:
    names = sorted(missing)
    if names:
        raise InputError(
            "bundle.missing_file",
            f"bundle {root}: lacks {', '.join(names[:20])} ({len(names)} in all)",
            hint=_COPY_AGAIN,
        )
