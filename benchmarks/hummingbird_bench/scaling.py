"""How time and memory grow with frames, size, steps and threads; fits, and where the limit is.

One axis is changed at a time from a base workload; every point is a fresh child process. A fit is
least squares on relative errors over the simplest law that the axis should follow, and its largest
error stands beside it: a law that does not hold is seen, not hidden.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hummingbird_bench import amounts
from hummingbird_bench.charts import Series, curves, legend
from hummingbird_bench.derive import chosen, clip_stages
from hummingbird_bench.evidence_figures import environment_figure
from hummingbird_bench.page import Figure, Page, Section, Table
from hummingbird_bench.report import Made
from hummingbird_bench.roofline import GraphProfile, derive_roofline, roofline_figure
from hummingbird_bench.sample import Sample
from hummingbird_bench.sealed_document import Kind, Sealed
from hummingbird_bench.workload import Workload
from hummingbird_runtime.facts import MAX_FRAMES

FloatArray = NDArray[np.float64]

SCHEMA = "hummingbird-scaling/1"

Axis = Literal["frames", "size", "steps", "threads"]


@dataclass(frozen=True)
class Law:
    """How a quantity depends on an axis."""

    terms: tuple[Callable[[float], float], ...]
    """summands of the law without their factors"""
    words: str
    """the law as words, with {} for each factor"""
    rising: bool = False
    """whether a negative last factor would bend the law down: the term is then left out"""


_ONE: Callable[[float], float] = lambda x: 1.0  # noqa: E731 - a table of terms reads better
LINEAR = Law((_ONE, lambda x: x), "{} + {} x")
SQUARE = Law((_ONE, lambda x: x, lambda x: x * x), "{} + {} x + {} x²", rising=True)
SHARED = Law((_ONE, lambda x: 1 / x), "{} + {} / x")
FLAT = Law((_ONE,), "{}")

LAWS: dict[Axis, tuple[Law, Law]] = {
    "frames": (LINEAR, LINEAR),
    "size": (SQUARE, LINEAR),
    "steps": (LINEAR, FLAT),
    "threads": (SHARED, FLAT),
}
"""Of seconds and of memory. Attention over a picture grows with the square of its pixels; more
threads divide what can be divided."""


@dataclass(frozen=True)
class Point:
    """One workload on one axis."""

    axis: Axis
    workload: Workload
    samples: tuple[Sample, ...]


@dataclass(frozen=True)
class Scaling:
    """The raw part of a scaling document."""

    schema: Literal["hummingbird-scaling/1"]
    title: str
    made: Made
    environment: dict[str, Any]
    memory_bytes: int
    """of the machine; the limit that memory is held against"""
    points: tuple[Point, ...]
    profiles: tuple[GraphProfile, ...] = ()
    """of single runs of graphs of the base workload"""


def derive_scaling(raw: Scaling) -> dict[str, Any]:
    """Points, fits, limits and rooflines; pure."""
    axes: dict[str, Any] = {}
    for axis in LAWS:
        points = sorted(
            (_point(p) for p in raw.points if p.axis == axis and p.samples),
            key=lambda p: float(p["x"]),
        )
        if points:
            xs = [p["x"] for p in points]
            seconds, memory = LAWS[axis]
            axes[axis] = {
                "points": points,
                "time": fit(seconds, xs, [p["clip_s"] for p in points]),
                "memory": fit(memory, xs, [p["peak_rss_bytes"] for p in points]),
            }
    return {
        "axes": axes,
        "frames_that_fit": _frames_that_fit(axes.get("frames"), raw.memory_bytes),
        "rooflines": [derive_roofline(profile) for profile in raw.profiles],
    }


SCALING: Kind[Scaling] = Kind(SCHEMA, Scaling, derive_scaling)


def fit(law: Law, xs: Sequence[float], ys: Sequence[float]) -> dict[str, Any] | None:
    """Factors of a law by least squares on relative errors; None with no point to spare.

    Args:
        law: what to fit.
        xs: where.
        ys: positive values.

    Returns:
        ``factors`` in the order of the law's terms, ``worst`` (the largest relative error at a
        measured point, 0..) and ``points``. A term that was left out has factor 0.
    """
    if len(set(xs)) <= len(law.terms):
        return None
    values = np.asarray(ys, np.float64)
    table = np.array([[term(x) for term in law.terms] for x in xs], np.float64)
    factors = _least_squares(table, values)
    if law.rising and factors[-1] < 0:
        factors = np.append(_least_squares(table[:, :-1], values), 0.0)
    worst = float(np.abs(table @ factors / values - 1).max())
    return {"factors": factors.tolist(), "worst": worst, "points": len(xs)}


def _least_squares(table: FloatArray, values: FloatArray) -> FloatArray:
    """Factors of the columns of ``table`` (n, k) for ``values`` (n,), relative errors squared."""
    scale = np.abs(table).max(axis=0)  # pixels squared beside 1 would lose digits
    found = np.linalg.lstsq(table / scale / values[:, None], np.ones(len(values)))[0]
    return np.asarray(found / scale, np.float64)


def value_at(law: Law, factors: Sequence[float], x: float) -> float:
    """A fitted law at one place."""
    return sum(f * term(x) for f, term in zip(factors, law.terms, strict=True))


def place(axis: Axis, work: Workload) -> float:
    """Where a workload stands on an axis: frames, pixels of a frame, steps, threads."""
    return float(
        {
            "frames": work.frames,
            "size": work.height * work.width,
            "steps": work.steps,
            "threads": work.threads,
        }[axis]
    )


def _point(point: Point) -> dict[str, Any]:
    runs = chosen(point.samples)
    every = [clip_stages(point.workload, sample) for sample in runs]
    work = point.workload
    return {
        "x": place(point.axis, work),
        "label": f"{work.height} × {work.width}" if point.axis == "size" else "",
        "clip_s": statistics.median(s.wall_s for s in runs),
        "unet_s": statistics.median(stages.get("unet", 0.0) for stages in every),
        "decode_s": statistics.median(stages.get("decode", 0.0) for stages in every),
        "peak_rss_bytes": float(max(s.peak_rss_bytes for s in point.samples)),
        "runs": len(runs),
    }


def _frames_that_fit(frames: Mapping[str, Any] | None, memory: int) -> float | None:
    """Frames at which the fitted peak would be all of the machine's memory."""
    if frames is None or frames["memory"] is None:
        return None
    base, slope = frames["memory"]["factors"]
    return (memory - base) / slope if slope > 0 else None


