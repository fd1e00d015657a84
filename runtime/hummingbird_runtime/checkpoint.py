"""The checkpoint of one call: the latent of each step replaces the last one in its file.

The noise of a step depends on the seed and the step alone, so a run that goes on from its file
draws the frames of an undisturbed one. The format of the file is in resume.py.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hummingbird_runtime.arguments import wrong_type
from hummingbird_runtime.atomic import atomic_file
from hummingbird_runtime.bundle import Bundle
from hummingbird_runtime.errors import HummingbirdError, InputError, UsageError
from hummingbird_runtime.events import Warning
from hummingbird_runtime.output import check_target
from hummingbird_runtime.request import Request
from hummingbird_runtime.resume import (
    FORMAT,
    VERSION,
    RunRecord,
    SavedRun,
    array_identity,
    pack_run,
    read_saved_run,
)

if TYPE_CHECKING:
    from hummingbird_runtime.adapters import Style


class Checkpoint:
    """What the file of a call holds already, and how the next step is written.

    Args:
        path: the file; its folder exists.
        request: the call.
        bundle: what draws it.
        style: merged into the U-Net.

    Raises:
        InputError: ``checkpoint.mismatch`` when the file belongs to another call, bundle or style;
            ``checkpoint.version``.
        IntegrityError, ResourceError: as ``read_saved_run``; ``output.*``.
        UsageError: ``output.*``, ``request.type``.
    """

    def __init__(self, path: object, request: Request, bundle: Bundle, style: Style | None) -> None:
        if not isinstance(path, str | os.PathLike):
            raise wrong_type("checkpoint", path, "a str or path")
        self._path = check_target(path, overwrite=True)
        self._request = request_identity(request)
        self._bundle_id, self._style = bundle.manifest.bundle_id, style_identity(style)
        self.saved: SavedRun | None = None
        """What the file held when the call was made."""
        if self._path.exists():
            self.saved = read_saved_run(self._path)
            facts = bundle.manifest.model
            cells = (size // facts.vae_scale_factor for size in (request.height, request.width))
            shape = (1, facts.latent_channels, request.num_frames, *cells)
            self._check_same(self.saved, shape)

    def save(
        self, steps_done: int, latent: NDArray[np.float32], decode_chunk: int
    ) -> Warning | None:
        """Write the latent after a step in place of the last one; a failure is only a warning.

        The clip is what was asked for and the file an insurance: a full disk must not cost the
        minutes already spent. The file of an earlier step stays, whole.
        """
        run = RunRecord(
            FORMAT, VERSION, self._bundle_id, self._style, steps_done, decode_chunk, self._request
        )
        try:
            with atomic_file(self._path, overwrite=True) as partial:
                partial.write_bytes(pack_run(run, latent))
        except HummingbirdError as error:
            return Warning(
                "checkpoint.not_written",
                f"step {steps_done} is not saved and the clip goes on: {error}",
            )
        return None

    def remove(self) -> None:
        """Delete the file: the clip is done.

        A file that the system would not let go stays: it must not cost the clip, and brings the
        same call to its decoder.
        """
        with contextlib.suppress(OSError):
            self._path.unlink()

    def _check_same(self, saved: SavedRun, latent_shape: tuple[int, ...]) -> None:
        fields = sorted(saved.request.keys() | self._request.keys())
        pairs = {
            "bundle": (saved.bundle_id, self._bundle_id),
            "style": (saved.style, self._style),
            **{name: (saved.request.get(name), self._request.get(name)) for name in fields},
            "latent": (saved.latent.shape, latent_shape),
        }
        for name, (got, expected) in pairs.items():
            if got != expected:
                raise InputError(
                    "checkpoint.mismatch",
                    f"checkpoint {self._path.name}: got {name} {got!r:.60}, "
                    f"expected {expected!r:.60} of this call",
                    hint="repeat the call that was cut off, or name another file",
                )


def refuse_shared(path: object, prompts: int) -> None:
    """Refuse one file for several prompts.

    Raises:
        UsageError: ``request.checkpoint``.
    """
    if path is not None:
        raise UsageError(
            "request.checkpoint",
            f"checkpoint, got one file for {prompts} prompts in a list, expected one prompt",
            hint="draw the prompts one by one, each with a file of its own",
        )


def request_identity(request: Request) -> dict[str, Any]:
    """A request as JSON values; an array becomes its ``array_identity``."""
    values = {field.name: getattr(request, field.name) for field in dataclasses.fields(request)}
    return {
        name: array_identity(value) if isinstance(value, np.ndarray) else value
        for name, value in values.items()
    }


def style_identity(style: Style | None) -> str:
    """SHA-256 of a style's strength and factors; empty without one."""
    if style is None:
        return ""
    digest = hashlib.sha256(repr(style.strength).encode())
    for target, factors in sorted(style.factors.items()):
        parts = (array_identity(factors.up), array_identity(factors.down), float(factors.scale))
        digest.update(repr((target, *parts)).encode())
    return digest.hexdigest()
