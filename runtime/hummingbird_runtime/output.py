"""Output paths: which are refused before any work, and what an error met while writing is called.

Writing itself is in atomic.py; which suffixes exist is in writers/.
"""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

from hummingbird_runtime.errors import ResourceError, UsageError


def check_target(path: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
    """Refuse an output file that could not be written, before any work is done for it.

    Args:
        path: the output file; a symbolic link is followed.
        overwrite: whether an existing file may be replaced.

    Returns:
        The resolved path of the file.

    Raises:
        UsageError: ``output.exists``, ``output.is_folder`` or ``output.not_a_file``.
        ResourceError: ``output.folder_missing``, ``output.permission``, ``output.name_too_long``.
    """
    target = resolve_output(path)
    try:
        found = target.lstat()
    except FileNotFoundError:
        found = None
    except OSError as error:
        raise output_error(error, target) from error
    if found is not None and target.is_dir():
        raise UsageError(
            "output.is_folder",
            f"output {target}: got a folder, expected a file",
            hint="name a file inside it",
        )
    if found is not None and not overwrite:
        raise existing_output(target)
    if found is not None and not target.is_file():
        raise UsageError(
            "output.not_a_file",
            f"output {target}: got a device, pipe or socket, expected a regular file",
            hint="name a file; the clip is put in place by renaming and would replace it",
        )
    check_parent(target)
    return target


def output_error(error: OSError, path: Path) -> ResourceError:
    """The typed error for an operating-system error met while writing ``path``."""
    number = error.errno
    if number in (errno.ENOSPC, errno.EDQUOT):
        return ResourceError(
            "output.disk_full",
            f"output {path}: no space left, {_free(path.parent)} bytes free",
            hint="free some space or write elsewhere",
        )
    if number in (errno.EACCES, errno.EPERM, errno.EROFS):
        return ResourceError(
            "output.permission",
            f"output {path}: {os.strerror(number)}, expected a place you may write to",
            hint="choose another folder or change its permissions",
        )
    if number in (errno.ENOENT, errno.ENOTDIR):
        return _folder_missing(path)
    if number == errno.ENAMETOOLONG:
        return ResourceError(
            "output.name_too_long",
            f"output name of {len(str(path))} characters: longer than the file system takes",
            hint="use a shorter path",
        )
    return ResourceError(
        "output.write_failed", f"output {path}: {error.strerror or error}", hint="try another disk"
    )


def resolve_output(path: str | os.PathLike[str]) -> Path:
    """The absolute path of an output, links followed."""
    try:
        return Path(os.path.realpath(path))
    except (OSError, ValueError) as error:  # ValueError: a NUL character in the name
        raise UsageError(
            "output.bad_name", f"output {os.fspath(path)!r}: {error}", hint="use a plain file name"
        ) from error


def check_parent(target: Path) -> None:
    """Refuse an output whose folder is missing or not writable."""
    if not target.parent.is_dir():
        raise _folder_missing(target)
    if not os.access(target.parent, os.W_OK):
        raise output_error(PermissionError(errno.EACCES, "not writable"), target)


def _folder_missing(target: Path) -> ResourceError:
    return ResourceError(
        "output.folder_missing",
        f"output {target}: folder {target.parent} does not exist",
        hint="create it first",
    )


def existing_output(target: Path) -> UsageError:
    """The error of an output that is there already."""
    return UsageError(
        "output.exists", f"output {target} exists already", hint="use --force (overwrite=True)"
    )


def _free(folder: Path) -> int:
    return shutil.disk_usage(folder).free
