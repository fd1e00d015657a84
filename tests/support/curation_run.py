"""A small curation run made by hand: real clips on disk, scores written into a real ledger."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hummingbird_runtime.video import Video
from hummingbird_train.curation.clip import Clip, make_clip
from hummingbird_train.curation.cut import decide, write_cut
from hummingbird_train.curation.ledger import Ledger
from hummingbird_train.curation.row import FAILED, OK, Row, Score
from hummingbird_train.curation.rules import Rules
from hummingbird_train.curation.run_folder import RunFolder


@dataclass(frozen=True)
class NamedStage:
    """As much of a stage as a run records."""

    name: str
    version: int = 1

    def parameters(self) -> Mapping[str, object]:
        return {}


def write_clip(path: Path, *, seed: int, frames: int = 6, size: int = 32) -> Path:
    """A square that moves over a tinted ground."""
    rng = np.random.default_rng(seed)
    video = np.tile(rng.integers(30, 200, 3, dtype=np.uint8), (frames, size, size, 1))
    for i in range(frames):
        video[i, 8:20, 2 * i : 2 * i + 10] = 250
    Video(video, fps=8).save(path)
    return path


def make_run(
    folder: Path,
    clips: Sequence[Clip],
    scores: Mapping[str, Mapping[str, Mapping[str, Score]]],
    rules: Mapping[str, object] | None,
) -> RunFolder:
    """Record clips and scores, and cut.

    Args:
        folder: the run, made here; the source is its parent.
        clips: in order.
        scores: by clip id, stage, key; a stage that is absent for a clip failed on it.
        rules: of the cut; None leaves the run uncut.
    """
    run = RunFolder(folder)
    run.create(folder.parent)
    run.write_clips(clips)
    names = sorted({stage for of_clip in scores.values() for stage in of_clip})
    stages = [NamedStage(name) for name in names]
    run.write_stages(folder.parent, stages, {n: (n, 1, "hash") for n in names}, "")
    rows = [
        Row(clip.id, clip.uri, name, 1, "hash", OK, found[name], seconds=0.01, decode_seconds=0.002)
        if name in (found := scores.get(clip.id, {}))
        else Row(clip.id, clip.uri, name, 1, "hash", FAILED, {}, "clip.corrupt", "torn <b>")
        for clip in clips
        for name in names
    ]
    with Ledger.open(run.path, write=True) as ledger:
        ledger.append(rows)
    if rules is not None:
        table = Rules.from_toml(rules)
        write_cut(run, decide(run, table), table)
    return run


def few_clips(folder: Path, captions: Sequence[str]) -> list[Clip]:
    """One short clip for each caption."""
    folder.mkdir(exist_ok=True)
    return [
        make_clip(write_clip(folder / f"clip {i}.mp4", seed=i), caption=text)
        for i, text in enumerate(captions)
    ]


def captioned_clips(folder: Path, captions: Sequence[str]) -> list[Clip]:
    """Clips whose files are no video, for what opens none."""
    folder.mkdir(exist_ok=True)
    made = []
    for i, text in enumerate(captions):
        (folder / f"{i}.mp4").write_bytes(b"clip %d" % i)
        made.append(make_clip(folder / f"{i}.mp4", caption=text))
    return made
