"""One run of one arm, as it was measured: times, memory, load of the machine, hashes of the output.

Raw material only; every figure is worked out of samples in ``statistics`` and ``derive``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from hummingbird_runtime.errors import InputError
from hummingbird_runtime.strict_json import record

Phase = Literal["cold", "first", "steady"]
"""Process start to clip; first clip of a live process; every later one."""

COVERED = 0.99
"""Share of the wall time that the stages of a sample must explain."""


@dataclass(frozen=True)
class StageTime:
    """One stage of a run."""

    name: str
    """start, text, noise, open, step, pass, decode, finish, encode"""
    index: int
    """number among those of its name, from 0; of a pass, the solver's step it belongs to"""
    start_s: float
    """seconds since the run began"""
    seconds: float
    """how long it took"""


@dataclass(frozen=True)
class Sample:
    """One finished run."""

    arm: str
    """name of its workload"""
    ordinal: int
    """place in the order in which all runs of all arms took place, from 0"""
    phase: Phase
    """what of a process's life was measured"""
    wall_s: float
    """seconds"""
    cpu_s: float
    """seconds of processor time, all threads together"""
    stages: tuple[StageTime, ...]
    """in the order in which they ran, without overlap"""
    peak_rss_bytes: int
    """most memory that the process had held in its life so far"""
    peak_pss_bytes: int | None
    """the same with pages that processes share counted in part, sampled; None: not told"""
    load_before: float
    """the machine's load average of one minute, 0 where the system does not tell"""
    load_after: float
    steal_ticks_before: int
    """processor time that the hypervisor gave to others since boot, in 1/100 s"""
    steal_ticks_after: int
    outputs: dict[str, str]
    """what the run made (latents, frames) -> SHA-256"""
    providers: dict[str, int]
    """execution provider -> nodes that it ran, from a separate profiled run; empty: not told"""
    energy_j: float | None = None
    """joules of the processor's packages during the run; None: not measured"""

    @property
    def coverage(self) -> float:
        """Share of the wall time that the stages explain."""
        return sum(stage.seconds for stage in self.stages) / self.wall_s

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        values = dataclasses.asdict(self)
        return {**values, "stages": [dataclasses.asdict(stage) for stage in self.stages]}

    @classmethod
    def from_json(cls, value: object, where: str = "sample") -> Sample:
        """The inverse of ``to_json``.

        Raises:
            InputError: ``bench.sample``.
        """
        try:
            found = record(cls, value, where)
        except InputError as error:
            raise InputError("bench.sample", error.message, hint=error.hint) from error
        if found.wall_s <= 0 or any(stage.seconds < 0 for stage in found.stages):
            raise InputError(
                "bench.sample",
                f"{where}: got {found.wall_s} s with stages "
                f"{[stage.seconds for stage in found.stages]}, expected positive times",
                hint="measure again",
            )
        return found


def check_coverage(sample: Sample) -> None:
    """Refuse a sample whose stages leave more than 1 % of its time in the dark.

    Raises:
        InputError: ``bench.uncovered_time``.
    """
    if sample.coverage < COVERED:
        raise InputError(
            "bench.uncovered_time",
            f"arm {sample.arm}, run {sample.ordinal}: got stages that explain "
            f"{sample.coverage:.1%} of {sample.wall_s:.3f} s, expected {COVERED:.0%}",
            hint="time the missing part as a stage of its own",
        )


def steady(samples: Sequence[Sample], arm: str) -> list[Sample]:
    """The steady samples of one arm in the order in which they ran."""
    chosen = [s for s in samples if s.arm == arm and s.phase == "steady"]
    return sorted(chosen, key=lambda s: s.ordinal)
