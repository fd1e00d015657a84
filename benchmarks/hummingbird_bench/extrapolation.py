"""A clip that is too long to run: its passes measured at spread timesteps, times their number.

Seconds of a clip are then text + decoding + passes x the mean of a measured pass; ``derive`` works
that out and marks it. Here is which passes are taken, and the check against one complete run.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from hummingbird_bench.derive import clip_seconds
from hummingbird_bench.sample import Sample, steady
from hummingbird_bench.workload import Workload
from hummingbird_runtime.errors import InputError

STRATA = 5
"""Parts of the schedule that measured passes are spread over."""

VISITED = (2, 0, 4, 1, 3)
"""Order of the parts, so that a measurement that ends early is spread as well."""

TOLERANCE = 0.05
"""Largest relative error of an extrapolation that may be used."""


def stratified_steps(steps: int, sample: int, passes: int) -> tuple[int, ...]:
    """The solver's steps at which one sample takes its passes: the middles of fifths.

    Args:
        steps: steps of the solver.
        sample: 0-based number of the sample of this arm.
        passes: passes of one sample.

    Returns:
        0-based steps; over five passes every fifth of the schedule is met once.
    """
    return tuple(
        min(steps - 1, (2 * VISITED[number % STRATA] + 1) * steps // (2 * STRATA))
        for number in range(sample * passes, (sample + 1) * passes)
    )


def validate(
    part: Workload, whole: Workload, samples: Sequence[Sample]
) -> Mapping[str, str | float]:
    """Hold the extrapolation of one arm against complete runs of the same clip.

    Args:
        part: the arm of which only passes were measured.
        whole: the same clip, run from end to end.
        samples: of both.

    Returns:
        ``arm``, ``predicted_s``, ``measured_s`` as in ``report.Validation``.

    Raises:
        InputError: ``bench.pairs`` when one of the two has no sample.
    """
    found = []
    for work in (part, whole):
        own = steady(samples, work.name) or [s for s in samples if s.arm == work.name]
        if not own:
            raise InputError(
                "bench.pairs",
                f"arm {work.name}: got no finished sample, expected at least one",
                hint="run the measurement to its end",
            )
        found.append(statistics.median(clip_seconds(work, s) for s in own))
    return {"arm": part.name, "predicted_s": found[0], "measured_s": found[1]}
