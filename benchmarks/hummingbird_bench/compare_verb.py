"""``hummingbird bench compare``: two arms by pairs of runs, with an A/A run beside them.

With ``--aa`` an arm is compared with itself, as often as asked: what the method claims where there
is nothing to claim. No ratio is printed without a same-work certificate.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hummingbird_bench.certificate import TREATMENTS, Certificate, certify
from hummingbird_bench.identity import Identity
from hummingbird_bench.interleave import Measured, Measurement, measure, require_steady
from hummingbird_bench.report import Comparison
from hummingbird_bench.run_verb import (
    add_shared,
    arm_row,
    progress_line,
    publish,
    read_arms,
    require_rounds,
    row_text,
    run_folder,
    utc_now,
)
from hummingbird_bench.statistics import Ratio, StopRule, paired_log_ratio
from hummingbird_bench.workload import Workload
from hummingbird_runtime.cli.parser import Parser, names, number_in, positive_number
from hummingbird_runtime.errors import ExecutionError, InputError, UsageError

AGAIN = " (again)"
"""Ends the name of an arm that is another one once more."""

_PAIRS = re.compile(r"(\d{1,4})(?::(\d{1,4}))?")


def main(arguments: Sequence[str]) -> int:
    """Run the verb; see its --help."""
    parsed = _parser().parse(arguments)
    started = utc_now()
    workloads = read_arms(parsed.workloads, parsed.set)
    rule = _rule(parsed)
    if parsed.aa:
        return _same(parsed, workloads, rule)
    a, b = _two(workloads)
    again = dataclasses.replace(a, name=a.name + AGAIN)
    asked = _measurement(parsed, (a, b, again), ((a.name, b.name), (a.name, again.name)), rule)

    def check(identities: Mapping[str, Mapping[str, Any]]) -> None:
        certificate_of(identities, a, b, parsed.treatment)

    with (
        run_folder(parsed.folder, parsed.output) as folder,
        progress_line(quiet=parsed.quiet) as tell,
    ):
        measured = measure(asked, folder, on_progress=tell, check=check)
        certificate = certificate_of(measured.identities, a, b, parsed.treatment)
        ratios = {one.name: ratio_of(measured, a.name, one.name) for one in (b, again)}
        rows = [arm_row(measured, work.name) for work in (a, b)]
    comparisons = (
        Comparison("comparison", a.name, b.name, tuple(parsed.treatment), "clip", headline=True),
        Comparison("A/A", a.name, again.name, (), "clip"),
    )
    notes = (rule.text(),)
    publish(parsed, arguments, asked.workloads, measured, comparisons, started, notes)
    if parsed.json:
        told = {name: dataclasses.asdict(ratio) for name, ratio in ratios.items()}
        print(json.dumps({"arms": rows, "ratios": told, "certificate": certificate.to_json(),
                          "rule": rule.text()}))  # fmt: skip
    else:
        print("\n".join(map(row_text, rows)))
        for name, ratio in ratios.items():
            print(f"{a.name} over {name}: {ratio_text(ratio)}")
        print(certificate_text(certificate))
        print(rule.text())
    if ratios[again.name].claims:
        raise ExecutionError(
            "bench.aa_differs",
            f"{a.name}: got a difference from itself, {ratio_text(ratios[again.name])}, "
            "expected none: the other ratio is not to be believed",
            hint="measure again on a quieter machine, with more pairs",
        )
    return 0


def certificate_of(
    identities: Mapping[str, Mapping[str, Any]], a: Workload, b: Workload, treatment: Sequence[str]
) -> Certificate:
    """That two arms did the same work but for a declared treatment.

    Raises:
        InputError: ``bench.unlike_work``.
        UsageError: ``bench.treatment``.
    """
    if a.encode != b.encode:
        raise InputError(
            "bench.unlike_work",
            f"two arms: got a file {a.encode or 'none'!r} and {b.encode or 'none'!r} at their end, "
            "expected the same",
            hint="give both the same encode",
        )
    one, other = (Identity.from_json(dict(identities[work.name])) for work in (a, b))
    return certify(one, other, treatment)


def ratio_of(measured: Measured, a: str, b: str) -> Ratio:
    """Ratio of the steady runs of two arms, in the order in which they ran side by side.

    Raises:
        InputError: ``bench.no_runs``, ``bench.warm_up_only``.
    """
    runs = [require_steady(measured.samples, arm) for arm in (a, b)]
    count = min(map(len, runs))
    return paired_log_ratio(*([run.wall_s for run in own[:count]] for own in runs))


def ratio_text(ratio: Ratio) -> str:
    """A ratio as a line; one that may not be claimed says so and shows no figure."""
    if ratio.verdict.startswith("too noisy"):
        return f"{ratio.verdict}; {ratio.pairs} ran, their scatter is {ratio.scatter:.1%}"
    return (
        f"{ratio.estimate:.4g} [{ratio.low:.4g}, {ratio.high:.4g}], {ratio.pairs} pairs, "
        f"scatter {ratio.scatter:.1%}: {ratio.verdict}"
    )


def certificate_text(certificate: Certificate) -> str:
    """What two arms differ in."""
    if not certificate.differs:
        return "same work, nothing differs"
    lines = [f"  {d.axis}: {d.field}, {d.a} and {d.b}" for d in certificate.differs]
    head = f"same work but for the declared {', '.join(certificate.treatment)}; counted FLOPs "
    return "\n".join([f"{head}{certificate.work_ratio:.4g} to 1", *lines])


def _parser() -> Parser:
    parser = Parser(
        prog="hummingbird bench compare",
        description="Compare two arms by interleaved pairs of runs, an A/A run beside them. "
        "The ratio is seconds of the first arm over seconds of the second.",
    )
    add = parser.add_argument
    add("workloads", nargs="+", metavar="WORKLOAD",
        help="TOML files or names of packaged ones that hold two arms together")  # fmt: skip
    add("--treatment", type=names, default=(), metavar="A,B",
        help=f"in what the arms may differ: {', '.join(TREATMENTS)}")  # fmt: skip
    add("--pairs", default="6:20", metavar="N[:M]",
        help="at least N and at most M pairs, or exactly N (default %(default)s)")  # fmt: skip
    add("--half-width", type=positive_number, default=0.01, metavar="X",
        help="stop before M when intervals are as narrow (default %(default)g)")  # fmt: skip
    add("--minutes", type=positive_number, metavar="T", help="begin no pair after T minutes")
    add("--aa", action="store_true", help="compare one arm with itself")
    add("--repeat", type=number_in(1, 10_000), default=1, metavar="N",
        help="comparisons of --aa (default %(default)s)")  # fmt: skip
    add_shared(parser)
    return parser


def _rule(parsed: argparse.Namespace) -> StopRule:
    found = _PAIRS.fullmatch(parsed.pairs)
    if found is None:
        raise UsageError(
            "bench.stop_rule",
            f"--pairs, got {parsed.pairs[:40]!r}, expected N or N:M",
            hint="such as 6:20",
        )
    fewest = int(found[1])
    require_rounds(fewest)
    return StopRule(fewest, int(found[2] or fewest), parsed.half_width, parsed.minutes)


def _two(workloads: Sequence[Workload]) -> tuple[Workload, Workload]:
    if len(workloads) != 2:
        raise UsageError(
            "bench.arms",
            f"got {len(workloads)} arms, expected two",
            hint="name files that hold two arms together, or add --aa for one",
        )
    return workloads[0], workloads[1]


def _measurement(
    parsed: argparse.Namespace,
    workloads: tuple[Workload, ...],
    pairs: tuple[tuple[str, str], ...],
    rule: StopRule,
    seed: int = 0,
) -> Measurement:
    return Measurement(
        workloads=workloads,
        rule=rule,
        pairs=pairs,
        seed=seed,
        fresh=not parsed.alive,
        limit_s=parsed.limit,
    )


def _same(parsed: argparse.Namespace, workloads: Sequence[Workload], rule: StopRule) -> int:
    """Comparisons of one arm with itself, and how many of them claim a difference."""
    if len(workloads) != 1 or parsed.output is not None or parsed.treatment:
        raise UsageError(
            "bench.arms",
            f"--aa, got {len(workloads)} arms, a report or a treatment, expected one arm alone",
            hint="leave -o and --treatment out",
        )
    work = workloads[0]
    again = dataclasses.replace(work, name=work.name + AGAIN)
    found: list[Ratio] = []
    with run_folder(parsed.folder, parsed.output) as folder:
        folder.mkdir(exist_ok=True)
        for number in range(parsed.repeat):
            asked = _measurement(parsed, (work, again), ((work.name, again.name),), rule, number)
            what = f"comparison {number + 1} of {parsed.repeat}, "
            with progress_line(quiet=parsed.quiet, what=what) as tell:
                measured = measure(asked, Path(folder, f"{number:04d}"), on_progress=tell)
            found.append(ratio_of(measured, work.name, again.name))
            if not parsed.json:
                print(f"A/A {number + 1}: {ratio_text(found[-1])}", flush=True)
    claims = sum(ratio.claims for ratio in found)
    if parsed.json:
        print(json.dumps({"ratios": [dataclasses.asdict(one) for one in found], "claims": claims,
                          "rule": rule.text()}))  # fmt: skip
    else:
        print(f"{claims} of {len(found)} comparisons claim a difference")
        print(rule.text())
    return 0
