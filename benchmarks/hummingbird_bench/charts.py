"""The figures of the pages as inline SVG: bars with intervals, stacks, waterfalls, strips, curves.

Every function is text in, text out. Positions along x are percentages and along y pixels, so a
figure fills any width and its letters keep their size on a phone. Words and numbers stand in HTML
beside the shapes, where they wrap and are read aloud. Colours are classes of ``page_style``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape

SECONDS = (
    *(m * 10.0**e for e in range(-6, 1) for m in (1, 2, 5)),
    *(10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 18000, 36000, 86400, 172800, 432000),
)
"""Where an axis of times may have a tick."""
APART = 16.0
"""Percent of the width that words of two ticks need between them on a phone."""


@dataclass(frozen=True)
class Bar:
    """One row of a bar chart."""

    label: str
    """what it is; plain text"""
    value: float
    """length of the bar, from 0"""
    shown: str
    """the figure as words; plain text"""
    low: float | None = None
    """lower end of the interval; None without one"""
    high: float | None = None
    """upper end of the interval"""
    kind: str = "ours"
    """class of the colour: ours, theirs, invalid"""
    note: str = ""
    """a line under the label; plain text"""


@dataclass(frozen=True)
class Series:
    """One curve."""

    label: str
    """name in the legend; plain text"""
    points: tuple[tuple[float, float], ...]
    """measured (x, y)"""
    curve: tuple[tuple[float, float], ...] = ()
    """points of the fitted line; empty draws none"""
    kind: str = "c0"
    """class of the colour, c0 to c5"""


def bars(rows: Sequence[Bar]) -> str:
    """Horizontal bars from 0 on one linear scale, intervals as whiskers."""
    top = max([max(row.value, row.high or 0.0) for row in rows], default=0.0) or 1.0
    return _rows(
        (row.label, row.shown, row.note, row.kind == "invalid", _bar(row, 100 / top))
        for row in rows
    )


def _bar(row: Bar, scale: float) -> str:
    width = max(row.value * scale, 0.25)
    parts = [
        '<rect class="track" width="100%" height="14" rx="2"/>',
        f'<rect class="{row.kind}" width="{width:.2f}%" height="14" rx="2"/>',
    ]
    if row.low is not None and row.high is not None:
        parts.append(whisker(row.low * scale, row.high * scale, 7, 4))
    return f'<svg class="rowbar" height="14" aria-hidden="true">{"".join(parts)}</svg>'


def whisker(low: float, high: float, y: float, half: float) -> str:
    """An interval from ``low`` to ``high`` percent at height ``y``, with ends of 2 ``half``."""
    ends = "".join(
        f'<line class="whisker" x1="{x:.2f}%" x2="{x:.2f}%" y1="{y - half:g}" y2="{y + half:g}"/>'
        for x in (low, high)
    )
    return f'<line class="whisker" x1="{low:.2f}%" x2="{high:.2f}%" y1="{y:g}" y2="{y:g}"/>{ends}'


def stacks(rows: Sequence[tuple[str, str, Sequence[tuple[str, float]]]]) -> str:
    """Parts of a whole as bars of equal length.

    Args:
        rows: (label, figure, parts as (class, share 0..1)); label and figure are plain text.
    """

    def stack(parts: Sequence[tuple[str, float]]) -> str:
        at, shapes = 0.0, ['<rect class="track" width="100%" height="18" rx="2"/>']
        for kind, share in parts:
            width = max(100 * share, 0.0)
            shapes.append(f'<rect class="{kind}" x="{at:.3f}%" width="{width:.3f}%" height="18"/>')
            at += width
        return f'<svg class="rowbar" height="18" aria-hidden="true">{"".join(shapes)}</svg>'

    return _rows((label, shown, "", False, stack(parts)) for label, shown, parts in rows)


def falls(
    rows: Sequence[tuple[str, str, str, float, float, str]], axis: Callable[[float], str]
) -> str:
    """A waterfall along a logarithmic axis: equal factors have equal lengths.

    Args:
        rows: (label, figure, note, from, to, class) in seconds; from 0 starts at the left edge.
        axis: a tick as words.
    """
    ends = [value for row in rows for value in row[3:5] if value > 0]
    if not ends:
        return ""
    low, high = min(ends) / 1.15, max(ends) * 1.15
    span = math.log(high / low)

    def x(value: float) -> float:
        return 100 * math.log(max(value, low) / low) / span

    ticks: list[float] = []
    for tick in (t for t in SECONDS if low <= t <= high):
        if not ticks or x(tick) - x(ticks[-1]) >= APART:
            ticks.append(tick)
    grid = "".join(
        f'<line class="grid" x1="{x(t):.2f}%" x2="{x(t):.2f}%" y1="0" y2="100%"/>' for t in ticks
    )

    def fall(start: float, end: float, kind: str) -> str:
        left, right = sorted((x(start), x(end)))
        return (
            f'<svg class="rowbar" height="16" aria-hidden="true">'
            f'<rect class="{kind}" x="{left:.2f}%" width="{max(right - left, 0.4):.2f}%" '
            f'height="16" rx="2"/></svg>'
        )

    body = _rows(
        (label, shown, note, False, fall(start, end, kind))
        for label, shown, note, start, end, kind in rows
    )
    drawn = f'<svg class="gridlines" aria-hidden="true">{grid}</svg>{body}'
    return f'<div class="over">{drawn}</div>' + _ticks([(x(t), axis(t)) for t in ticks])


def strips(
    rows: Sequence[tuple[str, str, Sequence[float]]], reach: float, words: Callable[[float], str]
) -> str:
    """Values around 0 as dots, one strip a row; what lies beyond the reach sits on the edge.

    Args:
        rows: (label, figure, values in their order); label and figure are plain text.
        reach: the value at the right edge; its negative is at the left.
        words: a tick as words.
    """

    def strip(values: Sequence[float]) -> str:
        shapes = ['<line class="grid" x1="50%" x2="50%" y1="0" y2="26"/>']
        for i, value in enumerate(values):
            x = 50 + 49 * min(max(value / reach, -1.0), 1.0)
            y = 4 + 18 * (i / (len(values) - 1) if len(values) > 1 else 0.5)  # time runs downwards
            shape = "beyond" if abs(value) > reach else "dot"
            shapes.append(f'<circle class="{shape}" cx="{x:.2f}%" cy="{y:.1f}" r="3.2"/>')
        return f'<svg class="rowbar strip" height="26" aria-hidden="true">{"".join(shapes)}</svg>'

    body = _rows((label, shown, "", False, strip(values)) for label, shown, values in rows)
    return body + _ticks([(1.0, words(-reach)), (50.0, words(0.0)), (99.0, words(reach))])


def forest(rows: Sequence[tuple[str, str, float, float, float, bool]]) -> str:
    """Ratios near 1 with their intervals around a line at 1, on a logarithmic axis.

    Args:
        rows: (label, figure, estimate, low, high, whether the interval holds 1).
    """
    reach = max([abs(math.log(v)) for row in rows for v in row[2:5]], default=0.0) * 1.1 or 0.01

    def x(ratio: float) -> float:
        return 50 + 48 * math.log(ratio) / reach

    def interval(estimate: float, low: float, high: float, holds: bool) -> str:
        return (
            '<svg class="rowbar strip" height="16" aria-hidden="true">'
            '<line class="grid" x1="50%" x2="50%" y1="0" y2="16"/>'
            f"{whisker(x(low), x(high), 8, 4)}"
            f'<circle class="{"dot" if holds else "beyond"}" cx="{x(estimate):.2f}%" cy="8" r="4"/>'
            "</svg>"
        )

    body = _rows(
        (label, shown, "", False, interval(estimate, low, high, holds))
        for label, shown, estimate, low, high, holds in rows
    )
    ends = [(2.0, math.exp(-reach)), (50.0, 1.0), (98.0, math.exp(reach))]
    return body + _ticks([(at, f"{ratio:.3g}×") for at, ratio in ends])


def curves(
    series: Sequence[Series],
    *,
    said: str,
    x_words: Callable[[float], str],
    y_words: Callable[[float], str],
    height: int = 240,
) -> str:
    """Measured points and fitted lines over linear axes that start at 0.

    Args:
        series: what to draw.
        said: one sentence for readers who do not see it.
        x_words: a tick of the x axis as words.
        y_words: a tick of the y axis as words.
        height: pixels.
    """
    points = [point for one in series for point in (*one.points, *one.curve)]
    if not points:
        return ""
    x_top, y_top = (max(p[i] for p in points) or 1.0 for i in (0, 1))
    x_ticks, y_ticks = linear_ticks(x_top), linear_ticks(y_top)
    y_top = max(y_top, y_ticks[-1]) * 1.04
    top, floor = 8.0, height - 24.0

    def x(value: float) -> float:
        return 11 + 86 * value / x_top

    def y(value: float) -> float:
        return floor - (floor - top) * value / y_top

    shapes = [
        f'<line class="grid" x1="0" x2="100%" y1="{y(t):.1f}" y2="{y(t):.1f}"/>'
        f'<text class="tick" x="0" y="{y(t) - 3:.1f}">{escape(y_words(t))}</text>'
        for t in y_ticks[1:]
    ]
    shapes.append(f'<line class="axis" x1="0" x2="100%" y1="{floor:g}" y2="{floor:g}"/>')
    shapes += [
        f'<text class="tick" x="{x(t):.2f}%" y="{height - 7}" text-anchor="middle">'
        f"{escape(x_words(t))}</text>"
        for t in x_ticks
        if t <= x_top
    ]
    for one in series:
        shapes += [
            f'<line class="curve {one.kind}" x1="{x(a[0]):.2f}%" y1="{y(a[1]):.1f}" '
            f'x2="{x(b[0]):.2f}%" y2="{y(b[1]):.1f}"/>'
            for a, b in zip(one.curve, one.curve[1:], strict=False)
        ]
        shapes += [
            f'<circle class="point {one.kind}" cx="{x(p[0]):.2f}%" cy="{y(p[1]):.1f}" r="4"/>'
            for p in one.points
        ]
    drawn = f'<svg class="plot" height="{height}" role="img" aria-label="{escape(said)}">'
    return f"{drawn}{''.join(shapes)}</svg>"


def legend(entries: Sequence[tuple[str, str]]) -> str:
    """Coloured keys: (class, what it is)."""
    keys = "".join(
        f'<li><svg class="key" width="12" height="12" aria-hidden="true">'
        f'<rect class="{kind}" width="12" height="12" rx="2"/></svg>{escape(name)}</li>'
        for kind, name in entries
    )
    return f'<ul class="legend">{keys}</ul>'


def linear_ticks(top: float, about: int = 4) -> list[float]:
    """Round values from 0 up to at least nearly ``top``, some ``about`` of them."""
    raw = top / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * 0.999)
    return [i * step for i in range(int(top / step + 1e-9) + 1)]


def _rows(rows: Iterable[tuple[str, str, str, bool, str]]) -> str:
    items = []
    for label, shown, note, struck, drawing in rows:
        under = f'<span class="note">{escape(note)}</span>' if note else ""
        mark = ' class="struck"' if struck else ""
        items.append(
            f'<li{mark}><div class="words"><span><span class="name">{escape(label)}</span>'
            f"{under}</span><b>{escape(shown)}</b></div>{drawing}</li>"
        )
    return f'<ul class="rows">{"".join(items)}</ul>'


def _ticks(ticks: Sequence[tuple[float, str]]) -> str:
    """Words under a figure at percentages of its width."""
    words = []
    for at, text in ticks:
        anchor = "start" if at < 6 else "end" if at > 94 else "middle"
        words.append(
            f'<text class="tick" x="{at:.2f}%" y="12" text-anchor="{anchor}">{escape(text)}</text>'
        )
    return f'<svg class="rowbar" height="16" aria-hidden="true">{"".join(words)}</svg>'
