"""What is to be measured of a clip, and its measuring: the one function that both engines call.

A stage that fails makes a ``failed`` outcome and the others go on; a stage that reads a failed one
is ``skipped``, and so is every stage after one that rejected the clip.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from hummingbird_runtime.cli.verbs import missing_extra
from hummingbird_runtime.errors import ResourceError, UsageError
from hummingbird_train.curation.arrow import plain_text
from hummingbird_train.curation.clip import Clip, clip_id
from hummingbird_train.curation.ledger_index import StageKey
from hummingbird_train.curation.row import FAILED, SKIPPED, Row, Score, plain_scores
from hummingbird_train.curation.stage import Outcome, SkipRest, Stage

BUILDER = "hummingbird_train.curation.stage:build_stages"
DECODE = "decode"
CHANGED = "changed"
"""What begins when every outcome of the clip is void: its file changed while it was read."""
REJECTED, UNSCORED = "clip.rejected", "stage.unscored"
"""Codes of skipped stages, as ``run_stages`` gives them."""
MEMORY = "curation.memory"

_LONGEST = 300  # characters of an error's text


@dataclass(frozen=True)
class Task:
    """What is to be measured of one clip."""

    clip: Clip
    """the clip; ids and paths go to the workers, never frames."""
    stages: tuple[str, ...]
    """stages to run, in their order."""
    earlier: Mapping[str, Mapping[str, Score]] = field(default_factory=dict)
    """scores of stages that ran before."""
    failed: tuple[str, ...] = ()
    """stages that have no scores and will not get any: failed before, or skipped."""

    def to_json(self) -> str:
        """One ASCII line; stray bytes of file names survive it."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Task:
        """Undo ``to_json``."""
        table = json.loads(text)
        clip = Clip(**table["clip"])
        return cls(clip, tuple(table["stages"]), table["earlier"], tuple(table["failed"]))


def load_stages(builder: str, table: Mapping[str, Mapping[str, object]]) -> list[Stage]:
    """Make the stages of a configuration.

    Args:
        builder: ``module:function`` that takes the table and returns stages in running order.
        table: the ``[stages.NAME]`` tables.

    Raises:
        UsageError: ``curation.builder``; ``stage.*`` from the default builder.
    """
    module, _, name = builder.partition(":")
    try:
        build: Callable[..., list[Stage]] = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UsageError(
            "curation.builder",
            f"builder of the stages: got {builder!r} ({error}), expected MODULE:FUNCTION",
            hint="the module must be importable here",
        ) from error
    return build(table)


def stage_keys(stages: Sequence[Stage]) -> dict[str, StageKey]:
    """(name, version, hash) by name; the hash covers the parameters and the stages it reads."""
    keys: dict[str, StageKey] = {}
    for stage in stages:
        parts = [dict(stage.parameters()), [keys[name] for name in sorted(stage.after)]]
        text = json.dumps(parts, sort_keys=True)
        digest = hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
        keys[stage.name] = (stage.name, stage.version, digest)
    return keys


class _Timed:
    """A stage that says when it begins and how much processor time it took."""

    def __init__(self, stage: Stage, begin: Callable[[str], None], ignore_skips: bool) -> None:
        self.name, self.version, self.needs = stage.name, stage.version, stage.needs
        self.after = stage.after
        self.seconds = 0.0
        self._stage, self._begin, self._ignore_skips = stage, begin, ignore_skips

    def parameters(self) -> Mapping[str, object]:
        return self._stage.parameters()

    def score(
        self, clip: Clip, frames: Any, earlier: Mapping[str, Mapping[str, Score]]
    ) -> Mapping[str, Score]:
        self._begin(self.name)
        began = time.process_time()
        try:
            return plain_scores(self._stage.score(clip, frames, earlier))
        except SkipRest as skip:
            if self._ignore_skips:
                return plain_scores(skip.scores)
            raise
        except ModuleNotFoundError as error:
            raise missing_extra(f"stage {self.name}", error.name or "", "curate") from error
        finally:
            self.seconds = time.process_time() - began


def measure(
    task: Task,
    stages: Mapping[str, Stage],
    begin: Callable[[str], None] = lambda name: None,
    *,
    ignore_skips: bool = False,
) -> Iterator[Outcome]:
    """Measure one clip.

    Args:
        task: which clip, which stages.
        stages: stages by name.
        begin: called with what begins: ``decode`` or a stage's name; with ``CHANGED`` at the end
            when the file is not the one that the clip's id names.
        ignore_skips: measure everything of a clip that a stage has rejected too.

    Yields:
        One outcome a stage; its times are processor seconds.

    Raises:
        ResourceError: ``extra.missing``: no clip can be measured here.
    """
    from hummingbird_train.curation.decode import run_stages

    if _changed(task.clip):
        begin(CHANGED)
        return
    timed: dict[str, _Timed] = {}
    lost = set(task.failed)
    for name in task.stages:
        lacking = [other for other in stages[name].after if other in lost]
        if lacking:
            lost.add(name)
            yield Outcome(name, SKIPPED, {}, UNSCORED, f"needs {', '.join(lacking)}")
        else:
            timed[name] = _Timed(stages[name], begin, ignore_skips)
    begin(DECODE)
    began = time.process_time()
    for outcome in run_stages(task.clip, list(timed.values()), task.earlier):
        spent, seconds = time.process_time() - began, timed[outcome.stage].seconds
        code = outcome.error_code
        if code == "extra.missing":
            raise ResourceError("extra.missing", outcome.error)
        if outcome.status == FAILED and "MemoryError" in outcome.error.partition("(")[0]:
            code = MEMORY
        yield replace(
            outcome,
            error_code=code,
            error=_line(outcome.error),
            seconds=seconds,
            decode_seconds=max(0.0, spent - seconds),
        )
        begin(DECODE)
        began = time.process_time()
    if _changed(task.clip):
        begin(CHANGED)


def outcome_rows(
    task: Task, outcomes: Sequence[Outcome], keys: Mapping[str, StageKey]
) -> list[Row]:
    """Outcomes as ledger rows."""
    return [
        Row(
            task.clip.id, task.clip.uri, *keys[o.stage], o.status, o.scores, o.error_code,
            o.error, o.seconds, o.decode_seconds,
        )
        for o in outcomes
    ]  # fmt: skip


def _changed(clip: Clip) -> bool:
    try:
        facts = os.stat(clip.uri)
        size, changed = facts.st_size, facts.st_mtime_ns
    except (OSError, ValueError):
        size, changed = -1, 0
    return clip_id(clip.uri, clip.start, clip.end, size, changed) != clip.id


def _line(text: Any) -> str:
    return plain_text(" ".join(str(text).split()))[:_LONGEST]
