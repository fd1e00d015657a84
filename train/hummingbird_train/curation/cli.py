"""The `hummingbird curate` verbs: a table of ``module:function``, imported when called."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from hummingbird_runtime.cli.nested import NestedVerbs
from hummingbird_runtime.cli.parser import Parser, number_in, positive_number
from hummingbird_runtime.errors import ExecutionError, IntegrityError, UsageError

if TYPE_CHECKING:
    import argparse

    from hummingbird_runtime.cli.progress import Progress
    from hummingbird_train.curation.config import CurationConfig
    from hummingbird_train.curation.row import Row
    from hummingbird_train.curation.rules import Rules
    from hummingbird_train.curation.run import ScoreOptions, Summary, Tally

_HERE = "hummingbird_train.curation."
_GIB = 1 << 30
_LISTED = 20


VERBS = NestedVerbs(
    "curate",
    {
        "score": (
            _HERE + "cli:score_main",
            "measure the clips of a source; goes on where it stopped",
        ),
        "cut": (_HERE + "cli:cut_main", "decide by rules which clips stay; opens no video"),
        "recaption": (_HERE + "recaption:main", "write better captions for what stays"),
        "pack": (_HERE + "sink:main", "write what stays as WebDataset shards and a manifest"),
        "report": (_HERE + "report:main", "write one HTML page: funnel, histograms, pictures"),
        "estimate": (
            _HERE + "cli:estimate_main",
            "say from a sample what a large source will cost",
        ),
        "ledger": (_HERE + "cli:ledger_main", "show or export what was measured, and what failed"),
        "defects": (_HERE + "detection:main", "measure how well stages find labelled defects"),
    },
    about=("From raw clips to a dataset worth training on: score once, cut as often as you like.",),
)
main = VERBS.run


def score_main(arguments: list[str]) -> int:
    """`hummingbird curate score`: exit 0 also when clips failed, unless --strict."""
    parser = _parser("score")
    add = parser.add_argument
    add("source", type=Path, metavar="SOURCE",
        help="folder of videos, or .csv, .tsv, .jsonl, .parquet")  # fmt: skip
    add("-o", "--output", type=Path, required=True, metavar="RUN",
        help="folder of the run; the same command goes on with it")  # fmt: skip
    _add_measuring(parser)
    add("--engine", choices=("local", "ray"), default="local", help="default %(default)s")
    add("--ray-address", metavar="ADDRESS", help="a running cluster (default: one of its own)")
    add("--score-only", action="store_true", help="leave the cut alone, even if there are rules")
    add("--retry-failed", action="store_true", help="measure again what failed before")
    add("--strict", action="store_true", help="exit 6 when any clip failed")
    add("-q", "--quiet", action="store_true", help="no progress line, no funnel")
    parsed = parser.parse(arguments)
    if parsed.ray_address and parsed.engine != "ray":
        parser.error("got --ray-address with --engine local, expected --engine ray")

    import functools

    from hummingbird_runtime.cli.progress import Progress
    from hummingbird_runtime.cli.worker import run_cancellable
    from hummingbird_train.curation.engines import local
    from hummingbird_train.curation.rules import Rules
    from hummingbird_train.curation.run import score

    config, engine = _config(parsed), local.score
    rules = Rules.from_toml(config.rules)  # a wrong rule is known before the hours of measuring
    if parsed.engine == "ray":
        from hummingbird_train.curation.engines import ray_data

        engine = functools.partial(ray_data.score, address=parsed.ray_address)
    progress = Progress(quiet=parsed.quiet)
    try:
        summary = run_cancellable(
            lambda token: score(
                parsed.source,
                parsed.output,
                config,
                _options(parsed, retry_failed=parsed.retry_failed),
                engine=engine,
                token=token,
                watch=lambda tally: progress.note(progress_text(tally)),
            )
        )
    finally:
        progress.close()
    _warn(summary, parsed.output, progress)
    if not parsed.quiet:
        print(f"{summary.total} clips, {summary.scored} measured now", file=sys.stderr)
    if not parsed.score_only and rules.named_scores():
        _cut(parsed.output, rules, quiet=parsed.quiet, write=True)
    if parsed.strict and summary.failed + summary.failed_before:
        raise ExecutionError(
            "curation.failures",
            f"scoring: got {summary.failed + summary.failed_before} clips with failed stages, "
            "expected none (--strict)",
            hint=f"see `hummingbird curate ledger {parsed.output}`",
        )
    return 0


def cut_main(arguments: list[str]) -> int:
    """`hummingbird curate cut`: writes cut.parquet and cut.json, prints the funnel."""
    parser = _parser("cut")
    add = parser.add_argument
    add("run", type=Path, metavar="RUN", help="folder of a scored run")
    add("--config", type=Path, metavar="TOML", help="rules (default: the run's own curation.toml)")
    add("--dry-run", action="store_true", help="print the funnel, write nothing")
    add("-q", "--quiet", action="store_true", help="no funnel")
    parsed = parser.parse(arguments)
    from hummingbird_train.curation.config import load_config
    from hummingbird_train.curation.rules import Rules
    from hummingbird_train.curation.run_folder import RunFolder

    config = load_config(parsed.config or RunFolder(parsed.run).config_file)
    rules = Rules.from_toml(config.rules)
    if not rules.named_scores():
        raise UsageError(
            "rules.none",
            "cut: got a configuration without [rules], expected thresholds to cut by",
            hint="give --config with a [rules] table; see docs/curation.md",
        )
    _cut(parsed.run, rules, quiet=parsed.quiet, write=not parsed.dry_run)
    return 0


def estimate_main(arguments: list[str]) -> int:
    """`hummingbird curate estimate`: prints Markdown, writes nothing."""
    parser = _parser("estimate")
    add = parser.add_argument
    add("source", type=Path, metavar="SOURCE", help="as for score")
    _add_measuring(parser)
    add("--sample", type=number_in(1, 100_000), default=32, metavar="N",
        help="clips to measure (%(default)s)")  # fmt: skip
    add("--seed", type=number_in(0, 2**63), default=0, help="of the draw (%(default)s)")
    add("--clips", type=number_in(1, 10**12), metavar="N",
        help="project to this many (default: the source's own)")  # fmt: skip
    add("--cores", type=number_in(1, 10**6), default=1, metavar="M", help="default %(default)s")
    add("--price", type=positive_number, default=0.04, metavar="P",
        help="of one core-hour (%(default)s)")  # fmt: skip
    add("-q", "--quiet", action="store_true", help="no progress line")
    parsed = parser.parse(arguments)
    from hummingbird_runtime.cli.progress import Progress
    from hummingbird_runtime.cli.worker import run_cancellable
    from hummingbird_train.curation.estimate import estimate

    progress = Progress(quiet=parsed.quiet)
    try:
        found = run_cancellable(
            lambda token: estimate(
                parsed.source,
                _config(parsed),
                _options(parsed),
                sample=parsed.sample,
                seed=parsed.seed,
                token=token,
                watch=lambda done, total: progress.note(f"measuring {done}/{total} clips"),
            )
        )
    finally:
        progress.close()
    print(found.text(parsed.clips or found.clips, parsed.cores, parsed.price))
    return 0


def ledger_main(arguments: list[str]) -> int:
    """`hummingbird curate ledger`: exit 4 when a part of the ledger is damaged."""
    parser = _parser("ledger")
    add = parser.add_argument
    add("run", type=Path, metavar="RUN", help="folder of a run")
    add("--canonical", action="store_true",
        help="JSON lines, sorted, without timings: equal runs give equal bytes")  # fmt: skip
    add("--failed", action="store_true", help="every failed row: code, stage, file, text")
    parsed = parser.parse(arguments)
    from hummingbird_train.curation.ledger import Ledger
    from hummingbird_train.curation.row import FAILED

    with Ledger.open(parsed.run) as ledger:
        if parsed.canonical:
            sys.stdout.write(ledger.canonical().decode("ascii"))
        else:
            rows = list(ledger.rows())
            failed = [row for row in rows if row.status == FAILED]
            if not parsed.failed:
                print(_overview(rows))
            shown = failed if parsed.failed else failed[:_LISTED]
            for row in shown:
                print(f"{row.error_code}\t{row.stage}\t{row.uri}\t{row.error}")
            if len(shown) < len(failed):
                print(f"... and {len(failed) - len(shown)} more; see --failed")
        if ledger.notes:
            raise IntegrityError(
                "ledger.damaged",
                f"ledger {parsed.run}: got {'; '.join(ledger.notes)}, expected whole parts",
                hint="run `hummingbird curate score` again: it measures what was in them",
            )
    return 0


def progress_text(tally: Tally) -> str:
    """One line for a terminal: bar, clips, rate, time left, failures."""
    width = 24
    filled = width * tally.ready // max(tally.total, 1)
    rate = tally.scored / max(tally.seconds, 1e-9)
    left = int((tally.total - tally.ready) / rate) if rate else 0
    hours, minutes, seconds = left // 3600, left // 60 % 60, left % 60
    return (
        f"scoring [{'#' * filled}{'.' * (width - filled)}] {tally.ready}/{tally.total}  "
        f"{rate:.2f} clips/s  {hours}:{minutes:02}:{seconds:02} left  {tally.failed} failed"
    )


def _parser(verb: str) -> Parser:
    return Parser(prog=f"hummingbird curate {verb}", description=VERBS.table[verb][1])


def _add_measuring(parser: Parser) -> None:
    add = parser.add_argument
    add("--config", type=Path, metavar="TOML", help="stages and rules (default: built in)")
    add("--stages", metavar="MODULE:FUNCTION",
        help="stages of your own: takes the [stages] table, returns stages")  # fmt: skip
    add("--processes", type=number_in(1, 4096), default=None, metavar="N",
        help="clips at a time (default: one per core)")  # fmt: skip
    add("--timeout", type=positive_number, default=120.0, metavar="S",
        help="seconds a clip may take (default %(default)g)")  # fmt: skip
    add("--memory", type=number_in(0, 1024), default=4, metavar="GIB",
        help="address space of a process, 0 no bound (default %(default)s)")  # fmt: skip
    add("--ignore-rejects", action="store_true",
        help="measure all of a clip that a cheap stage has rejected too")  # fmt: skip


def _config(parsed: argparse.Namespace) -> CurationConfig:
    import dataclasses

    from hummingbird_train.curation.config import load_config

    config = load_config(parsed.config)
    if parsed.stages is None:
        return config
    rules = config.rules if parsed.config else {}  # the built-in ones are for the built-in stages
    return dataclasses.replace(config, builder=parsed.stages, rules=rules)


def _options(parsed: argparse.Namespace, *, retry_failed: bool = False) -> ScoreOptions:
    import os

    from hummingbird_train.curation.run import ScoreOptions

    return ScoreOptions(
        processes=parsed.processes or os.cpu_count() or 1,
        seconds=parsed.timeout,
        memory=parsed.memory * _GIB,
        ignore_skips=parsed.ignore_rejects,
        retry_failed=retry_failed,
    )


def _cut(folder: Path, rules: Rules, *, quiet: bool, write: bool) -> None:
    from hummingbird_runtime.cli.progress import Progress
    from hummingbird_train.curation.cut import decide, funnel_text, write_cut
    from hummingbird_train.curation.run_folder import RunFolder

    run = RunFolder(folder)
    cut = decide(run, rules)
    for note in cut.notes:
        Progress().warn("ledger.damaged", note)
    if write:
        write_cut(run, cut, rules)
    if not quiet:
        print(funnel_text(cut))


def _warn(summary: Summary, folder: Path, progress: Progress) -> None:
    for note in summary.notes:
        progress.warn("ledger.damaged", f"{note}; what was in it is measured again")
    if summary.twice:
        progress.warn("curation.twice", f"{summary.twice} entries name a clip a second time")
    if summary.failed_before:
        progress.warn(
            "curation.failures",
            f"{summary.failed_before} clips failed earlier and were left alone; --retry-failed "
            "measures them again",
        )
    if summary.failed:
        codes = ", ".join(f"{code} {count}" for code, count in summary.codes.most_common(5))
        progress.warn(
            "curation.failures",
            f"{summary.failed} clips failed ({codes}); see `hummingbird curate ledger {folder}`",
        )


def _overview(rows: list[Row]) -> str:
    counts = Counter((row.stage, row.status) for row in rows)
    seconds = Counter[str]()
    for row in rows:
        seconds[row.stage] += row.seconds + row.decode_seconds
    stages = list(dict.fromkeys(row.stage for row in rows))
    lines = ["| stage | ok | failed | skipped | processor s |", "|---|---:|---:|---:|---:|"]
    for stage in stages:
        ok, failed, skipped = (counts[stage, s] for s in ("ok", "failed", "skipped"))
        lines.append(f"| {stage} | {ok} | {failed} | {skipped} | {seconds[stage]:.2f} |")
    clips = len({row.clip_id for row in rows})
    return "\n".join([*lines, "", f"{clips} clips, {len(rows)} rows"])