def scaling_page(sealed: Sealed[Scaling]) -> Page:
    """The page of a scaling document."""
    raw, found = sealed.raw, sealed.derived
    base = raw.points[0].workload if raw.points else None
    sections = [
        Section(axis, _TITLES[axis][0], "", _axis_figures(axis, found["axes"][axis]))
        for axis in LAWS
        if axis in found["axes"]
    ]
    notes = [] if found["frames_that_fit"] is None else [_memory_note(raw, found)]
    rooflines = tuple(
        roofline_figure(profile, derived)
        for profile, derived in zip(raw.profiles, found["rooflines"], strict=True)
    )
    lead = "How near each group of operators comes to what this machine can do at all."
    sections.append(Section("limits", "Where the next limit is", lead, rooflines))
    sections.append(Section("machine", "The machine", "", (environment_figure(raw.environment),)))
    return Page(
        title=raw.title,
        subtitle="" if base is None else f"{base.name}: {base.precision}, {base.provider}. "
        f"{raw.made.started[:10]}.",
        tiles=(),
        notes=tuple(notes),
        sections=tuple(sections),
        footer=f"Made by Hummingbird {raw.made.version}: {raw.made.command}. Raw samples have "
        f"SHA-256 {sealed.sha256}. `hummingbird bench verify` computes every figure again.",
    )  # fmt: skip


def _memory_note(raw: Scaling, found: Mapping[str, Any]) -> str:
    fitted, limit = found["axes"]["frames"]["memory"], found["frames_that_fit"]
    whole = amounts.storage(raw.memory_bytes)
    longest = found["axes"]["frames"]["points"][-1]
    if longest["x"] == MAX_FRAMES:
        return (
            f"The longest clip that the runtime takes, {MAX_FRAMES} frames, took "
            f"{amounts.storage(longest['peak_rss_bytes'])} of this machine's {whole}: memory is "
            "not what limits it here."
        )
    by_fit = f"By the fit of the peak (at most {amounts.percent(fitted['worst'])} off where it was"
    if limit >= MAX_FRAMES:
        needed = amounts.storage(value_at(LINEAR, fitted["factors"], MAX_FRAMES))
        return (
            f"{by_fit} measured) the longest clip that the runtime takes, {MAX_FRAMES} frames, "
            f"needs {needed} of this machine's {whole}: memory is not what limits it here."
        )
    return f"{by_fit} measured) {whole} would be full at {limit:.0f} frames: an extrapolation."


