"""The cut: rules on stored scores, in seconds, with no video opened; and its funnel."""

from __future__ import annotations

import difflib
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from hummingbird_runtime.atomic import atomic_file
from hummingbird_runtime.errors import UsageError
from hummingbird_train.curation.arrow import pyarrow
from hummingbird_train.curation.ledger import Ledger
from hummingbird_train.curation.near_duplicates import find_copies
from hummingbird_train.curation.row import Score
from hummingbird_train.curation.rules import Rules
from hummingbird_train.curation.run_folder import RunFolder

UNSCORED = "not scored"
COPY = "near duplicate"


@dataclass(frozen=True)
class Decision:
    """What becomes of one clip."""

    clip_id: str
    """the clip."""
    keep: bool
    """whether it goes into the dataset."""
    reason: str
    """the rule that it breaks, the same words for every clip; empty when kept."""


@dataclass(frozen=True)
class FunnelStep:
    """One reason to drop clips."""

    reason: str
    """as in the decisions."""
    dropped: int
    """clips dropped for it: they broke no earlier rule."""
    alone: int
    """clips that break this rule, whatever else they break."""
    left: int
    """clips left after it."""


@dataclass(frozen=True)
class Cut:
    """All decisions of a run."""

    decisions: tuple[Decision, ...]
    """in the order of clips.parquet."""
    funnel: tuple[FunnelStep, ...]
    """in the order of the rules."""
    notes: tuple[str, ...] = ()
    """parts of the ledger that were left out."""

    @property
    def kept(self) -> int:
        """Number of clips that stay."""
        return sum(decision.keep for decision in self.decisions)


def decide(run: RunFolder, rules: Rules) -> Cut:
    """Judge every clip of a run by its stored scores.

    Raises:
        UsageError: ``rules.unknown_stage``, ``rules.unknown_score``.
        InputError: ``curation.no_run``, ``ledger.missing``, ``rules.*``.
    """
    versions = run.stage_versions()
    with Ledger.open(run.path) as ledger:
        scores = ledger.scores(versions)
        notes = tuple(ledger.notes)
    _check_names(rules, versions, scores)
    reasons: dict[str, str] = {}
    broken: Counter[str] = Counter()
    order = [clip.id for clip in run.clips()]
    for clip in order:
        of_clip = scores.get(clip)
        if of_clip is None:
            reasons[clip] = UNSCORED
            broken[UNSCORED] += 1
            continue
        every = [reason for rule in rules.rules if (reason := rule.reason(of_clip))]
        reasons[clip] = every[0] if every else ""
        broken.update(every)
    if rules.duplicates is not None:
        left = {clip: scores[clip] for clip in order if not reasons[clip]}
        copies = find_copies(rules.duplicates, left)
        reasons |= dict.fromkeys(copies, COPY)
        broken[COPY] = len(copies)
    decisions = tuple(Decision(clip, not reasons[clip], reasons[clip]) for clip in order)
    return Cut(decisions, tuple(_funnel(rules, reasons, broken)), notes)


def write_cut(run: RunFolder, cut: Cut, rules: Rules) -> None:
    """Write cut.parquet (clip_id, keep, reason) and cut.json (rules, funnel) into the run."""
    pa, pq, _ = pyarrow()
    summary = {
        "clips": len(cut.decisions),
        "kept": cut.kept,
        "rules": [asdict(rule) for rule in rules.rules],
        "duplicates": None if rules.duplicates is None else asdict(rules.duplicates),
        "funnel": [asdict(step) for step in cut.funnel],
    }
    schema = pa.schema(
        [("clip_id", pa.string()), ("keep", pa.bool_()), ("reason", pa.string())],
        metadata={b"hummingbird.cut": json.dumps(summary).encode()},
    )
    table = pa.table(
        {
            "clip_id": [decision.clip_id for decision in cut.decisions],
            "keep": [decision.keep for decision in cut.decisions],
            "reason": [decision.reason for decision in cut.decisions],
        },
        schema=schema,
    )
    with atomic_file(run.cut_file, overwrite=True) as partial:
        pq.write_table(table, partial, compression="zstd")
    run.write_text(run.cut_summary, json.dumps(summary, indent=1) + "\n")


def funnel_text(cut: Cut) -> str:
    """The funnel as a Markdown table."""
    total = len(cut.decisions)
    lines = ["| rule broken | dropped | on its own | left |", "|---|---:|---:|---:|"]
    lines.append(f"| (clips listed) | | | {total} |")
    lines += [f"| {s.reason} | {s.dropped} | {s.alone} | {s.left} |" for s in cut.funnel]
    share = cut.kept / total if total else 0.0
    return "\n".join([*lines, "", f"kept {cut.kept} of {total} clips ({share:.1%})"])


def _funnel(
    rules: Rules, reasons: Mapping[str, str], broken: Mapping[str, int]
) -> Iterator[FunnelStep]:
    dropped = Counter(reasons.values())
    left = len(reasons)
    order = [rule.score for rule in rules.rules]

    def place(reason: str) -> tuple[int, str]:
        if reason in (UNSCORED, COPY):
            return (-1 if reason == UNSCORED else len(order)), reason
        return order.index(reason.partition(" ")[0]), reason

    for reason in sorted(broken, key=place):
        left -= dropped[reason]
        yield FunnelStep(reason, dropped[reason], broken[reason], left)


def _check_names(
    rules: Rules, versions: Mapping[str, Any], scores: Mapping[str, Mapping[str, Score]]
) -> None:
    """Refuse rules on stages or scores that the run does not have: they would drop everything."""
    named = rules.named_scores()
    foreign = sorted({name.partition(".")[0] for name in named} - versions.keys())
    if foreign:
        raise UsageError(
            "rules.unknown_stage",
            f"rules: got stages {', '.join(foreign)}, expected some of {', '.join(versions)}",
            hint="a rule's name is STAGE.SCORE; add the stage and score again, or drop the rule",
        )
    known: set[str] = set().union(*scores.values()) if scores else set()
    measured = {name.partition(".")[0] for name in known}
    for name in named:
        if name not in known and name.partition(".")[0] in measured:
            near = difflib.get_close_matches(name, known, n=1)
            raise UsageError(
                "rules.unknown_score",
                f"rules: got {name}, which no clip has, expected a score of that stage",
                hint=f"did you mean {near[0]}?" if near else "see `hummingbird curate ledger RUN`",
            )
