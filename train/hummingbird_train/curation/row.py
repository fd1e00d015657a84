"""One line of the curation ledger: what one stage gave for one clip, or why it gave nothing."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hummingbird_runtime.errors import ExecutionError

Score = float | int | bool | str

OK, FAILED, SKIPPED = "ok", "failed", "skipped"
STATUSES = (OK, FAILED, SKIPPED)


@dataclass(frozen=True)
class Row:
    """The outcome of one stage on one clip."""

    clip_id: str
    """name of the clip: path, span, size and time of change, hashed."""
    uri: str
    """path of the clip's file, for reading; the id is what counts."""
    stage: str
    """name of the stage."""
    stage_version: int
    """version of the stage's code."""
    parameters: str
    """hash of the stage's parameters and of the stages that it reads."""
    status: str
    """``ok``, ``failed`` or ``skipped`` (an earlier stage had rejected the clip)."""
    scores: Mapping[str, Score] = field(default_factory=dict)
    """what was measured; empty unless ``ok``."""
    error_code: str = ""
    """stable code of a failure; for a skipped stage the stage that rejected the clip."""
    error: str = ""
    """one line: the failure, or why the clip was rejected."""
    seconds: float = 0.0
    """processor seconds of the stage alone."""
    decode_seconds: float = 0.0
    """processor seconds of decoding that this stage was the first to need."""

    @property
    def key(self) -> tuple[str, str, int, str]:
        """(clip, stage, version, parameters): at most one valid row has it."""
        return self.clip_id, self.stage, self.stage_version, self.parameters


def plain_scores(scores: Mapping[str, Any]) -> dict[str, Score]:
    """Scores as plain Python values; NumPy scalars are unwrapped.

    Raises:
        ExecutionError: ``curation.score`` for NaN, infinities and anything that is no scalar.
    """
    plain: dict[str, Score] = {}
    for name, value in scores.items():
        if getattr(value, "ndim", None) == 0:
            value = value.item()
        if isinstance(value, str):
            value = value.encode("utf-8", "backslashreplace").decode()
        elif not isinstance(value, bool | int | float) or not math.isfinite(value):
            raise ExecutionError(
                "curation.score",
                f"score {name}: got {value!r:.60}, expected a finite number, a bool or text",
                hint="a stage must say what it measured, or raise",
            )
        plain[str(name)] = value
    return plain


def score_text(scores: Mapping[str, Score]) -> str:
    """Scores as canonical JSON: sorted keys, shortest digits that read back equal."""
    return json.dumps(scores, sort_keys=True, separators=(",", ":"), allow_nan=False)


def canonical_line(row: Row) -> str:
    """A row as one JSON line without its timings."""
    return json.dumps(
        {
            "clip_id": row.clip_id,
            "uri": row.uri,
            "stage": row.stage,
            "stage_version": row.stage_version,
            "parameters": row.parameters,
            "status": row.status,
            "scores": dict(row.scores),
            "error_code": row.error_code,
            "error": row.error,
        },
        sort_keys=True,
        separators=(",", ":"),
        allow_nan=False,
    )
