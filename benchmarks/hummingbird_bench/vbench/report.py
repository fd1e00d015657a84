"""VBench results as Markdown, beside the published rows of the paper's Table 1."""

from __future__ import annotations

from collections.abc import Mapping

from hummingbird_bench.vbench.aggregate import DIMENSIONS, QUALITY, aggregate, normalise
from hummingbird_bench.vbench.published import PUBLISHED
from hummingbird_bench.vbench.weights import WEIGHTS

_BESIDE = ("Hummingbird, 16 frames", "Hummingbird, 26 frames", "VideoCrafter2")


def score_table(scores: Mapping[str, float]) -> str:
    """Raw and normalised scores in percent, the aggregate, and published rows.

    Args:
        scores: raw 0..1 by dimension; absent ones print as a dash and leave the figures that need
            them out.
    """
    lines = [
        f"| dimension | this | normalised | {' | '.join(_BESIDE)} |",
        "|---|---:|---:|" + "---:|" * len(_BESIDE),
    ]
    for name in DIMENSIONS:
        raw = scores.get(name)
        part = None if raw is None else normalise(name, raw)
        beside = [PUBLISHED[m].scores.get(name) for m in _BESIDE]
        cells = [_percent(raw), _percent(part), *("–" if b is None else f"{b:.2f}" for b in beside)]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    result = aggregate(scores)
    for title in ("quality", "semantic", "total"):
        beside_row = " | ".join(f"{getattr(PUBLISHED[m], title):.2f}" for m in _BESIDE)
        lines.append(f"| **{title}** | {_percent(getattr(result, title))} | | {beside_row} |")
    absent = [name for name in DIMENSIONS if name not in scores]
    if absent:
        quality = [name for name in absent if name in QUALITY]
        lines += [
            "",
            f"{len(absent)} dimensions not measured ({len(quality)} of quality): figures that need "
            "them are left out. VBench's own script would count them as 0.",
        ]
    return "\n".join(lines)


def weights_table() -> str:
    """Files that VBench wants, as Markdown."""
    lines = ["| file (below ~/.cache/vbench unless it says ~) | for | from |", "|---|---|---|"]
    lines += [f"| {w.path} | {', '.join(w.dimensions)} | {w.url} |" for w in WEIGHTS]
    return "\n".join(lines)


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.2f}"
