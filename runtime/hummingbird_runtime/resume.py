"""The file of a run that was cut off: the latent after a step, and what it belongs to.

An .npz without pickle: ``run`` (JSON as uint8: request, bundle, style, steps done), ``latent``
(float32) and ``sha256`` of both, stored uncompressed. Who writes it and when is in checkpoint.py.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hummingbird_runtime.errors import InputError, IntegrityError, ResourceError
from hummingbird_runtime.strict_json import parse_json, record

FORMAT = "hummingbird-run"
VERSION = 1
MAX_FILE = 1 << 30
"""Bytes of a file that is read at all; the largest latent of any bundle is far smaller."""
_MEMBERS = ("run.npy", "latent.npy", "sha256.npy")
_DATE = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class RunRecord:
    """The JSON of a file: what the latent belongs to."""

    format: str
    version: int
    bundle_id: str
    style: str
    """SHA-256 of the merged style and its strength; empty without one."""
    steps_done: int
    """1..steps; with all done, the latent is the finished one."""
    decode_chunk: int
    """Frames decoded at once in the run that was cut off."""
    request: dict[str, Any]
    """The fields of ``Request``; arrays as the SHA-256 of shape and values."""


@dataclass(frozen=True, eq=False)
class SavedRun:
    """A run that was cut off, as its file tells it."""

    prompt: str
    seed: int
    steps_done: int
    """1..steps."""
    steps: int
    request: dict[str, Any]
    """As in ``RunRecord``; ``num_frames``, ``height`` and ``width`` among them."""
    bundle_id: str
    style: str
    """As in ``RunRecord``."""
    decode_chunk: int
    """As in ``RunRecord``."""
    latent: NDArray[np.float32]
    """Input of the next step, or with all steps done the finished latent: [1, C, F, h, w]."""


def read_saved_run(path: str | os.PathLike[str]) -> SavedRun:
    """Read the file of a run that was cut off.

    Args:
        path: the ``checkpoint`` of that run.

    Raises:
        InputError: ``checkpoint.version`` for a format of another release.
        IntegrityError: ``checkpoint.damaged`` for a torn, changed or foreign file.
        ResourceError: ``checkpoint.unreadable`` when the system would not let it be read.
    """
    file = Path(path)
    try:
        with file.open("rb") as stream:
            data = stream.read(MAX_FILE + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL character
        raise ResourceError(
            "checkpoint.unreadable",
            f"checkpoint {file}: {getattr(error, 'strerror', None) or error}, expected a file",
            hint="check the path and its permissions",
        ) from error
    try:
        return _parse(data)
    except _OtherVersion as error:
        raise InputError(
            "checkpoint.version",
            f"checkpoint {file.name}: got version {str(error)[:40]}, this release reads {VERSION}",
            hint="start the clip anew: delete the file or name another one",
        ) from error
    # zipfile and NumPy raise a dozen types for bytes that are not theirs
    except Exception as error:
        raise IntegrityError(
            "checkpoint.damaged",
            f"checkpoint {file.name}: got {len(data)} bytes that are no saved run, or a damaged "
            f"one ({type(error).__name__}), expected what an unfinished clip left",
            hint="start the clip anew: delete the file or name another one",
        ) from error


def pack_run(run: RunRecord, latent: NDArray[np.float32]) -> bytes:
    """The bytes of a file; equal runs give equal bytes.

    Args:
        run: what the latent belongs to.
        latent: float32 [1, C, F, h, w].
    """
    text = json.dumps(dataclasses.asdict(run), sort_keys=True, allow_nan=False).encode()
    arrays = (np.frombuffer(text, np.uint8), latent, _digest(text, latent))
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, array in zip(_MEMBERS, arrays, strict=True):
            member = io.BytesIO()
            np.lib.format.write_array(member, np.ascontiguousarray(array), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(name, _DATE), member.getvalue())
    return file.getvalue()


def array_identity(array: NDArray[Any]) -> str:
    """SHA-256 of an array's shape, type and values."""
    head = repr((array.shape, str(array.dtype))).encode()
    return hashlib.sha256(head + np.ascontiguousarray(array).tobytes()).hexdigest()


class _OtherVersion(Exception):
    """The format of another release."""


def _digest(text: bytes, latent: NDArray[np.float32]) -> NDArray[np.uint8]:
    digest = hashlib.sha256(text + array_identity(latent).encode()).digest()
    return np.frombuffer(digest, np.uint8)


def _parse(data: bytes) -> SavedRun:
    """Raises whatever the bytes make Python, zipfile and NumPy raise."""
    if len(data) > MAX_FILE:
        raise ValueError("larger than any saved run")
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = archive.infolist()
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in members):
            raise ValueError("compressed")  # so that no member is larger than the file
        text = _array(archive, _MEMBERS[0]).tobytes()
        value = parse_json(text, what="run")
        if value["format"] != FORMAT:
            raise ValueError("another format")
        if value["version"] != VERSION:
            raise _OtherVersion(value["version"])
        latent, digest = (_array(archive, name) for name in _MEMBERS[1:])
    run = record(RunRecord, value, "run")
    if latent.dtype != np.float32 or not np.array_equal(digest, _digest(text, latent)):
        raise ValueError("the SHA-256 differs")
    prompt, seed = run.request["prompt"], run.request["seed"]
    steps = run.request["num_inference_steps"]
    if not (type(prompt) is str and type(seed) is type(steps) is int):
        raise ValueError("a field of the request has another type")
    if not (1 <= run.steps_done <= steps and run.decode_chunk >= 1):
        raise ValueError("a field is out of range")
    return SavedRun(
        prompt=prompt,
        seed=seed,
        steps_done=run.steps_done,
        steps=steps,
        request=run.request,
        bundle_id=run.bundle_id,
        style=run.style,
        decode_chunk=run.decode_chunk,
        latent=latent,
    )


def _array(archive: zipfile.ZipFile, name: str) -> NDArray[Any]:
    array: NDArray[Any] = np.lib.format.read_array(
        io.BytesIO(archive.read(name)), allow_pickle=False
    )
    return array
