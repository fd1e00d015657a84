"""The dataset card: what is in it, by which rules, from where, under which licence. Markdown."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hummingbird_train.curation.histogram import histogram, score_columns, text_bars
from hummingbird_train.curation.row import Score
from hummingbird_train.curation.run_folder import RunFolder
from hummingbird_train.curation.selection import Selection
from hummingbird_train.curation.shard import ShardFacts


@dataclass(frozen=True)
class CardFacts:
    """What a card is written from."""

    run: RunFolder
    """the curation run"""
    selection: Selection
    """decisions and captions"""
    scores: Mapping[str, Mapping[str, Score]]
    """by clip id, then ``stage.key``"""
    shards: Sequence[ShardFacts]
    """what was written"""
    failed: int
    """kept clips that could not be packed"""
    licence: str
    """of the clips"""
    source: str
    """of the clips"""


def dataset_card(facts: CardFacts) -> str:
    """Write the card."""
    decisions = facts.selection.decisions
    kept = sum(keep for keep, _ in decisions.values())
    packed = sum(shard.clips for shard in facts.shards)
    size = sum(shard.bytes for shard in facts.shards)
    seconds = [
        float(of_clip["probe.duration"])
        for clip, of_clip in facts.scores.items()
        if "probe.duration" in of_clip and decisions.get(clip, (False, ""))[0]
    ]
    lines = [
        "---",
        f"license: {_yaml(facts.licence)}",
        "task_categories: [text-to-video]",
        f"size_categories: {_size_class(packed)}",
        "---",
        "",
        "# A curated set of captioned clips",
        "",
        "| | |",
        "|---|---|",
        f"| clips | {packed} |",
        f"| listed in the source | {len(decisions)} |",
        f"| kept by the rules | {kept} ({kept / max(len(decisions), 1):.1%}) |",
        f"| could not be packed | {facts.failed} |",
        f"| duration | {_duration(seconds)} |",
        f"| size | {size / 1e6:.1f} MB in {len(facts.shards)} shards |",
        f"| source | {_cell(facts.source)} |",
        f"| licence of the clips | {_cell(facts.licence)} |",
        "",
        "Made by `hummingbird curate score`, `cut`, `recaption` and `pack`. Every clip keeps its",
        "source path, span, scores and first caption in `manifest.parquet` and in its `.json`.",
        "",
        *_rules(facts.run),
        *_dropped(decisions),
        *_captions(facts.selection),
        *_histograms(facts),
        "## Shards",
        "",
        "| file | clips | bytes | SHA-256 |",
        "|---|---:|---:|---|",
        *(f"| {s.name} | {s.clips} | {s.bytes} | `{s.sha256}` |" for s in facts.shards),
    ]
    return "\n".join(lines) + "\n"


def read_rules(run: RunFolder) -> dict[str, Any]:
    """The summary of the last cut: rules, duplicates, funnel; empty keys when it is not there."""
    try:
        summary: dict[str, Any] = json.loads(run.cut_summary.read_text("utf-8"))
    except (OSError, ValueError):
        summary = {}
    return {"rules": [], "duplicates": None, "funnel": []} | summary


def _rules(run: RunFolder) -> list[str]:
    summary = read_rules(run)
    lines = ["## Thresholds", "", "| score | min | max | otherwise | without the score |",
             "|---|---:|---:|---|---|"]  # fmt: skip
    for rule in summary["rules"]:
        low, high = (_bound(rule.get(name)) for name in ("min", "max"))
        other = []
        if rule.get("equals") is not None:
            other.append(f"is {rule['equals']!r}")
        if rule.get("one_of"):
            other.append("one of " + ", ".join(map(str, rule["one_of"])))
        missing = rule.get("missing", "")
        lines.append(
            f"| {rule['score']} | {low} | {high} | {_cell('; '.join(other))} | {missing} |"
        )
    if copies := summary["duplicates"]:
        lines += ["", f"Near duplicates by `{copies['of']}` within {copies['distance']} bits: one "
                  "of each group stays."]  # fmt: skip
    return [*lines, ""]


def _dropped(decisions: Mapping[str, tuple[bool, str]]) -> list[str]:
    reasons = Counter(reason for keep, reason in decisions.values() if not keep)
    lines = ["## Dropped", "", "| reason | clips |", "|---|---:|"]
    lines += [f"| {_cell(reason)} | {count} |" for reason, count in reasons.most_common()]
    return [*lines, ""]


def _captions(selection: Selection) -> list[str]:
    if not selection.captions:
        return ["## Captions", "", "As found in the source.", ""]
    rows = selection.captions.values()
    names = ", ".join(sorted({row.recaptioner for row in rows}))
    accepted = sum(row.accepted for row in rows)
    words = [len(row.caption.split()) for row in rows]
    return [
        "## Captions", "",
        f"Rewritten by {names}: {accepted} of {len(selection.captions)} rewrites passed the guard, "
        f"the others keep their original. Words a caption: median {np.median(words):.0f}, "
        f"longest {max(words)}.",
        "",
    ]  # fmt: skip


def _histograms(facts: CardFacts) -> list[str]:
    order = list(facts.selection.decisions)
    lines = ["## Scores", "", "Columns: range, all clips, count of all, count of kept.", ""]
    for name, (clips, values) in score_columns(facts.scores, order).items():
        kept = [facts.selection.decisions[clip][0] for clip in clips]
        lines += [
            f"### {name}",
            "",
            "```text",
            *text_bars(histogram(name, values, kept)),
            "```",
            "",
        ]
    return lines


def _duration(seconds: Sequence[float]) -> str:
    if not seconds:
        return "not measured"
    return f"{sum(seconds) / 3600:.2f} h, median {float(np.median(seconds)):.1f} s a clip"


def _size_class(clips: int) -> str:
    for limit, name in ((1000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"),
                        (1_000_000, "100K<n<1M")):  # fmt: skip
        if clips < limit:
            return name
    return "n>1M"


def _bound(value: float | None) -> str:
    return "" if value is None else f"{value:g}"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def _yaml(text: str) -> str:
    return json.dumps(" ".join(text.split()))
