"""What scoring a large source will cost, from a seeded sample of its clips.

    cost = clips x (processor seconds a clip) / 3600 x (price of a processor hour)
    hours = clips x (processor seconds a clip) / 3600 / cores

The sample is drawn by hashing clip ids, so a seed means the same clips on every machine. The
interval is a bootstrap over the clips of the sample. Nothing is written.
"""

from __future__ import annotations

import hashlib
import heapq
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hummingbird_runtime.cancel import CancelToken
from hummingbird_train.curation.clip import Clip, read_clips
from hummingbird_train.curation.config import CurationConfig
from hummingbird_train.curation.engines import local
from hummingbird_train.curation.row import FAILED
from hummingbird_train.curation.run import ScoreOptions
from hummingbird_train.curation.scoring import Task, load_stages
from hummingbird_train.curation.worker import WorkerConfig

DECODE = "(decode)"
_RESAMPLES = 2000


@dataclass(frozen=True)
class Estimate:
    """Costs of a sample, and what they mean for more clips."""

    clips: int
    """clips in the source."""
    sampled: int
    """clips measured."""
    failed: int
    """of those, clips with a failed stage; their time counts too."""
    seconds: float
    """mean processor seconds of a clip."""
    low: float
    """lower end of the 95 % interval of ``seconds``."""
    high: float
    """upper end."""
    stages: dict[str, float]
    """mean processor seconds of a clip by stage, ``(decode)`` among them, dearest first."""
    wall: float
    """seconds that the sample took, start of the processes included."""

    def hours(self, clips: int, cores: int) -> float:
        """Wall hours of ``clips`` clips on ``cores`` processor cores."""
        return self.core_hours(clips) / cores

    def core_hours(self, clips: int) -> float:
        """Processor hours of ``clips`` clips."""
        return clips * self.seconds / 3600

    def text(self, clips: int, cores: int, price: float) -> str:
        """The estimate as Markdown, with its formula.

        Args:
            clips: how many clips to project to.
            cores: processor cores that work at the same time.
            price: of one processor hour, in any currency.
        """
        rate = 1 / self.seconds
        hours, total = self.hours(clips, cores), self.core_hours(clips)
        spread = self.low / self.seconds, self.high / self.seconds
        rows = [
            f"| {name} | {seconds:.4f} | {seconds / self.seconds:.1%} |"
            for name, seconds in self.stages.items()
        ]
        return "\n".join(
            [
                "| stage | processor s a clip | share |",
                "|---|---:|---:|",
                *rows,
                f"| **all** | {self.seconds:.4f} | 100% |",
                "",
                f"sample: {self.sampled} of {self.clips} clips, {self.failed} failed, "
                f"{self.wall:.1f} s",
                f"rate: {rate:.2f} clips/s a core "
                f"(95 % interval {1 / self.high:.2f} to {1 / self.low:.2f})",
                f"core-hours: {clips:,} clips x {self.seconds:.4f} s / 3600 = {total:,.1f} "
                f"({total * spread[0]:,.1f} to {total * spread[1]:,.1f})",
                f"hours: {total:,.1f} core-hours / {cores} cores = {hours:,.2f}",
                f"cost: {total:,.1f} core-hours x {price:g} = {total * price:,.2f} "
                f"({total * spread[0] * price:,.2f} to {total * spread[1] * price:,.2f})",
            ]
        )


def estimate(
    source: Path,
    config: CurationConfig,
    options: ScoreOptions,
    *,
    sample: int = 32,
    seed: int = 0,
    token: CancelToken | None = None,
    watch: Callable[[int, int], None] = lambda done, total: None,
) -> Estimate:
    """Measure a sample of a source.

    Args:
        source: what ``read_clips`` takes.
        config: its stages are measured.
        options: as for scoring.
        sample: clips to measure; all when the source has fewer.
        seed: of the draw.
        token: stops it.
        watch: called with (clips done, clips in all).

    Raises:
        UsageError, InputError, ResourceError: as scoring does.
    """
    token = token or CancelToken()
    stages = load_stages(config.builder, config.stages)
    names = tuple(stage.name for stage in stages)
    total, chosen = draw(read_clips(source), sample, seed)
    worker = WorkerConfig(
        config.stages, config.builder, options.seconds, options.memory, options.ignore_skips
    )
    began = time.monotonic()
    costs: dict[str, float] = {}
    by_stage = Counter[str]()
    failed = 0
    tasks = (Task(clip, names) for clip in chosen)
    for task, outcomes in local.score(tasks, worker, options.processes, token):
        costs[task.clip.id] = sum(o.seconds + o.decode_seconds for o in outcomes)
        for outcome in outcomes:
            by_stage[outcome.stage] += outcome.seconds
            by_stage[DECODE] += outcome.decode_seconds
        failed += any(outcome.status == FAILED for outcome in outcomes)
        watch(len(costs), len(chosen))
    values = np.array([costs[clip.id] for clip in chosen])  # (n,), in the draw's order
    low, high = interval(values, seed)
    means = {name: seconds / len(values) for name, seconds in by_stage.most_common()}
    return Estimate(
        total, len(values), failed, max(float(values.mean()), 1e-9), max(low, 1e-9),
        max(high, 1e-9), means, time.monotonic() - began,
    )  # fmt: skip


def draw(clips: Iterable[Clip], count: int, seed: int) -> tuple[int, list[Clip]]:
    """(number of clips, the ``count`` whose hashed ids are lowest, in that order)."""
    total = 0

    def hashed() -> Iterable[tuple[bytes, str, Clip]]:
        nonlocal total
        for clip in clips:
            total += 1
            text = f"{seed}\0{clip.id}".encode()
            yield hashlib.blake2b(text, digest_size=16).digest(), clip.id, clip

    chosen = heapq.nsmallest(count, hashed(), key=lambda entry: entry[:2])
    return total, [clip for _, _, clip in chosen]


def interval(values: np.ndarray, seed: int) -> tuple[float, float]:
    """95 % bootstrap interval of the mean of values float64 [n]."""
    rng = np.random.default_rng(seed)
    means = rng.choice(values, (_RESAMPLES, len(values))).mean(axis=1)  # (resamples,)
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)