_TITLES: dict[str, tuple[str, str]] = {
    "frames": ("Frames", "frames"),
    "size": ("Size of the picture", "pixels of a frame"),
    "steps": ("Steps", "steps of the solver"),
    "threads": ("Threads", "threads"),
}


def _axis_figures(axis: Axis, found: Mapping[str, Any]) -> tuple[Figure, Figure]:
    points = found["points"]
    time_law, memory_law = LAWS[axis]
    top = max(p["x"] for p in points)
    low = min(p["x"] for p in points)
    grid = [low + (top - low) * i / 40 for i in range(41)]

    def curve(law: Law, fitted: Mapping[str, Any] | None) -> tuple[tuple[float, float], ...]:
        if fitted is None:
            return ()
        return tuple((x, value_at(law, fitted["factors"], x)) for x in grid)

    def series(key: str) -> tuple[tuple[float, float], ...]:
        return tuple((p["x"], p[key]) for p in points)

    unit, several = _TITLES[axis][1], top > low  # one point alone is a table
    time = [
        Series("whole clip", series("clip_s"), curve(time_law, found["time"]), "c0"),
        Series("U-Net", series("unet_s"), (), "c1"),
        Series("decoding", series("decode_s"), (), "c2"),
    ]
    memory = [Series("peak", series("peak_rss_bytes"), curve(memory_law, found["memory"]), "c0")]
    return (
        Figure(
            title=f"Seconds against {unit}",
            caption=_law_words(time_law, found["time"], amounts.seconds),
            drawing=several * legend([(s.kind, s.label) for s in time])
            + several * curves(time, said=_said(unit, "seconds", time[0].points, amounts.seconds),
                     x_words=_x_words, y_words=amounts.seconds),
            table=Table(
                f"Median seconds by {unit}",
                ((unit, ""), ("clip", "n"), ("U-Net", "n"), ("decoding", "n"), ("runs", "n")),
                tuple(
                    (_x(p), amounts.seconds(p["clip_s"]), amounts.seconds(p["unet_s"]),
                     amounts.seconds(p["decode_s"]), str(p["runs"]))
                    for p in points
                ),
            ),
        ),
        Figure(
            title=f"Peak memory against {unit}",
            caption=_law_words(memory_law, found["memory"], amounts.storage),
            drawing=several
            * curves(memory, said=_said(unit, "bytes", memory[0].points, amounts.storage),
                     x_words=_x_words, y_words=amounts.storage),
            table=Table(
                f"Peak resident memory by {unit}",
                ((unit, ""), ("peak", "n")),
                tuple((_x(p), amounts.storage(p["peak_rss_bytes"])) for p in points),
            ),
        ),
    )  # fmt: skip


def _law_words(law: Law, fitted: Mapping[str, Any] | None, words: Callable[[float], str]) -> str:
    if fitted is None:
        return "Too few points for a fit."
    said = law.words.format(*map(words, fitted["factors"])).replace("+ -", "- ")
    if law.rising and fitted["factors"][-1] == 0:
        said = said.rpartition(" + ")[0]
    good = "" if fitted["worst"] <= 0.1 else ": the law does not hold well"
    worst = amounts.percent(fitted["worst"])
    return f"The line is {said}, at most {worst} from a measured point{good}."


def _x(point: Mapping[str, Any]) -> str:
    return str(point["label"] or f"{point['x']:.0f}")


def _x_words(x: float) -> str:
    return f"{x:,.0f}" if x >= 1000 else f"{x:g}"


def _said(
    unit: str, what: str, points: Sequence[tuple[float, float]], words: Callable[[float], str]
) -> str:
    listed = ", ".join(f"{words(y)} at {x:.0f}" for x, y in points)
    return f"{what} of a clip against {unit}: {listed}"
