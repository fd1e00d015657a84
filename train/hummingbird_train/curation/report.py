"""One HTML file that shows a run: funnel, scores with thresholds, clips, throughput, failures.

``hummingbird curate report RUN`` writes report.html into the run; the file needs nothing else and
no script. Frames of a few clips are decoded for the contact sheets, everything else is read from
the run's tables.
"""

from __future__ import annotations

import datetime
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from hummingbird_runtime import __version__
from hummingbird_runtime.atomic import atomic_file
from hummingbird_runtime.cli.parser import Parser, number_in
from hummingbird_train.curation.arrow import path_text
from hummingbird_train.curation.clip import Clip
from hummingbird_train.curation.contact_sheet import strip_uri
from hummingbird_train.curation.dataset_card import read_rules
from hummingbird_train.curation.histogram import histogram, score_columns
from hummingbird_train.curation.ledger import Ledger
from hummingbird_train.curation.margins import Margin, margins
from hummingbird_train.curation.report_charts import bar, histogram_svg, stacked_bar
from hummingbird_train.curation.report_template import Section, page, table
from hummingbird_train.curation.row import FAILED, OK, SKIPPED, Row, Score
from hummingbird_train.curation.run_folder import RunFolder
from hummingbird_train.curation.selection import Selection, read_selection

FILE = "report.html"
_FAILURES, _CAPTIONS = 200, 12


@dataclass
class StageTally:
    """What the ledger says of one stage."""

    counts: Counter[str] = field(default_factory=Counter)
    """rows by status"""
    seconds: float = 0.0
    """processor seconds of the stage"""
    decode_seconds: float = 0.0
    """processor seconds of decoding done for it first"""


def build_report(
    run: RunFolder,
    *,
    clips_each: int = 8,
    watch: Callable[[int, int], None] = lambda done, total: None,
) -> str:
    """The report as HTML.

    Args:
        run: a run that was scored and cut.
        clips_each: clips of each contact sheet; 0 leaves them out.
        watch: called after every decoded clip with (done, total).

    Raises:
        InputError: ``curation.no_run``, ``curation.no_cut``, ``ledger.missing``.
        ResourceError: ``extra.missing``.
    """
    selection = read_selection(run)
    rules = read_rules(run)
    versions = run.stage_versions()
    stages: dict[str, StageTally] = {name: StageTally() for name in versions}
    failures: list[Row] = []
    with Ledger.open(run.path) as ledger:
        scores = ledger.scores(versions)
        for row in ledger.rows():
            if versions.get(row.stage) != (row.stage_version, row.parameters):
                continue
            tally = stages[row.stage]
            tally.counts[row.status] += 1
            tally.seconds += row.seconds
            tally.decode_seconds += row.decode_seconds
            if row.status == FAILED and row.clip_id in selection.decisions:
                failures.append(row)
    total = len(selection.decisions)
    kept = sum(keep for keep, _ in selection.decisions.values())
    sections: list[Section] = [
        ("funnel", "Funnel", "Rules in their order; a clip counts for the first that it breaks.",
         _funnel(rules["funnel"], total)),
        ("scores", "Scores and thresholds", "Every numeric score of the run; the shaded side is "
         "dropped. Far tails are cut off and counted.", _histograms(scores, selection, rules)),
        ("clips", "Clips", "By their distance to the nearest threshold, in interquartile ranges of "
         "that score.", _sheets(run, selection, scores, rules, clips_each, watch)),
        ("captions", "Captions", "What the recaptioner did, and what the guard said.",
         _captions(selection)),
        ("throughput", "Throughput", "Processor time by stage; decoding counts for the stage that "
         "first needed the frames.", _throughput(stages)),
        ("failures", "Failures", "Clips that could not be measured, by stage and code.",
         _failures(failures)),
    ]  # fmt: skip
    return page(
        f"Curation of {Path(run.source()).name or run.source()}",
        f"{run.source()} scored into {run.path}",
        _tiles(selection, scores, total, kept, failures),
        sections,
        f"Hummingbird {__version__}, {datetime.date.today().isoformat()}. Scores are in the run's "
        "ledger, decisions in cut.parquet; `hummingbird curate cut` re-cuts without decoding.",
    )


def _tiles(
    selection: Selection, scores: dict[str, dict[str, Score]], total: int, kept: int,
    failures: Sequence[Row],
) -> list[tuple[str, str]]:  # fmt: skip
    seconds = sum(
        float(of_clip.get("probe.duration", 0.0))
        for clip, of_clip in scores.items()
        if selection.decisions.get(clip, (False, ""))[0]
    )
    tiles = [
        (f"{total:,}", "clips listed"),
        (f"{kept:,}", f"kept ({kept / max(total, 1):.1%})"),
        (f"{total - kept:,}", "dropped"),
        (f"{len({row.clip_id for row in failures}):,}", "clips with a failed stage"),
    ]
    if seconds:
        tiles.insert(2, (f"{seconds / 3600:.2f} h" if seconds > 3600 else f"{seconds / 60:.1f} min",
                         "of video kept"))  # fmt: skip
    if selection.captions:
        accepted = sum(row.accepted for row in selection.captions.values())
        tiles.append((f"{accepted:,}", f"captions rewritten of {len(selection.captions):,}"))
    return tiles


