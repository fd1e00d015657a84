"""Curation stages that take no time and misbehave on demand: the clip's caption says how.

Captions: ``crash``, ``hang``, ``hog``, ``raise``, ``nan``, ``reject``, ``grow``, ``extra``; any
other is a good clip.
"""

from __future__ import annotations

import os
import signal
import time
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar

from hummingbird_runtime.errors import InputError, ResourceError
from hummingbird_train.curation.stage import FramePlan, SkipRest

KEYS = FramePlan(max_frames=1, height=16, key_frames=True)
ALL = FramePlan(max_frames=3, height=16)
BUILDER = "fake_stages:build"


class Fake:
    """What the three have in common."""

    def parameters(self) -> dict:
        return asdict(self)


@dataclass(frozen=True)
class First(Fake):
    """Mean of a key frame and a number made of the clip's id."""

    name: ClassVar[str] = "first"
    version: ClassVar[int] = 1
    needs: ClassVar[FramePlan] = KEYS
    after: ClassVar[tuple[str, ...]] = ()
    scale: float = 1.0

    def score(self, clip, frames, earlier) -> dict:
        scores = {
            "mean": float(frames.of(KEYS).mean()) * self.scale,
            "number": zlib.crc32(Path(clip.uri).name.encode("utf-8", "surrogateescape")) % 1000,
            "hash": f"{zlib.crc32(clip.caption.encode()):08x}",
        }
        if clip.caption == "reject":
            raise SkipRest("captioned so", scores)
        return scores


@dataclass(frozen=True)
class Second(Fake):
    """Does what the caption says."""

    name: ClassVar[str] = "second"
    version: ClassVar[int] = 1
    needs: ClassVar[FramePlan] = ALL
    after: ClassVar[tuple[str, ...]] = ()
    delay: float = 0.0

    def score(self, clip, frames, earlier) -> dict:
        time.sleep(self.delay)
        print("a library that talks")
        if clip.caption == "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        elif clip.caption == "hang":
            Path(clip.uri + ".hangs").touch()
            time.sleep(3600)
        elif clip.caption == "hog":
            return {"x": len(bytearray(64 << 30))}
        elif clip.caption == "raise":
            raise InputError("clip.corrupt", "captioned so")
        elif clip.caption == "nan":
            return {"x": float("nan")}
        elif clip.caption == "extra":
            raise ResourceError("extra.missing", "stage second: no module 'nothing'")
        elif clip.caption == "grow":
            with open(clip.uri, "ab") as stream:
                stream.write(b"more")
        return {"frames": len(frames.of(ALL)), "good": True}


@dataclass(frozen=True)
class Third(Fake):
    """Reads what the second measured."""

    name: ClassVar[str] = "third"
    version: ClassVar[int] = 1
    needs: ClassVar[FramePlan] = ALL
    after: ClassVar[tuple[str, ...]] = ("second",)

    def score(self, clip, frames, earlier) -> dict:
        return {"sum": earlier["second"]["frames"] + float(frames.of(ALL).std()), "name": "ü"}


KINDS = {"first": First, "second": Second, "third": Third}


def build(table: Mapping[str, Mapping[str, object]]) -> list:
    """Stages by name; an empty table means all three."""
    table = table or {name: {} for name in KINDS}
    return [KINDS[name](**values) for name, values in table.items()]
