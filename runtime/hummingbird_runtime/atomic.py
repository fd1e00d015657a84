"""Outputs that appear whole or not at all: written beside the target, synced, then renamed.

After any failure the temporary file is gone and an older output is untouched. A killed process
may leave a ``.hummingbird-*.partial*`` file behind, never a torn file under the asked name.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from hummingbird_runtime.output import (
    check_parent,
    check_target,
    existing_output,
    output_error,
    resolve_output,
)

_live: set[Path] = set()


@contextlib.contextmanager
def atomic_file(path: str | os.PathLike[str], *, overwrite: bool = False) -> Iterator[Path]:
    """Yield a temporary path with the target's suffix; publish it when the block ends well.

    Args:
        path: the output file.
        overwrite: whether an existing file may be replaced.

    Raises:
        UsageError, ResourceError: as :func:`check_target`; an ``OSError`` of the block becomes
            the ``output.*`` error of :func:`output_error`.
    """
    target = check_target(path, overwrite=overwrite)
    partial = _partial_name(target.parent, target.suffix)
    _live.add(partial)
    try:
        partial.touch(exist_ok=False)
        yield partial
        _sync(partial)
        if not overwrite and target.exists():
            raise existing_output(target)
        os.replace(partial, target)
        _sync(target.parent)
    except OSError as error:
        raise output_error(error, target) from error
    finally:
        _discard(partial)


@contextlib.contextmanager
def atomic_folder(path: str | os.PathLike[str], *, overwrite: bool = False) -> Iterator[Path]:
    """Yield an empty temporary folder; sync and rename it to ``path`` when the block ends well.

    An empty folder of that name counts as free. With ``overwrite`` the old folder is moved aside,
    the new one moved in and the old one deleted: between the two moves the name is absent.

    Raises:
        UsageError: ``output.exists``.
        ResourceError: the ``output.*`` codes of :func:`output_error`.
    """
    target = resolve_output(path)
    if _occupied(target) and not overwrite:
        raise existing_output(target)
    check_parent(target)
    partial = _partial_name(target.parent, "")
    _live.add(partial)
    try:
        partial.mkdir()
        yield partial
        for folder, _, names in os.walk(partial):
            for name in names:
                _sync(Path(folder, name))
            _sync(Path(folder))
        if _occupied(target) and not overwrite:
            raise existing_output(target)
        _swap_in(partial, target)
        _sync(target.parent)
    except OSError as error:
        raise output_error(error, target) from error
    finally:
        _discard(partial)


def discard_partials() -> None:
    """Remove every temporary output of this process; for a program that must exit at once."""
    for partial in tuple(_live):
        _discard(partial)


def _occupied(target: Path) -> bool:
    return os.path.lexists(target) and not (target.is_dir() and not any(target.iterdir()))


def _partial_name(folder: Path, suffix: str) -> Path:
    return folder / f".hummingbird-{secrets.token_hex(6)}.partial{suffix}"


def _swap_in(partial: Path, target: Path) -> None:
    aside = _partial_name(target.parent, ".old")
    had_old = os.path.lexists(target)
    if had_old:
        os.rename(target, aside)
    try:
        os.rename(partial, target)
    except OSError:
        if had_old:
            os.rename(aside, target)
        raise
    _discard(aside)


def _discard(path: Path) -> None:
    _live.discard(path)
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


def _sync(path: Path) -> None:
    """Flush a file, or a folder where the system lets a folder be opened (Windows does not)."""
    is_folder = path.is_dir()
    if is_folder and os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY if is_folder else os.O_RDWR | getattr(os, "O_BINARY", 0))
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network and FUSE file systems cannot sync; a real write error is reported.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS):
            raise
    finally:
        os.close(descriptor)
