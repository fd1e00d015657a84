"""The models on this device: the built-in bundle, and bundles imported from a folder or a zip.

An import is copied, verified in whole and only then renamed into place, so a model is there or it
is not. What is listed here was verified then; opening it verifies every byte again.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hummingbird_demo.bundle_zip import open_zip
from hummingbird_demo.choices import Choices, choices_from
from hummingbird_demo.settings import BUILT_IN
from hummingbird_runtime import (
    Bundle,
    CancelToken,
    HummingbirdError,
    InputError,
    ResourceError,
    UsageError,
    builtin_bundle,
)
from hummingbird_runtime.atomic import atomic_folder
from hummingbird_runtime.bundle_files import list_files, unreadable
from hummingbird_runtime.manifest import MANIFEST, Manifest
from hummingbird_runtime.strict_json import MAX_BYTES

SPARE = 64 << 20
"""Bytes of the disk that an import leaves free."""
_CHUNK = 1 << 20

Report = Callable[[int, int], None]
"""Called with bytes done and bytes in all."""


@dataclass(frozen=True)
class Model:
    """One model that can be chosen."""

    key: str
    """``BUILT_IN`` or its folder's name."""
    folder: Path
    name: str
    bytes: int
    licence: str
    licence_text: str
    choices: Choices

    @property
    def built_in(self) -> bool:
        """Whether it came with the app; then it cannot be deleted."""
        return self.key == BUILT_IN


@dataclass(frozen=True)
class Damaged:
    """A folder of the store whose manifest cannot be read."""

    key: str
    text: str


class ModelStore:
    """Imported bundles below one folder, beside the built-in one.

    Args:
        root: made if it is missing; nobody else writes there.
        built_in: the bundle that is always there; None is the package's own.
    """

    def __init__(self, root: Path, built_in: Path | None = None) -> None:
        root.mkdir(parents=True, exist_ok=True)
        self.root = root
        self._built_in = builtin_bundle() if built_in is None else built_in

    def folder(self, key: str) -> Path:
        """Where a model lies; the built-in one's for a model that is no longer there."""
        folder = self.root / key
        inside = re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,127}", key) is not None
        return folder if key != BUILT_IN and inside and folder.is_dir() else self._built_in

    def models(self) -> tuple[tuple[Model, ...], tuple[Damaged, ...]]:
        """Every model by its manifest alone, the built-in one first, and what is damaged."""
        found = [self.model(BUILT_IN)]
        damaged: list[Damaged] = []
        for folder in sorted(self.root.iterdir()):
            if folder.is_dir() and not folder.name.startswith("."):
                try:
                    found.append(self.model(folder.name))
                except HummingbirdError as error:
                    damaged.append(Damaged(folder.name, error.message))
        return tuple(found), tuple(damaged)

    def model(self, key: str) -> Model:
        """One model by its manifest.

        Raises:
            InputError: ``bundle.*`` for a manifest that cannot be read.
            ResourceError: ``bundle.unreadable``.
        """
        folder = self._built_in if key == BUILT_IN else self.root / key
        try:
            with (folder / MANIFEST).open("rb") as file:
                manifest = Manifest.from_json(file.read(MAX_BYTES + 1))
            with (folder / manifest.licence.file).open("rb") as file:
                licence_text = file.read(MAX_BYTES).decode("utf-8", errors="replace")
        except OSError as error:
            raise unreadable(f"{folder.name}/{MANIFEST}", error) from error
        return Model(
            key=key,
            folder=folder,
            name=manifest.name,
            bytes=sum(entry.bytes for entry in manifest.files.values()),
            licence=manifest.licence.name,
            licence_text=licence_text,
            choices=choices_from(manifest),
        )

    def add(self, source: Path, report: Report, cancel: CancelToken) -> Model:
        """Import a bundle folder, or a .zip of one; nothing of it stays after a failure.

        Args:
            source: a folder or a zip file.
            report: told how far it is.
            cancel: stops it between two pieces of a file.

        Raises:
            InputError: ``import.not_a_bundle``, ``import.bad_zip``, ``bundle.*``.
            IntegrityError: ``import.bomb``, ``bundle.*``.
            ResourceError: ``import.no_space``, ``bundle.unreadable``, ``output.*``.
            UsageError: ``import.exists``.
            Cancelled: ``runtime.cancelled``.
        """
        try:
            if source.is_dir():
                return self._add_folder(source, report, cancel)
            if not source.is_file():
                raise InputError(
                    "import.not_a_bundle",
                    f"{source.name}: got nothing there, expected a bundle folder or a .zip",
                    hint="choose a folder that `hummingbird export` wrote",
                )
            with open_zip(source) as archive:
                total = archive.size
                self._check_space(total)
                return self._publish(
                    lambda folder: archive.extract(folder, lambda n: report(n, total), cancel),
                    archive.manifest,
                )
        except OSError as error:
            raise unreadable(source.name, error) from error

    def delete(self, key: str) -> None:
        """Remove an imported model.

        Raises:
            UsageError: ``import.built_in``.
        """
        if key == BUILT_IN:
            raise UsageError(
                "import.built_in",
                "got the built-in model, expected an imported one",
                hint="it comes with the app",
            )
        aside = self.root / f".deleted-{key}"
        (self.root / key).rename(aside)
        shutil.rmtree(aside, ignore_errors=True)

    def sweep(self) -> None:
        """Remove what a killed app left behind."""
        for leftover in self.root.iterdir():
            if leftover.name.startswith((".deleted-", ".hummingbird-")):
                shutil.rmtree(leftover, ignore_errors=True)

    def _add_folder(self, source: Path, report: Report, cancel: CancelToken) -> Model:
        if not (source / MANIFEST).is_file():
            raise InputError(
                "import.not_a_bundle",
                f"folder {source.name}: got no {MANIFEST}, expected a bundle",
                hint="choose a folder that `hummingbird export` wrote",
            )
        sizes = list_files(source)  # refuses links, devices and odd names
        total = sum(sizes.values())
        self._check_space(total)
        with (source / MANIFEST).open("rb") as file:
            manifest = Manifest.from_json(file.read(MAX_BYTES + 1))

        def copy(folder: Path) -> None:
            done = 0
            for name, size in sizes.items():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
                with (
                    open(os.open(source / name, flags), "rb") as read,
                    (folder / name).open("xb") as write,
                ):
                    left = size
                    while left > 0 and (chunk := read.read(min(_CHUNK, left))):
                        cancel.raise_if_cancelled()
                        write.write(chunk)
                        left -= len(chunk)
                        done += len(chunk)
                        report(done, total)

        return self._publish(copy, manifest)

    def _publish(self, fill: Callable[[Path], None], manifest: Manifest) -> Model:
        key = f"{manifest.name[:60]}-{manifest.bundle_id[:8]}"
        key = re.sub(r"[^A-Za-z0-9_-]", "-", key)
        if not re.match(r"[A-Za-z0-9_]", key):
            key = "model" + key
        if (self.root / key).exists():
            raise UsageError(
                "import.exists",
                f"model {manifest.name}: it is here already",
                hint="delete it first to import it again",
            )
        with atomic_folder(self.root / key) as partial:
            fill(partial)
            Bundle.open(partial)
        return self.model(key)

    def _check_space(self, needed: int) -> None:
        free = shutil.disk_usage(self.root).free
        if needed + SPARE > free:
            raise ResourceError(
                "import.no_space",
                f"the model has {needed >> 20} MiB, {free >> 20} MiB are free",
                hint="free some space on this device",
            )
