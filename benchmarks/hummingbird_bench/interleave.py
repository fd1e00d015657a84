"""Runs arms side by side: in rounds, each arm once a round, every other round in reverse order.

ABBA: what drifts slowly (heat, neighbours) meets all arms alike. The first run of a process is
apart from its steady ones. Each finished run is on the disk before the next one starts.
"""

from __future__ import annotations

import dataclasses
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hummingbird_bench.arms.node_counts import node_counts
from hummingbird_bench.child import Child, Starter
from hummingbird_bench.run_folder import RunFolder, measurement_plan
from hummingbird_bench.sample import Sample, steady
from hummingbird_bench.statistics import StopRule, log_ratios
from hummingbird_bench.workload import Workload
from hummingbird_runtime.errors import InputError, UsageError

LIMIT_S = 3600.0
"""Seconds that starting an arm, or one run of it, may take."""


@dataclass(frozen=True)
class Measurement:
    """What is measured and how; fixed before the first run.

    Raises:
        UsageError: ``bench.arms`` for two arms of one name, or a pair of no arms;
            ``bench.no_runs`` for none.
    """

    workloads: tuple[Workload, ...]
    """the arms"""
    rule: StopRule
    """when to end; with no pairs, ``rule.most`` rounds are run"""
    pairs: tuple[tuple[str, str], ...] = ()
    """names of two arms whose ratio the rule looks at"""
    seed: int = 0
    """of the order of arms"""
    fresh: bool = True
    """a process for every round; else one for the whole measurement, with its weights loaded"""
    limit_s: float = LIMIT_S
    """seconds that starting an arm, or one run of it, may take"""

    def __post_init__(self) -> None:
        names = [work.name for work in self.workloads]
        strangers = {name for pair in self.pairs for name in pair} - set(names)
        if len(set(names)) != len(names) or strangers:
            raise UsageError(
                "bench.arms",
                f"got arms {', '.join(names)} and pairs of {', '.join(sorted(strangers)) or 'them'}"
                ", expected each name once, and pairs of these",
                hint="name each arm once",
            )
        if not names:
            raise UsageError("bench.no_runs", "got no arm, expected one", hint="name a workload")


@dataclass(frozen=True)
class Measured:
    """What came out."""

    samples: tuple[Sample, ...]
    """every finished run"""
    identities: dict[str, dict[str, Any]]
    """arm -> what it told of itself"""


@dataclass(frozen=True)
class Progress:
    """How far a measurement is."""

    arm: str
    """what runs now"""
    done: int
    """rounds that are finished"""
    most: int
    """rounds at most"""
    seconds_left: float | None
    """until ``most`` rounds, at the pace so far; None before the first of them"""


def abba(arms: Sequence[str], seed: int) -> Iterator[tuple[str, ...]]:
    """The order of arms in each round, endlessly: a shuffled one, then the same in reverse.

    Args:
        arms: names.
        seed: of the shuffling.
    """
    generator = random.Random(seed)
    while True:
        order = list(arms)
        generator.shuffle(order)
        yield tuple(order)
        yield tuple(reversed(order))


def measure(
    asked: Measurement,
    folder: Path,
    *,
    start: Starter | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    check: Callable[[Mapping[str, Mapping[str, Any]]], None] | None = None,
) -> Measured:
    """Run what is still missing of a measurement.

    Args:
        asked: what; the folder of an earlier start goes on where that one ended.
        folder: for samples and logs.
        start: starts the child of a workload; None starts the program of its kind.
        on_progress: told before each run.
        check: given what the arms told of themselves as soon as all did; may raise.

    Raises:
        HummingbirdError: ``bench.*`` of children and the folder.
    """
    plan = measurement_plan(
        asked.workloads,
        {
            "seed": asked.seed,
            "fresh": asked.fresh,
            "pairs": [list(pair) for pair in asked.pairs],
            "rule": dataclasses.asdict(asked.rule),
        },
    )
    return _Runs(asked, RunFolder(folder, plan), start, on_progress, check).run()


