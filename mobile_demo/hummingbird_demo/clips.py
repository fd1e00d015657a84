"""The clips that were drawn, each a folder in the app's own storage: exact frames, a poster, facts.

A clip appears whole or not at all and is checked against its SHA-256 when it is opened. Here no
file is written for others; see ``sharing``.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import secrets
import shutil
import time
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hummingbird_runtime import IntegrityError, Video
from hummingbird_runtime.atomic import atomic_folder

SCHEMA = 1
_FRAMES, _POSTER, _FACTS = "clip.npz", "poster.png", "clip.json"
_ID = re.compile(r"[0-9]{8}-[0-9]{6}-[0-9a-f]{6}")
_LIMIT = 1 << 16
MAX_PIXELS = 1 << 29
"""Largest clip that is opened, in pixels of all frames together."""


@dataclass(frozen=True)
class Clip:
    """One clip of the library; raises ``ValueError`` for facts that no release writes."""

    id: str
    """Date, time and six random digits; also the folder's name."""
    prompt: str
    seed: int
    model: str
    """Name of the bundle."""
    bundle_id: str
    fps: float
    frames: int
    height: int
    """Pixels."""
    width: int
    seconds: float
    """How long it took to draw."""
    created: int
    """Seconds since 1970, UTC."""
    sha256: str
    """Of the file with the frames."""
    schema: int = SCHEMA

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            kind = {"str": (str,), "int": (int,), "float": (int, float)}[str(field.type)]
            if type(getattr(self, field.name)) not in kind:
                raise ValueError(f"{field.name}, expected {field.type}")
        if self.schema != SCHEMA or not _ID.fullmatch(self.id):
            raise ValueError(f"schema {self.schema}, id {self.id!r:.40}")


@dataclass(frozen=True)
class Shelf:
    """What lies in the library, newest first."""

    clips: tuple[Clip, ...]
    damaged: int
    """Folders left out because their facts cannot be read."""


class Library:
    """Clips below one folder.

    Args:
        root: made if it is missing; nobody else writes there.
    """

    def __init__(self, root: Path) -> None:
        root.mkdir(parents=True, exist_ok=True)
        self.root = root

    def add(self, video: Video, *, model: str, seconds: float) -> Clip:
        """Keep a clip.

        Raises:
            ResourceError: ``output.*``, such as a full disk; nothing is left behind.
        """
        now = time.time()
        stamp = time.strftime("%Y%m%d-%H%M%S", time.localtime(now))
        clip_id = f"{stamp}-{secrets.token_hex(3)}"
        count, height, width, _ = video.frames.shape
        with atomic_folder(self.root / clip_id) as folder:
            video.save(folder / _FRAMES)
            middle = video.frames[count // 2 : count // 2 + 1]
            Video(middle, fps=video.fps).save(folder / _POSTER)
            clip = Clip(
                id=clip_id,
                prompt=video.prompt,
                seed=video.seed,
                model=model,
                bundle_id=video.bundle_id,
                fps=float(video.fps),
                frames=count,
                height=height,
                width=width,
                seconds=round(seconds, 3),
                created=int(now),
                sha256=hashlib.sha256((folder / _FRAMES).read_bytes()).hexdigest(),
            )
            text = json.dumps(dataclasses.asdict(clip), ensure_ascii=False, indent=2)
            (folder / _FACTS).write_text(text + "\n", encoding="utf-8")
        return clip

    def shelf(self) -> Shelf:
        """Every clip, without opening its frames."""
        clips: list[Clip] = []
        damaged = 0
        for folder in self.root.iterdir():
            if not _ID.fullmatch(folder.name):
                continue
            try:
                with (folder / _FACTS).open("rb") as file:
                    value: Any = json.loads(file.read(_LIMIT + 1))
                clip = Clip(**value)
            except (OSError, ValueError, TypeError, RecursionError):
                damaged += 1
                continue
            if clip.id == folder.name:
                clips.append(clip)
            else:
                damaged += 1
        return Shelf(tuple(sorted(clips, key=lambda clip: clip.id, reverse=True)), damaged)

    def poster(self, clip: Clip) -> Path:
        """The picture that stands for a clip: a PNG of its size."""
        return self.root / clip.id / _POSTER

    def open(self, clip: Clip) -> Video:
        """The exact frames again.

        Raises:
            IntegrityError: ``library.damaged``.
        """
        path = self.root / clip.id / _FRAMES
        shape = (clip.frames, clip.height, clip.width, 3)
        try:
            if clip.frames * clip.height * clip.width > MAX_PIXELS:
                raise ValueError(f"{shape}, expected at most {MAX_PIXELS} pixels")
            if hashlib.sha256(path.read_bytes()).hexdigest() != clip.sha256:
                raise ValueError("its SHA-256 differs from the one written with it")
            with np.load(path, allow_pickle=False) as archive:
                frames = archive["frames"]
            if frames.dtype != np.uint8 or frames.shape != shape:
                raise ValueError(f"{frames.dtype} {frames.shape}, expected uint8 {shape}")
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise IntegrityError(
                "library.damaged",
                f"clip {clip.id}: {error}",
                hint="delete it; the same prompt and seed draw it again",
            ) from error
        return Video(
            frames, fps=clip.fps, seed=clip.seed, prompt=clip.prompt, bundle_id=clip.bundle_id
        )

    def delete(self, clip: Clip) -> None:
        """Remove a clip; out of sight at once, even if the app is killed meanwhile."""
        aside = self.root / f".deleted-{clip.id}"
        (self.root / clip.id).rename(aside)
        shutil.rmtree(aside, ignore_errors=True)

    def sweep(self) -> None:
        """Remove what a killed app left behind: half-written clips and half-deleted ones."""
        for leftover in self.root.iterdir():
            if leftover.name.startswith((".deleted-", ".hummingbird-")):
                shutil.rmtree(leftover, ignore_errors=True)