def _funnel(steps: Sequence[dict[str, Any]], total: int) -> str:
    rows = [["listed in the source", "", "", f"{total:,}", bar(1.0)]]
    whole = max(total, 1)
    rows += [
        [escape(str(step["reason"])), f"{step['dropped']:,}", f"{step['alone']:,}",
         f"{step['left']:,}",
         stacked_bar([("kept", step["left"] / whole), ("drop", step["dropped"] / whole)])]
        for step in steps
    ]  # fmt: skip
    heads = [("rule broken", ""), ("dropped", "n"), ("break it at all", "n"), ("left", "n"),
             ("share of all", "wide")]  # fmt: skip
    return table("From the source to the dataset", heads, rows) if total else ""


def _histograms(
    scores: dict[str, dict[str, Score]], selection: Selection, rules: dict[str, Any]
) -> str:
    by_score = {rule["score"]: rule for rule in rules["rules"]}
    columns = score_columns(scores, list(selection.decisions))
    legend = (
        '<p><span class="key" style="background:var(--kept)"></span>kept'
        '<span class="key" style="background:var(--every)"></span>all clips'
        '<span class="key" style="background:var(--drop)"></span>threshold</p>'
    )
    cards = []
    # scores with a rule first: they are what a reader came for
    for name in sorted(columns, key=lambda n: (n not in by_score, n)):
        clips, values = columns[name]
        kept = [selection.decisions[clip][0] for clip in clips]
        shown = histogram(name, values, kept)
        cut = [
            f"{n:,} {where}" for n, where in ((shown.below, "below"), (shown.above, "above")) if n
        ]
        note = f"{len(values):,} clips" + (f"; not shown: {', '.join(cut)}" if cut else "")
        cards.append(
            f'<div class="card"><h3>{escape(name)}</h3>'
            f"{histogram_svg(shown, by_score.get(name))}"
            f'<p class="why">{escape(note)}</p></div>'
        )
    return f'{legend}<div class="grid">{"".join(cards)}</div>' if cards else ""


def _sheets(
    run: RunFolder,
    selection: Selection,
    scores: dict[str, dict[str, Score]],
    rules: dict[str, Any],
    count: int,
    watch: Callable[[int, int], None],
) -> str:
    if not count:
        return ""
    near = margins(scores, rules["rules"])
    groups = _groups(selection, near, count)
    wanted = {clip_id for _, ids in groups for clip_id in ids}
    clips = {clip.id: clip for clip in run.clips() if clip.id in wanted}
    parts, done = [], 0
    for title, ids in groups:
        cards = []
        for clip_id in ids:
            cards.append(_clip_card(clips[clip_id], selection, near.get(clip_id)))
            done += 1
            watch(done, sum(len(ids) for _, ids in groups))
        if cards:
            parts.append(f'<h3 style="margin:22px 0 8px">{escape(title)}</h3>'
                         f'<div class="sheets">{"".join(cards)}</div>')  # fmt: skip
    return "".join(parts)


