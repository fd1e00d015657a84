"""What a run has decided: which clips stay and why others go, and the caption that each one gets.

Reads cut.parquet (clip_id, keep, reason) and captions.parquet (clip_id, original, rewrite, caption,
recaptioner, accepted, reason) of a run's folder.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hummingbird_runtime.errors import InputError
from hummingbird_train.curation.arrow import pyarrow
from hummingbird_train.curation.clip import Clip
from hummingbird_train.curation.run_folder import RunFolder

CAPTIONS_FILE = "captions.parquet"
CAPTION_COLUMNS = (
    "clip_id", "original", "rewrite", "caption", "recaptioner", "accepted", "reason",
)  # fmt: skip


@dataclass(frozen=True)
class Recaption:
    """What became of one caption."""

    clip_id: str
    """the clip"""
    original: str
    """as found beside the video"""
    rewrite: str
    """what the recaptioner said; empty when it failed"""
    caption: str
    """what to train on: the rewrite when accepted, else the original"""
    recaptioner: str
    """its name, with the model's"""
    accepted: bool
    """whether the guard let the rewrite through"""
    reason: str
    """why not"""


@dataclass(frozen=True)
class Selection:
    """The decisions of a run."""

    decisions: dict[str, tuple[bool, str]]
    """(kept, reason) by clip id"""
    captions: dict[str, Recaption]
    """by clip id; empty before `curate recaption`"""

    def kept(self, clip: Clip) -> bool:
        """Whether the cut keeps a clip; one that it has not seen is not kept."""
        return self.decisions.get(clip.id, (False, ""))[0]

    def caption(self, clip: Clip) -> str:
        """The caption to train on."""
        found = self.captions.get(clip.id)
        return clip.caption if found is None else found.caption


def read_selection(run: RunFolder) -> Selection:
    """Read both tables.

    Raises:
        InputError: ``curation.no_cut`` before `curate cut`; ``curation.table`` for a damaged file.
    """
    if not run.cut_file.is_file():
        raise InputError(
            "curation.no_cut",
            f"run {run.path}: got no {run.cut_file.name}, expected the decisions of a cut",
            hint="run `hummingbird curate cut RUN` first",
        )
    decisions = {
        str(clip): (bool(keep), str(reason))
        for clip, keep, reason in _rows(run.cut_file, ("clip_id", "keep", "reason"))
    }
    return Selection(decisions, read_captions(run))


def read_captions(run: RunFolder) -> dict[str, Recaption]:
    """The captions by clip id; empty when nothing was recaptioned.

    Raises:
        InputError: ``curation.table``.
    """
    path = run.path / CAPTIONS_FILE
    if not path.is_file():
        return {}
    return {str(row[0]): Recaption(*row) for row in _rows(path, CAPTION_COLUMNS)}


def _rows(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[Any, ...]]:
    pa, pq, _ = pyarrow()
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(4096, columns=list(columns)):
                yield from zip(*(batch.column(c).to_pylist() for c in columns), strict=True)
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise InputError(
            "curation.table",
            f"table {path}: {str(error).splitlines()[0]}, expected columns {', '.join(columns)}",
            hint="write it again with the verb that makes it",
        ) from error
