"""``hummingbird bench run WORKLOAD``: cold start, first and steady runs of every arm of a file.

Also what ``compare`` needs of it: reading the arms, the folder of a run, its report and its table.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import shlex
import shutil
import statistics
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from hummingbird_bench import amounts
from hummingbird_bench.environment import read_environment
from hummingbird_bench.interleave import (
    LIMIT_S,
    Measured,
    Measurement,
    Progress,
    measure,
    require_steady,
)
from hummingbird_bench.report import Comparison, write_report
from hummingbird_bench.statistics import StopRule
from hummingbird_bench.verify_verb import render
from hummingbird_bench.workload import Workload, find_workload, read_workloads
from hummingbird_runtime import __version__
from hummingbird_runtime.cli import progress
from hummingbird_runtime.cli.parser import Parser, number_in, positive_number
from hummingbird_runtime.errors import ExecutionError, UsageError
from hummingbird_runtime.output import check_target

FULL_SIDE = 256
"""Pixels from which on a clip counts as one of published size in a report."""


def main(arguments: Sequence[str]) -> int:
    """Run the verb; see its --help."""
    parser = Parser(
        prog="hummingbird bench run",
        description="Measure every arm of a workload, each round in a process of its own.",
    )
    parser.add_argument("workload", metavar="WORKLOAD", help="TOML file, or a packaged one's name")
    parser.add_argument("--rounds", type=number_in(0, 10_000), default=3, metavar="N",
                        help="processes of each arm (default %(default)s)")  # fmt: skip
    add_shared(parser)
    parsed = parser.parse(arguments)
    started = utc_now()
    workloads = read_arms([parsed.workload], parsed.set)
    require_rounds(parsed.rounds)
    asked = Measurement(
        workloads=workloads,
        rule=StopRule(parsed.rounds, parsed.rounds),
        fresh=not parsed.alive,
        limit_s=parsed.limit,
    )
    with (
        run_folder(parsed.folder, parsed.output) as folder,
        progress_line(quiet=parsed.quiet) as tell,
    ):
        measured = measure(asked, folder, on_progress=tell)
        rows = [arm_row(measured, work.name) for work in workloads]
    publish(parsed, arguments, workloads, measured, (), started)
    print(json.dumps({"arms": rows}) if parsed.json else "\n".join(map(row_text, rows)))
    return 0


def add_shared(parser: argparse.ArgumentParser) -> None:
    """Options of every verb that measures."""
    add = parser.add_argument
    add("--set", action="append", metavar="KEY=VALUE",
        help="change a value of every arm, written as in TOML; may be given again")  # fmt: skip
    add("--alive", action="store_true",
        help="one process an arm for all rounds, its weights loaded once")  # fmt: skip
    add("--folder", type=Path, metavar="DIR",
        help="keep samples and logs here; the same command goes on after a kill")  # fmt: skip
    add("-o", "--output", type=Path, metavar="FILE.json",
        help="report: raw samples and what follows, with .md and .html beside it")  # fmt: skip
    add("--limit", type=positive_number, default=LIMIT_S, metavar="S",
        help="kill an arm that starts or runs longer (default %(default)g)")  # fmt: skip
    add("--json", action="store_true", help="print JSON")
    add("-q", "--quiet", action="store_true", help="no progress on stderr")


def read_arms(names: Sequence[str], changes: Sequence[str] | None) -> tuple[Workload, ...]:
    """Every arm of some workload files, changed by ``KEY=VALUE`` texts.

    Raises:
        UsageError: ``bench.workload_not_found``, ``bench.setting``.
        InputError: ``bench.workload``.
    """
    values: dict[str, Any] = {}
    for text in changes or ():
        key, equals, value = text.partition("=")
        try:
            values[key.strip()] = tomllib.loads(f"value = {value}")["value"]
        except ValueError as error:
            raise _bad_setting(text, "a value as in TOML") from error
        if not equals or key.strip() not in {f.name for f in dataclasses.fields(Workload)}:
            raise _bad_setting(text, "KEY=VALUE with a key of a workload")
    return tuple(work for name in names for work in read_workloads(find_workload(name), values))


def require_rounds(rounds: int) -> None:
    """Refuse to measure nothing.

    Raises:
        UsageError: ``bench.no_runs``.
    """
    if rounds < 1:
        raise UsageError(
            "bench.no_runs",
            f"got {rounds} runs that count, expected at least 1; warm-up runs show nothing",
            hint="ask for at least one",
        )


@contextlib.contextmanager
def run_folder(
    asked: Path | None, output: Path | None, *, overwrite: bool = False
) -> Iterator[Path]:
    """The folder asked for, or one that is gone afterwards; refuses a bad output early.

    After a failure of an arm it stays: the error names the log in it.
    """
    if output is not None:
        check_target(output, overwrite=overwrite)
    if asked is not None:
        yield asked
        return
    folder = Path(tempfile.mkdtemp(prefix="hummingbird-bench-"))
    keep = False
    try:
        yield folder
    except ExecutionError:
        keep = True
        raise
    finally:
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def progress_line(*, quiet: bool, what: str = "") -> Iterator[Callable[[Progress], None]]:
    """One line on a terminal with the time that is left at most."""
    line = progress.Progress(quiet=quiet)

    def tell(state: Progress) -> None:
        left = (
            ""
            if state.seconds_left is None
            else f", at most {amounts.seconds(state.seconds_left)} left"
        )
        line.note(f"{what}round {state.done + 1} of at most {state.most}: {state.arm}{left}")

    try:
        yield tell
    finally:
        line.close()


def arm_row(measured: Measured, arm: str) -> dict[str, Any]:
    """Figures of one arm as JSON values.

    Raises:
        InputError: ``bench.no_runs``, ``bench.warm_up_only``.
    """
    runs = require_steady(measured.samples, arm)
    own = [sample for sample in measured.samples if sample.arm == arm]
    median = statistics.median
    stages = dict.fromkeys(stage.name for run in runs for stage in run.stages)
    energies = [run.energy_j for run in runs if run.energy_j is not None]
    return {
        "arm": arm,
        "runs": len(runs),
        **{
            f"{phase}_s": median(found) if found else None
            for phase in ("cold", "first", "steady")
            for found in [[sample.wall_s for sample in own if sample.phase == phase]]
        },
        "range_s": [min(run.wall_s for run in runs), max(run.wall_s for run in runs)],
        "stages_s": {
            name: median(sum(s.seconds for s in run.stages if s.name == name) for run in runs)
            for name in stages
        },
        "coverage": min(run.coverage for run in runs),
        "cpus": median(run.cpu_s / run.wall_s for run in runs),
        "peak_rss_bytes": max(sample.peak_rss_bytes for sample in own),
        "peak_pss_bytes": max((s.peak_pss_bytes or 0 for s in own), default=0) or None,
        "energy_j": median(energies) if energies else None,
        "providers": runs[0].providers,
        "same_output": len({tuple(sorted(sample.outputs.items())) for sample in own}) == 1,
    }


def row_text(row: dict[str, Any]) -> str:
    """The same as lines of text."""
    s = amounts.seconds
    cold = "not measured" if row["cold_s"] is None else s(row["cold_s"])
    memory = amounts.storage(row["peak_rss_bytes"])
    if row["peak_pss_bytes"] is not None:
        memory += f" RSS, {amounts.storage(row['peak_pss_bytes'])} PSS"
    nodes = ", ".join(f"{n} nodes on {name}" for name, n in row["providers"].items())
    energy = "not measured" if row["energy_j"] is None else f"{row['energy_j']:.1f} J a clip"
    return "\n".join(
        [
            row["arm"],
            f"  cold start  {cold}",
            f"  first run   {s(row['first_s'])}",
            f"  steady      {s(row['steady_s'])}  "
            f"({s(row['range_s'][0])} to {s(row['range_s'][1])}, {row['runs']} runs)",
            "  stages      " + ", ".join(f"{n} {s(v)}" for n, v in row["stages_s"].items())
            + f"  ({row['coverage']:.1%} of the time)",
            f"  memory      {memory}",
            f"  processors  {row['cpus']:.2f} busy",
            f"  energy      {energy}",
            f"  providers   {nodes or 'not told'}",
            f"  outputs     {'equal in all runs' if row['same_output'] else 'differ'}",
        ]
    )  # fmt: skip


def publish(
    parsed: argparse.Namespace,
    arguments: Sequence[str],
    workloads: Sequence[Workload],
    measured: Measured,
    comparisons: Sequence[Comparison],
    started: str,
    notes: Sequence[str] = (),
) -> None:
    """Write the report of ``--output`` with its pages; nothing without it.

    Raises:
        HummingbirdError: ``output.*``, ``report.*``.
    """
    if parsed.output is None:
        return
    verb = "compare" if comparisons else "run"
    large = any(max(work.height, work.width) >= FULL_SIDE for work in workloads)
    raw = {
        "schema": "hummingbird-bench/1",
        "title": " against ".join(dict.fromkeys(work.name for work in workloads)),
        "scale": "full" if large else "tiny",
        "made": {
            "version": __version__,
            "command": f"hummingbird bench {verb} {shlex.join(arguments)}",
            "started": started,
            "finished": utc_now(),
        },
        "environment": read_environment(),
        "arms": [
            {
                "workload": work.published(),
                "identity": measured.identities.get(work.name, {}),
                "gate": None,
                "invalid": "",
            }
            for work in workloads
        ],
        "samples": [sample.to_json() for sample in measured.samples],
        "comparisons": [dataclasses.asdict(one) for one in comparisons],
        "notes": list(notes),
    }
    write_report(raw, parsed.output)
    for page in (parsed.output, *render(parsed.output)):
        print(os.fspath(page), file=sys.stderr)


def utc_now() -> str:
    """The time as reports write it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def _bad_setting(text: str, expected: str) -> UsageError:
    return UsageError(
        "bench.setting", f"--set, got {text[:80]!r}, expected {expected}", hint="such as frames=8"
    )
