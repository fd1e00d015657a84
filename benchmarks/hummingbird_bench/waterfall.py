"""Where a speed-up comes from: the slow clip turned into the fast one, one change at a time.

Each step puts a clip together from measured parts: text of one arm, so many passes of another's
U-Net, decoding and the rest of a third. Its factor is the seconds before over the seconds after,
so the factors multiply to the quotient of the ends. That product is held against the ratio of the
two arms as paired runs gave it; within ``CLOSES`` the waterfall closes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hummingbird_bench import amounts
from hummingbird_bench.charts import falls
from hummingbird_bench.page import Figure, Table
from hummingbird_runtime.errors import InputError

if TYPE_CHECKING:
    from hummingbird_bench.report import Waterfall

CLOSES = 0.02
"""Largest relative difference between the product of the factors and the measured ratio."""


def derive_waterfall(
    asked: Waterfall, arms: Mapping[str, Any], comparisons: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Seconds and factors of every step, their product, and whether it closes; pure.

    Args:
        asked: the steps.
        arms: derived figures by arm.
        comparisons: derived comparisons; the measured total is that of whole clips of the ends.

    Raises:
        InputError: ``report.unknown_arm`` for a part of an arm that was not measured.
    """
    steps: list[dict[str, Any]] = []
    for step in asked.steps:
        after = (
            _part(arms, step.text, "text")
            + step.passes * _pass(arms, step.unet)
            + _part(arms, step.decoder, "decode")
            + _others(arms, step.decoder)
        )
        before = steps[-1]["seconds"] if steps else after
        steps.append(
            {
                "name": step.name,
                "label": step.label,
                "seconds": after,
                "factor": before / after,
            }
        )
    product = math.prod(step["factor"] for step in steps)
    measured = next(
        (
            c["ratio"]["estimate"]
            for c in comparisons
            if (c["a"], c["b"], c["metric"]) == (asked.a, asked.b, "clip") and c["ratio"]
        ),
        None,
    )
    return {
        "title": asked.title,
        "a": asked.a,
        "b": asked.b,
        "steps": steps,
        "product": product,
        "measured": measured,
        "error": None if measured is None else product / measured - 1.0,
        "closes": measured is not None and abs(product / measured - 1.0) <= CLOSES,
        "extrapolated": any(arms[step.unet]["extrapolated"] for step in asked.steps),
    }


def waterfall_figure(found: Mapping[str, Any]) -> Figure:
    """A derived waterfall as a figure."""
    start, *changes = found["steps"]
    drawn = [
        (start["label"], amounts.seconds(start["seconds"]), "", 0.0, start["seconds"], "theirs")
    ]
    at = start["seconds"]
    for step in changes:
        shown = f"{amounts.ratio(step['factor'])} → {amounts.seconds(step['seconds'])}"
        kind = "gain" if step["factor"] >= 1 else "loss"
        drawn.append((step["name"], shown, step["label"], at, step["seconds"], kind))
        at = step["seconds"]
    drawn.append(("what is left", amounts.seconds(at), "", 0.0, at, "ours"))
    total = "" if found["measured"] is None else amounts.ratio(found["measured"])
    product = amounts.ratio(found["product"])
    close = (
        "no comparison of the two ends was measured"
        if found["measured"] is None
        else f"paired runs of the two ends gave {total}, "
        + (
            f"{amounts.percent(abs(found['error']))} apart"
            if found["closes"]
            else f"{amounts.percent(abs(found['error']))} apart: it does NOT close within "
            f"{amounts.percent(CLOSES)}"
        )
    )
    mark = " Parts of it are extrapolated from fewer passes." if found["extrapolated"] else ""
    cells = [(start["name"], start["label"], amounts.seconds(start["seconds"]), "")]
    cells += [
        (s["name"], s["label"], amounts.seconds(s["seconds"]), amounts.ratio(s["factor"]))
        for s in changes
    ]
    return Figure(
        title=found["title"],
        caption="Seconds of one clip on a logarithmic scale, so equal factors are equally long. "
        f"The factors multiply to {product}; {close}.{mark}",
        drawing=falls(drawn, amounts.seconds),
        table=Table(
            "Each change alone, on top of those above it",
            (("change", ""), ("what", "text"), ("a clip then takes", "n"), ("factor", "n")),
            (*cells, ("product", "", amounts.seconds(at), product)),
        ),
    )


def _part(arms: Mapping[str, Any], name: str, stage: str) -> float:
    return sum(float(s["seconds"]) for s in _measured(arms, name)["stages"] if s["name"] == stage)


def _others(arms: Mapping[str, Any], name: str) -> float:
    """Encoding and everything else that is neither text, nor U-Net, nor decoder."""
    known = ("text", "unet", "decode")
    return sum(
        float(s["seconds"]) for s in _measured(arms, name)["stages"] if s["name"] not in known
    )


def _pass(arms: Mapping[str, Any], name: str) -> float:
    return float(_measured(arms, name)["pass_s"] or 0.0)


def _measured(arms: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    if name not in arms or arms[name]["clip"] is None:
        raise InputError(
            "report.unknown_arm",
            f"a waterfall takes a part of {name!r}, which was not measured",
            hint=f"measured were {', '.join(n for n in arms if arms[n]['clip'])}",
        )
    found: Mapping[str, Any] = arms[name]
    return found