def require_steady(samples: Sequence[Sample], arm: str) -> list[Sample]:
    """The steady runs of an arm.

    Raises:
        InputError: ``bench.no_runs`` for none at all, ``bench.warm_up_only`` for none but cold and
            first ones.
    """
    own = [sample for sample in samples if sample.arm == arm]
    found = steady(samples, arm)
    if not own:
        raise _no_run("bench.no_runs", arm, "no run")
    if not found:
        raise _no_run("bench.warm_up_only", arm, "warm-up runs alone")
    return found


class _Runs:
    """One start of a measurement."""

    def __init__(
        self,
        asked: Measurement,
        folder: RunFolder,
        start: Starter | None,
        on_progress: Callable[[Progress], None] | None,
        check: Callable[[Mapping[str, Mapping[str, Any]]], None] | None,
    ) -> None:
        self.asked = asked
        self.folder = folder
        self.start = start
        self.on_progress = on_progress
        self.check = check
        self.works = {work.name: work for work in asked.workloads}
        self.providers: dict[Workload, dict[str, int]] = {}
        self.alive: dict[str, Child] = {}
        self.began = time.monotonic()
        self.begun_at: int | None = None

    def run(self) -> Measured:
        with ExitStack() as stack:
            stack.callback(self._close_all)
            for number, order in enumerate(abba(list(self.works), self.asked.seed)):
                if self._is_over(number):
                    break
                for name in order:
                    if len(self._counted(name)) <= number:
                        self._tell(name, number)
                        self._round(self.works[name], number)
        return Measured(tuple(self.folder.samples), self.folder.identities)

    def _round(self, work: Workload, number: int) -> None:
        """One steady run of an arm, with what must come before it in its process."""
        child = self.alive.get(work.name) or self._open(work, number)
        try:
            self.folder.append(child.run(len(self.folder.samples), "steady"))
        finally:
            if self.asked.fresh:
                self.alive.pop(work.name).close()

    def _open(self, work: Workload, number: int) -> Child:
        """A new process after its first run."""
        nameless = dataclasses.replace(work, name="any")
        if nameless not in self.providers:
            self.providers[nameless] = node_counts(work) if self._is_ours(work) else {}
        label = f"{list(self.works).index(work.name):02d}-{number:03d}"
        if self.start is not None:
            child = self.start(work, self.folder.logs, label)
        else:
            child = Child(work, self.folder.logs, label, limit_s=self.asked.limit_s)
        child.providers = self.providers[nameless]
        self.alive[work.name] = child
        child.open()
        self.folder.identify(work.name, child.identity)
        if self.check is not None and self.folder.identities.keys() == self.works.keys():
            self.check(self.folder.identities)
        first = child.run(len(self.folder.samples), "first")
        self.folder.append(first)
        if (cold := child.cold(first, len(self.folder.samples))) is not None:
            self.folder.append(cold)
        return child

    def _is_ours(self, work: Workload) -> bool:
        return work.kind == "runtime" and self.start is None

    def _counted(self, name: str) -> list[Sample]:
        return steady(self.folder.samples, name)

    def _is_over(self, number: int) -> bool:
        """Whether ``number`` rounds are enough; a round begun earlier is finished first."""
        if any(len(self._counted(name)) < number for name in self.works):
            return False
        if not number or not self.asked.pairs:
            return number >= self.asked.rule.most
        ratios = [
            log_ratios(*([s.wall_s for s in self._counted(name)][:number] for name in pair))
            for pair in self.asked.pairs
        ]
        return self.asked.rule.is_over(ratios, time.monotonic() - self.began)

    def _tell(self, arm: str, number: int) -> None:
        if self.on_progress is None:
            return
        if self.begun_at is None:
            self.begun_at = number
        finished, most = number - self.begun_at, self.asked.rule.most
        pace = (time.monotonic() - self.began) / finished if finished else None
        left = None if pace is None else pace * (most - number)
        self.on_progress(Progress(arm, number, most, left))

    def _close_all(self) -> None:
        for child in self.alive.values():
            child.close()
        self.alive.clear()


def _no_run(code: str, arm: str, got: str) -> InputError:
    return InputError(
        code,
        f"arm {arm}: got {got}, expected at least one steady run",
        hint="run at least one round to its end",
    )
