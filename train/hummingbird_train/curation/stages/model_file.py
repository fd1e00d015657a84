"""A model's file that the configuration names: what it holds is part of the parameters."""

from __future__ import annotations

import hashlib
import os
from functools import lru_cache

from hummingbird_runtime.errors import InputError


def file_sha256(path: str) -> str:
    """Digest of a file, in hexadecimal; read again only when its size or time of change differ.

    Raises:
        InputError: ``stage.model``.
    """
    try:
        facts = os.stat(path)
        return _digest(path, facts.st_size, facts.st_mtime_ns)
    except OSError as error:
        raise InputError(
            "stage.model",
            f"{path}: got {error.strerror}, expected a model's file",
            hint="correct the path in [stages]",
        ) from error


@lru_cache(maxsize=32)
def _digest(path: str, size: int, changed: int) -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
