"""Scoring a source: list its clips, measure what the ledger lacks, append it; resumes by itself.

What is missing is asked clip by clip and stage by stage, so a killed run, a new stage and a changed
parameter are one case. Rows of a clip are written together, a few seconds' worth at a time.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Protocol

from hummingbird_runtime.cancel import CancelToken
from hummingbird_runtime.errors import ExecutionError
from hummingbird_train.curation.clip import Clip, read_clips
from hummingbird_train.curation.config import CurationConfig
from hummingbird_train.curation.engines import local
from hummingbird_train.curation.ledger import Known, Ledger, StageKey
from hummingbird_train.curation.row import FAILED, OK, SKIPPED, Row
from hummingbird_train.curation.run_folder import RunFolder
from hummingbird_train.curation.scoring import (
    REJECTED,
    UNSCORED,
    Task,
    load_stages,
    outcome_rows,
    stage_keys,
)
from hummingbird_train.curation.stage import Outcome, Stage
from hummingbird_train.curation.worker import WorkerConfig

_LOOKUP = 256  # clips whose rows are looked up at a time
_FLUSH_ROWS = 8192


class Engine(Protocol):
    """``local.score`` or ``ray_data.score``."""

    def __call__(
        self, tasks: Iterable[Task], config: WorkerConfig, processes: int, token: CancelToken
    ) -> Generator[tuple[Task, list[Outcome]], None, None]:
        """Measure every task."""
        ...


@dataclass(frozen=True)
class ScoreOptions:
    """How a source is scored; none of it changes a score."""

    processes: int = 1
    """clips measured at the same time."""
    seconds: float = 120.0
    """time limit of one clip."""
    memory: int = 4 << 30
    """bytes of address space of one worker, where the system can bound it; 0: no bound."""
    ignore_skips: bool = False
    """measure everything of clips that a stage has rejected too."""
    retry_failed: bool = False
    """measure again what failed before."""
    flush_seconds: float = 5.0
    """rows wait at most this long before they are written."""


@dataclass(frozen=True)
class Tally:
    """How far a run is."""

    total: int
    """clips of the source."""
    ready: int
    """clips that need nothing more, scored earlier or now."""
    scored: int
    """clips measured by this call."""
    failed: int
    """clips of this call with at least one failed stage."""
    seconds: float
    """since the measuring began."""


@dataclass
class Summary:
    """What a call of ``score`` did."""

    total: int = 0
    """clips of the source."""
    twice: int = 0
    """entries of the source that named a clip a second time."""
    scored: int = 0
    """clips measured now."""
    failed: int = 0
    """of those, clips with a failed stage."""
    failed_before: int = 0
    """clips that failed in an earlier call and were left alone."""
    codes: Counter[str] = field(default_factory=Counter)
    """failed clips by error code."""
    notes: list[str] = field(default_factory=list)
    """what was wrong with the ledger."""


def score(
    source: Path,
    folder: Path,
    config: CurationConfig,
    options: ScoreOptions = ScoreOptions(),
    *,
    engine: Engine = local.score,
    token: CancelToken | None = None,
    watch: Callable[[Tally], None] = lambda tally: None,
) -> Summary:
    """Measure every stage of every clip that the run does not have yet.

    Args:
        source: what ``read_clips`` takes.
        folder: the run; made when it is not there.
        config: stages; rules are not looked at.
        options: how to measure.
        engine: where to measure.
        token: stops the run; what is measured by then is kept.
        watch: called after every clip.

    Raises:
        Cancelled: the token was cancelled.
        UsageError, InputError: the source, the configuration or the folder is wrong.
        ResourceError: ``ledger.busy``, ``output.*``, ``extra.missing``.
        ExecutionError: ``curation.all_failed`` when no stage of any clip could be measured.
    """
    token = token or CancelToken()
    run = RunFolder(folder)
    stages = load_stages(config.builder, config.stages)
    keys = stage_keys(stages)
    clips = _checked(read_clips(source), token)
    first = next(clips)  # an empty or wrong source is refused before anything is written
    run.create(source)
    with Ledger.open(run.path, write=True) as ledger:
        summary = Summary(notes=ledger.notes)
        summary.total, summary.twice = run.write_clips(_with(first, clips))
        run.write_stages(source, stages, keys, config.text)
        worker = WorkerConfig(
            config.stages, config.builder, options.seconds, options.memory, options.ignore_skips
        )
        buffer = _Buffer(ledger, options.flush_seconds)
        counts = Counter[str]()
        tasks = _missing(run.clips(), ledger, stages, keys, options, buffer, counts)
        began = time.monotonic()
        measured = False
        results = engine(tasks, worker, options.processes, token)
        try:
            for task, outcomes in results:
                buffer.add(outcome_rows(task, outcomes, keys))
                summary.scored += 1
                codes = {o.error_code for o in outcomes if o.status == FAILED}
                measured |= any(outcome.status == OK for outcome in outcomes)
                summary.failed += bool(codes)
                summary.codes.update(codes)
                ready = counts["ready"] + summary.scored
                spent = time.monotonic() - began
                watch(Tally(summary.total, ready, summary.scored, summary.failed, spent))
        finally:
            results.close()
            buffer.flush()
        ledger.merge()
        summary.failed_before = counts["failed"]
    if summary.failed and summary.failed == summary.total and not measured:
        raise ExecutionError(
            "curation.all_failed",
            f"scoring: got a failure for each of {summary.total} clips, most often "
            f"{summary.codes.most_common(1)[0][0]}, expected scores",
            hint="see `hummingbird curate ledger RUN`; mend it, then score with --retry-failed",
        )
    return summary


class _Buffer:
    """Rows on their way to the ledger: few parts, and little to lose."""

    def __init__(self, ledger: Ledger, seconds: float) -> None:
        self._ledger = ledger
        self._seconds = seconds
        self._rows: list[Row] = []
        self._parts = 0
        self._since = time.monotonic()

    def add(self, rows: Sequence[Row]) -> None:
        self._rows += rows
        if len(self._rows) >= _FLUSH_ROWS or time.monotonic() - self._since > self._seconds:
            self.flush()

    def flush(self) -> None:
        rows, self._rows = self._rows, []
        self._ledger.append(rows)
        self._parts += bool(rows)
        if self._parts and self._parts % 128 == 0:
            self._ledger.merge()
        self._since = time.monotonic()


def _missing(
    clips: Iterator[Clip],
    ledger: Ledger,
    stages: Sequence[Stage],
    keys: Mapping[str, StageKey],
    options: ScoreOptions,
    buffer: _Buffer,
    counts: Counter[str],
) -> Iterator[Task]:
    """What is left to measure; what can be said without measuring goes straight to the buffer."""
    while chunk := list(islice(clips, _LOOKUP)):
        known = ledger.lookup([clip.id for clip in chunk])
        for clip in chunk:
            task, rows = plan_clip(clip, known.get(clip.id, {}), stages, keys, options)
            buffer.add(rows)
            if task.stages:
                yield task
                continue
            counts["ready"] += 1
            now = (known.get(clip.id, {}).get(key) for key in keys.values())
            counts["failed"] += any(has is not None and has.status == FAILED for has in now)


def plan_clip(
    clip: Clip,
    known: Mapping[StageKey, Known],
    stages: Sequence[Stage],
    keys: Mapping[str, StageKey],
    options: ScoreOptions = ScoreOptions(),
) -> tuple[Task, list[Row]]:
    """Say which stages of a clip are left to run, and which are settled without running.

    A skipped stage is settled as long as what skipped it holds: the rejecting stage, or the failed
    one that it reads, is unchanged. New stages behind a reject are skipped the same way.

    Args:
        clip: the clip.
        known: what the ledger has of it.
        stages: in running order.
        keys: of the stages.
        options: ``ignore_skips`` and ``retry_failed`` count.

    Returns:
        (task, perhaps without stages; rows to be written as they are).
    """
    now = {stage.name: known.get(keys[stage.name]) for stage in stages}
    rejection = next(
        (k.reason for k in now.values() if k and k.status == SKIPPED and k.cause == REJECTED), ""
    )
    cause = now.get(rejection.partition(":")[0])
    holds = bool(rejection) and cause is not None and cause.status == OK
    behind = False
    earlier, lost, run = {}, [], []
    settled: list[Outcome] = []
    for stage in stages:
        name, has = stage.name, now[stage.name]
        if has is not None and has.status == OK:
            earlier[name] = has.scores
            behind |= holds and not options.ignore_skips and name == rejection.partition(":")[0]
            continue
        if has is not None and has.status == FAILED and not options.retry_failed:
            lost.append(name)
            continue
        lacking = [other for other in stage.after if other in lost]
        code, reason = (
            (REJECTED, rejection) if behind else (UNSCORED, f"needs {', '.join(lacking)}")
        )
        if not behind and not lacking:
            run.append(name)
            continue
        lost.append(name)
        if has is None or (has.cause, has.reason) != (code, reason):
            settled.append(Outcome(name, SKIPPED, {}, code, reason))
    task = Task(clip, tuple(run), earlier, tuple(lost))
    return task, outcome_rows(task, settled, keys)


def _checked(clips: Iterator[Clip], token: CancelToken) -> Iterator[Clip]:
    for clip in clips:
        token.raise_if_cancelled()
        yield clip


def _with(first: Clip, rest: Iterator[Clip]) -> Iterator[Clip]:
    yield first
    yield from rest
