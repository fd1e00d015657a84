"""The figures that let a reader doubt a report: certificates, gates, every run, the machine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hummingbird_bench import amounts
from hummingbird_bench.charts import strips
from hummingbird_bench.devices import leaves
from hummingbird_bench.page import Figure, Table
from hummingbird_bench.report import Report

_Derived = Mapping[str, Any]
_REACH = 0.10
"""Share of the median at the edges of the figure of all runs."""


def certificates_figure(found: _Derived) -> Figure:
    """What differs between the arms of every comparison, declared or not."""
    rows = []
    for c in found["comparisons"]:
        certificate = c["certificate"]
        said = {
            key: "; ".join(
                f"{one['field']} {_brief(one['a'])} → {_brief(one['b'])}"
                for one in certificate[key]
            )
            for key in ("differs", "refused")
            if certificate
        }
        rows.append(
            (
                f"{c['b']} against {c['a']}",
                ", ".join(certificate["treatment"]) or "nothing" if certificate else "–",
                said.get("differs") or "nothing" if certificate else "no certificate",
                said.get("refused") or "nothing" if certificate else "–",
                amounts.ratio(certificate["work_ratio"]) if certificate else "–",
            )
        )
    return Figure(
        title="What differs",
        caption="From the slower arm to the faster one. What is not listed was compared and is "
        "equal. Work is counted: operations of a clip of the slower over those of the faster.",
        drawing="",
        table=Table(
            "Same-work certificates",
            (("comparison", ""), ("declared", "text"), ("differs within it", "text"),
             ("differs beyond it", "text"), ("work", "n")),
            tuple(rows),
        ),
    )  # fmt: skip


def gates_figure(report: Report, found: _Derived) -> Figure:
    """Each arm's agreement with its own float32 reference."""
    rows = []
    for arm, figures in zip(report.arms, found["arms"], strict=True):
        gate = arm.gate or {}
        said = figures["reason"] or ("agrees" if arm.gate else "")
        rows.append(
            (
                arm.workload.name,
                _decibel(gate.get("snr_db")),
                f"{gate['cosine']:.5f}" if isinstance(gate.get("cosine"), int | float) else "–",
                "yes" if figures["same_output"] else "no",
                said,
                "INVALID" if not figures["valid"] else "not gated" if not arm.gate else "measured",
            )
        )
    return Figure(
        title="Each arm against its own float32 reference",
        caption="Signal over error in decibels and the cosine at a small size with the same "
        "weights; and whether all runs of the arm gave the same bytes.",
        drawing="",
        table=Table(
            "Gates",
            (("arm", ""), ("SNR", "n"), ("cosine", "n"), ("same bytes", ""), ("says", "text"),
             ("status", "")),
            tuple(rows),
        ),
    )  # fmt: skip


def runs_figure(found: _Derived) -> Figure:
    """Every run as its distance from the median of its arm."""
    arms = [arm for arm in found["arms"] if arm["clip"]]
    drawn, rows = [], []
    for arm in arms:
        spread = [abs(v) for v in arm["clip"]["deviations"]]
        shown = f"{arm['clip']['n']} runs, at most {amounts.percent(max(spread))}"
        drawn.append((arm["name"], shown, arm["clip"]["deviations"]))
        rows.append(
            (
                arm["name"],
                *(str(arm["runs"][phase]) for phase in ("cold", "first", "steady")),
                amounts.percent(max(spread)),
                f"{arm['load']:.2f}",
                str(arm["stolen_ticks"]),
                f"{arm['cpus']:.2f}",
            )
        )
    return Figure(
        title="Every run against the median of its arm",
        caption="Left is faster, right slower; time runs downwards, so a slope is drift. Red rings "
        f"are beyond {amounts.percent(_REACH)}.",
        drawing=strips(drawn, _REACH, lambda v: f"{100 * v:+.0f} %" if v else "median"),
        table=Table(
            "Runs by arm",
            (("arm", ""), ("cold", "n"), ("first", "n"), ("steady", "n"), ("farthest", "n"),
             ("load before", "n"), ("ticks stolen", "n"), ("cores used", "n")),
            tuple(rows),
        ),
        beside=False,
    )  # fmt: skip


def validations_figure(found: _Derived) -> Figure:
    """Extrapolated clips against complete ones."""
    return Figure(
        title="The extrapolation, checked",
        caption="Seconds of a clip as predicted from a few passes, against a complete run.",
        drawing="",
        table=Table(
            "Predicted and measured",
            (("arm", ""), ("predicted", "n"), ("measured", "n"), ("error", "n")),
            tuple(
                (v["arm"], amounts.seconds(v["predicted_s"]), amounts.seconds(v["measured_s"]),
                 f"{100 * v['error']:+.1f} %")
                for v in found["validations"]
            ),
        ),
    )  # fmt: skip


def environment_figure(environment: Mapping[str, Any]) -> Figure:
    """Everything that was found out about the machine."""
    return Figure(
        title="Environment",
        caption="As found when the run began.",
        drawing="",
        table=Table(
            "Environment",
            (("what", ""), ("value", "text")),
            tuple(
                (name, amounts.storage(value) if _is_size(name, value) else _value(value))
                for name, value in leaves(environment)
            ),
        ),
    )


def _is_size(name: str, value: Any) -> bool:
    return name.endswith("_bytes") and type(value) is int


def _value(value: Any) -> str:
    if value is None:
        return "not measured"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        return ", ".join(map(_value, value))
    text = str(value)
    return text if len(text) <= 400 else text[:397] + "..."


def _brief(value: Any) -> str:
    """A fact in a list of many: a hash by its first digits, a large number in its unit."""
    if type(value) is int and value >= 10**6:
        return amounts.count(value)
    text = _value(value)
    is_hash = len(text) == 64 and set(text) <= set("0123456789abcdef")
    return text[:8] if is_hash else text


def _decibel(value: Any) -> str:
    return f"{value:.1f} dB" if isinstance(value, int | float) else "–"
