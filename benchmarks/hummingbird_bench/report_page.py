"""A benchmark report as a page: what is faster, by how much, why, and what to hold against it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hummingbird_bench import amounts
from hummingbird_bench.charts import Bar, bars, forest, legend, stacks
from hummingbird_bench.devices import machine_words
from hummingbird_bench.evidence_figures import (
    certificates_figure,
    environment_figure,
    gates_figure,
    runs_figure,
    validations_figure,
)
from hummingbird_bench.page import Figure, Page, Section, Table, Tile
from hummingbird_bench.report import Report
from hummingbird_bench.sealed_document import Sealed
from hummingbird_bench.waterfall import waterfall_figure

_Derived = Mapping[str, Any]
_STAGES = {"unet": "U-Net", "decode": "decoder", "start": "process start"}


def report_page(sealed: Sealed[Report]) -> Page:
    """The page of a report that was read and held."""
    report, found = sealed.raw, sealed.derived
    lead = next((c["row"] for c in found["comparisons"] if c["headline"]), "")
    return Page(
        title=report.title,
        subtitle=f"{machine_words(report.environment)['name']}. {report.made.started[:10]}"
        + (f", {lead}" if lead else "")
        + f". Scale: {report.scale}.",
        tiles=tuple(_tiles(found)),
        notes=report.notes,
        sections=(
            Section("ratios", "How much faster", "Seconds of the one over seconds of the other, "
                    "run in turn and compared pair by pair, with the 95 % interval of the "
                    f"ratio. {report.stop_rule}",
                    (_ratios(found), _same_work(found))),
            Section("clips", "Seconds of one clip", "From the prompt to the last frame, in a "
                    "process of its own.", (_clips(report, found),)),
            Section("waterfall", "Where it comes from", "The slow clip turned into the fast one, "
                    "one change at a time.", tuple(map(waterfall_figure, found["waterfalls"]))),
            Section("stages", "Inside a clip", "", (_stages(found), _memory(found))),
            Section("certificate", "Was it the same work?", "What differs between two arms must "
                    "be declared; everything else must be equal, or the ratio is refused. Each "
                    "arm's output is held against its own float32 reference.",
                    (certificates_figure(found), gates_figure(report, found))),
            Section("runs", "Every run", "None is left out. A machine that does other things "
                    "shows here.", (runs_figure(found), validations_figure(found))),
            Section("machine", "The machine", "", (environment_figure(report.environment),)),
        ),
        footer=f"Made by Hummingbird {report.made.version}: {report.made.command}. Raw samples "
        f"have SHA-256 {sealed.sha256}. `hummingbird bench verify` computes every figure here "
        "again from the raw samples in the JSON file and fails where one was edited. It guards "
        "against accidents and sloppy editing, not against forgery.",
    )  # fmt: skip


def _tiles(found: _Derived) -> list[Tile]:
    between = [c for c in found["comparisons"] if not c["same_work"]]
    shown = [c for c in between if c["headline"]] or [c for c in between if c["valid"]]
    return [
        Tile(
            figure=amounts.ratio(c["ratio"]["estimate"]) if claims(c) else "–",
            interval=f"95 % {amounts.interval(c['ratio']['low'], c['ratio']['high'])}"
            if claims(c)
            else "",
            text=f"{c['b']} against {c['a']}, {c['row']}"
            + (
                ". Random weights: architecture only, quality not shown"
                if c["architecture_only"]
                else ""
            ),
            tags=tags(c),
        )
        for c in shown[:6]
    ]


def claims(comparison: _Derived) -> bool:
    """Whether a ratio may be said at all."""
    return bool(
        comparison["valid"]
        and comparison["ratio"]
        and not comparison["ratio"]["verdict"].startswith("too noisy")
    )


def tags(comparison: _Derived) -> tuple[str, ...]:
    """Words that must be seen with a ratio, out of ``page.TAGS``."""
    words = []
    if not comparison["valid"]:
        words.append("INVALID")
    elif not claims(comparison):
        words.append("too noisy")
    if comparison["extrapolated"]:
        words.append("extrapolated")
    if comparison["architecture_only"]:
        words.append("architecture only")
    return tuple(words) or ("measured",)


def _ratios(found: _Derived) -> Figure:
    drawn, rows = [], []
    for c in found["comparisons"]:
        if c["same_work"]:
            continue
        name = f"{c['b']} against {c['a']}"
        ratio, sure = c["ratio"], claims(c)
        if ratio and c["valid"]:
            shown = (
                f"{amounts.ratio(ratio['estimate'])} "
                f"{amounts.interval(ratio['low'], ratio['high'])}"
                if sure
                else ratio["verdict"]
            )
            note = c["row"] + (", extrapolated" if c["extrapolated"] else "")
            ends = (ratio["low"], ratio["high"])
            drawn.append(
                Bar(name, ratio["estimate"], shown, *ends, "ours" if sure else "invalid", note)
            )
        else:
            drawn.append(Bar(name, 0.0, "INVALID", kind="invalid", note=c["reason"]))
        rows.append(
            (
                name,
                amounts.ratio(ratio["estimate"]) if sure else "–",
                amounts.interval(ratio["low"], ratio["high"]) if sure else "–",
                "; ".join(tags(c)),
                str(ratio["pairs"]) if ratio else "0",
                ratio["verdict"] if ratio and c["valid"] else c["reason"] or "no pairs",
                _beside(c, found),
                {"clip": "whole clips", "pass": "U-Net passes"}[c["metric"]],
                c["row"],
            )
        )
    return Figure(
        title="Ratios with their intervals",
        caption="A bar of 1 would be equally fast. The whiskers are the 95 % interval. Beside "
        "every comparison stands an A/A run: the same arm against itself under the same "
        "procedure, which must find nothing.",
        drawing=bars(drawn),
        table=Table(
            "Every comparison",
            (("faster against slower", ""), ("ratio", "n"), ("95 % interval", "n"), ("status", ""),
             ("pairs", "n"), ("verdict", "text"), ("A/A beside it", "text"), ("of", ""),
             ("row", "text")),
            tuple(rows),
        ),
        beside=False,
    )  # fmt: skip


def _beside(comparison: _Derived, found: _Derived) -> str:
    if comparison["beside"] is None:
        return "none was run"
    other = found["comparisons"][comparison["beside"]]["ratio"]
    return (
        f"{amounts.ratio(other['estimate'])} {amounts.interval(other['low'], other['high'])}, "
        f"{other['verdict']}"
    )


def _same_work(found: _Derived) -> Figure:
    same = [c for c in found["comparisons"] if c["same_work"] and c["ratio"]]
    rows, drawn = [], []
    for c in same:
        r = c["ratio"]
        holds = r["low"] <= 1 <= r["high"]
        shown = f"{amounts.ratio(r['estimate'])} {amounts.interval(r['low'], r['high'])}"
        name = f"{c['a']} against itself"
        drawn.append((name, shown, r["estimate"], r["low"], r["high"], holds))
        rows.append(
            (
                name,
                c["row"],
                amounts.ratio(r["estimate"]),
                amounts.interval(r["low"], r["high"]),
                str(r["pairs"]),
                r["verdict"],
            )
        )
    return Figure(
        title="A/A: the same work twice",
        caption="The interval must hold 1. One that does not (red) means that the machine drifted, "
        "and no ratio of that size or smaller can be believed.",
        drawing=forest(drawn) if drawn else "",
        table=Table(
            "Every A/A run",
            (("arm", ""), ("row", "text"), ("ratio", "n"), ("95 % interval", "n"), ("pairs", "n"),
             ("verdict", "text")),
            tuple(rows),
        ),
        beside=False,
    )  # fmt: skip


def _clips(report: Report, found: _Derived) -> Figure:
    theirs = _slower(found)
    drawn, rows = [], []
    for arm, work in zip(found["arms"], [a.workload for a in report.arms], strict=True):
        clip, status = arm["clip"], _status(arm)
        note = ", ".join(word for word in status if word != "measured")
        if not arm["valid"]:
            note = f"INVALID: {arm['reason']}"
        if clip:
            shown = amounts.seconds(clip["median"])
            drawn.append(
                Bar(arm["name"], clip["median"], shown, clip["low"], clip["high"],
                    _kind(arm, theirs), note)
            )  # fmt: skip
        rows.append(
            (
                arm["name"],
                amounts.seconds(clip["median"]) if clip else "–",
                "; ".join(status),
                f"{amounts.seconds(clip['low'])} to {amounts.seconds(clip['high'])}"
                if clip
                else "–",
                f"{clip['n']} {arm['phase']}" if clip else "0",
                _seconds(arm["first_s"]),
                _seconds(arm["cold_s"]),
                _seconds(arm["pass_s"]),
                str(arm["passes"]),
                f"{work.frames} × {work.height} × {work.width}",
            )
        )
    return Figure(
        title="Seconds of one clip",
        caption="Medians; whiskers go from the fastest run to the slowest.",
        drawing=bars(drawn),
        table=Table(
            "Every arm",
            (("arm", ""), ("median", "n"), ("status", ""), ("range", "n"), ("runs", "n"),
             ("first", "n"), ("cold start", "n"), ("one pass", "n"), ("passes", "n"),
             ("frames × pixels", "n")),
            tuple(rows),
        ),
        beside=False,
    )  # fmt: skip


def _slower(found: _Derived) -> set[str]:
    """Arms that comparisons start from and none leads to: the opponents."""
    between = [c for c in found["comparisons"] if not c["same_work"]]
    return {c["a"] for c in between} - {c["b"] for c in between}


def _kind(arm: _Derived, theirs: set[str]) -> str:
    if not arm["valid"]:
        return "invalid"
    return "theirs" if arm["name"] in theirs else "ours"


def _status(arm: _Derived) -> tuple[str, ...]:
    if not arm["valid"]:
        return ("INVALID",)
    words = ["extrapolated" if arm["extrapolated"] else "measured"]
    if not arm["gated"]:
        words.append("not gated")
    return tuple(words)


def _stages(found: _Derived) -> Figure:
    arms = [arm for arm in found["arms"] if arm["stages"]]
    names = list(dict.fromkeys(s["name"] for arm in arms for s in arm["stages"]))
    names.sort(key=lambda n: -max(s["share"] for a in arms for s in a["stages"] if s["name"] == n))
    kinds = {name: f"c{min(i, 5)}" for i, name in enumerate(names)}
    drawn, rows = [], []
    for arm in arms:
        seconds = {s["name"]: s["seconds"] for s in arm["stages"]}
        total = amounts.seconds(sum(seconds.values()))
        drawn.append(
            (arm["name"], total, [(kinds[s["name"]], s["share"]) for s in
                                  sorted(arm["stages"], key=lambda s: names.index(s["name"]))])
        )  # fmt: skip
        rows.append(
            (
                arm["name"],
                *(amounts.seconds(seconds[n]) if n in seconds else "–" for n in names),
                amounts.percent(arm["coverage"]),
            )
        )
    return Figure(
        title="Stages",
        caption="Shares of each clip's own time. Timed stages must cover 99 % of the wall time; "
        "what they do not cover is the rest.",
        drawing=legend([(kinds[n], _STAGES.get(n, n)) for n in names]) + stacks(drawn),
        table=Table(
            "Median seconds by stage",
            (("arm", ""), *((_STAGES.get(n, n), "n") for n in names), ("covered", "n")),
            tuple(rows),
        ),
        beside=len(names) < 3,
    )


def _memory(found: _Derived) -> Figure:
    arms = [arm for arm in found["arms"] if arm["peak_rss_bytes"]]
    return Figure(
        title="Peak memory",
        caption="Highest resident set of any run of the arm (RSS); PSS counts shared pages in "
        "part. Energy is that of the processor's packages over a run.",
        drawing=bars(
            [
                Bar(arm["name"], arm["peak_rss_bytes"], amounts.storage(arm["peak_rss_bytes"]),
                    kind=_kind(arm, _slower(found)))
                for arm in arms
            ]
        ),
        table=Table(
            "Peak memory by arm",
            (("arm", ""), ("RSS", "n"), ("PSS", "n"), ("energy", "n")),
            tuple(
                (arm["name"], amounts.storage(arm["peak_rss_bytes"]),
                 "not measured" if arm["peak_pss_bytes"] is None
                 else amounts.storage(arm["peak_pss_bytes"]),
                 "not measured" if arm["energy_j"] is None
                 else f"{amounts.significant(arm['energy_j'])} J")
                for arm in arms
            ),
        ),
    )  # fmt: skip


def _seconds(value: float | None) -> str:
    return "–" if value is None else amounts.seconds(value)