def _groups(
    selection: Selection, near: dict[str, Margin], count: int
) -> list[tuple[str, list[str]]]:
    """Clip ids by sheet, no clip on two of them."""

    def ranked(keep: bool) -> list[str]:
        ids = [c for c, (kept, _) in selection.decisions.items() if kept == keep and c in near]
        return sorted(ids, key=lambda c: (near[c].distance, c))

    kept, dropped = ranked(True), ranked(False)
    beyond = [c for c in dropped if near[c].distance < 0]
    # without a bound nothing ranks: show a fixed sample, by id
    plain = sorted(c for c, (keep, _) in selection.decisions.items() if keep and c not in near)
    other = sorted(
        c for c, (keep, _) in selection.decisions.items() if not keep and c not in beyond
    )
    half = len(kept) // 2
    return [
        ("Best kept", kept[::-1][: min(count, len(kept) - half)]),
        ("Borderline kept: the worst that stay", kept[: min(count, half)]),
        ("Borderline dropped: the best that go", beyond[::-1][: min(count, -(-len(beyond) // 2))]),
        ("Worst dropped", beyond[: min(count, len(beyond) // 2)]),
        ("Kept, without a bounded score", plain[:count]),
        ("Dropped by a flag, a count or a missing score", other[:count]),
    ]


def _clip_card(clip: Clip, selection: Selection, margin: Margin | None) -> str:
    caption = selection.caption(clip) or "no caption"
    uri = strip_uri(clip)
    image = (
        f'<img loading="lazy" src="{uri}" alt="{escape("Four frames: " + caption[:120])}">'
        if uri
        else '<div class="none">does not decode now</div>'
    )
    facts = [Path(path_text(clip.uri)).name]
    if margin is not None:
        facts.append(f"{margin.score} = {margin.value:.4g}, threshold {margin.bound:.4g} "
                     f"({margin.distance + 0.0:+.2f})")  # fmt: skip
    if reason := selection.decisions[clip.id][1]:
        facts.append(f"dropped: {reason}")
    return (
        f'<div class="card">{image}<p>{escape(caption[:200])}</p>'
        f'<p class="why">{escape(" · ".join(facts))}</p></div>'
    )


def _captions(selection: Selection) -> str:
    if not selection.captions:
        return ""
    rows = sorted(selection.captions.values(), key=lambda row: row.clip_id)
    changed = [row for row in rows if row.accepted and row.rewrite != row.original]
    refused = [row for row in rows if not row.accepted]
    reasons = Counter(" ".join(row.reason.split()[:2]) for row in refused)
    heads = [("original", "text"), ("rewrite", "text"), ("guard", "text")]
    cells = [
        [escape(row.original[:300]), escape(row.rewrite[:300]) or "–",
         "accepted" if row.accepted else escape(row.reason)]
        for row in [*changed[:_CAPTIONS], *refused[:_CAPTIONS]]
    ]  # fmt: skip
    counts = [[escape(reason), f"{count:,}"] for reason, count in reasons.most_common()]
    samples = table("A sample of both, by clip id", heads, cells)
    turned = table("Why rewrites were turned down", [("reason", ""), ("captions", "n")], counts)
    return f'{samples}<div style="height:14px"></div>{turned}'


def _throughput(stages: dict[str, StageTally]) -> str:
    whole = sum(t.seconds + t.decode_seconds for t in stages.values())
    rows = []
    for name, tally in stages.items():
        ran = tally.counts[OK] + tally.counts[FAILED]
        spent = tally.seconds + tally.decode_seconds
        rows.append(
            [
                escape(name), f"{tally.counts[OK]:,}", f"{tally.counts[FAILED]:,}",
                f"{tally.counts[SKIPPED]:,}", f"{1000 * tally.seconds / ran:.1f}" if ran else "–",
                f"{1000 * tally.decode_seconds / ran:.1f}" if ran else "–",
                f"{ran / spent:.1f}" if spent else "–", f"{spent / whole:.1%}" if whole else "–",
                bar(spent / whole if whole else 0.0),
            ]
        )  # fmt: skip
    heads = [("stage", ""), ("measured", "n"), ("failed", "n"), ("skipped", "n"),
             ("ms a clip", "n"), ("decode ms", "n"), ("clips/s a core", "n"), ("share", "n"),
             ("", "wide")]  # fmt: skip
    return table(f"{whole:.1f} processor seconds in all", heads, rows)


def _failures(failures: Sequence[Row]) -> str:
    groups: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in failures:
        groups[row.stage, row.error_code].append(row)
    ordered = sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))
    rows = [
        [f"<code>{escape(code)}</code>", escape(stage), f"{len(found):,}",
         escape(found[0].uri), escape(found[0].error[:300])]
        for (stage, code), found in ordered[:_FAILURES]
    ]  # fmt: skip
    heads = [("code", ""), ("stage", ""), ("clips", "n"), ("for example", "text"),
             ("says", "text")]  # fmt: skip
    return table(f"{len(failures):,} rows of the ledger", heads, rows)


def main(argv: Sequence[str]) -> int:
    """Run ``hummingbird curate report``; see its --help."""
    parsed = _parser().parse(argv)
    run = RunFolder(parsed.run)
    target = run.path / FILE if parsed.output is None else parsed.output

    def watch(done: int, total: int) -> None:
        if not parsed.quiet and sys.stderr.isatty():
            print(f"\rcontact sheets {done}/{total} ", end="", file=sys.stderr, flush=True)

    text = build_report(run, clips_each=parsed.clips, watch=watch)
    with atomic_file(target, overwrite=parsed.output is None or parsed.force) as partial:
        partial.write_text(text, encoding="utf-8", errors="backslashreplace")
    print(target)
    return 0


def _parser() -> Parser:
    parser = Parser(
        prog="hummingbird curate report", description="Show a run as one HTML file, self-contained."
    )
    add = parser.add_argument
    add("run", type=Path, metavar="RUN", help="folder of `curate score`, after `curate cut`")
    add("-o", "--output", type=Path, metavar="FILE", help="default: RUN/report.html")
    add("--clips", type=number_in(0, 100), default=8, metavar="N",
        help="clips of each contact sheet (default %(default)s)")  # fmt: skip
    add("--force", action="store_true", help="replace an existing file given by -o")
    add("-q", "--quiet", action="store_true", help="no progress on stderr")
    return parser
