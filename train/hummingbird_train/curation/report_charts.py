"""The report's pictures as inline SVG: histograms with their thresholds, and bars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from hummingbird_train.curation.histogram import Histogram

_WIDTH, _HEIGHT = 320, 132
_LEFT, _RIGHT, _TOP, _FOOT = 6, 6, 14, 18


def histogram_svg(shown: Histogram, rule: Mapping[str, Any] | None) -> str:
    """Bars of all clips with those kept in front, thresholds as lines, the dropped side shaded."""
    low, high = float(shown.edges[0]), float(shown.edges[-1])
    top = max(int(shown.every.max()), 1)
    plot_w, plot_h = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _FOOT
    floor = _TOP + plot_h

    def x(value: float) -> float:
        return _LEFT + plot_w * min(max((value - low) / (high - low), 0.0), 1.0)

    parts = []
    bounds = [(s, rule[s]) for s in ("min", "max") if rule and rule.get(s) is not None]
    for side, bound in bounds:
        start, end = (low, bound) if side == "min" else (bound, high)
        width = max(0.0, x(end) - x(start))
        parts.append(
            f'<rect class="shade" x="{x(start):.1f}" y="{_TOP}" width="{width:.1f}" '
            f'height="{plot_h}"/>'
        )
    for i, (every, kept) in enumerate(zip(shown.every.tolist(), shown.kept.tolist(), strict=True)):
        left, right = x(float(shown.edges[i])), x(float(shown.edges[i + 1]))
        for name, count in (("every", every), ("kept", kept)):
            if count:
                tall = max(1.0, plot_h * count / top)
                parts.append(
                    f'<rect class="{name}" x="{left + 0.4:.1f}" y="{floor - tall:.1f}" '
                    f'width="{max(right - left - 0.8, 0.6):.1f}" height="{tall:.1f}"/>'
                )
    parts.append(
        f'<line class="axis" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{floor}" y2="{floor}"/>'
    )
    for side, bound in bounds:
        at = x(float(bound))
        anchor = "start" if at < _WIDTH / 2 else "end"
        nudge = 4 if anchor == "start" else -4
        parts.append(
            f'<line class="bound" x1="{at:.1f}" x2="{at:.1f}" y1="{_TOP - 8}" y2="{floor}"/>'
            f'<text class="bound-text" x="{at + nudge:.1f}" y="{_TOP - 2}" '
            f'text-anchor="{anchor}">{side} {bound:.4g}</text>'
        )
    middle = (low + high) / 2
    for value, anchor in ((low, "start"), (middle, "middle"), (high, "end")):
        parts.append(
            f'<text class="tick" x="{x(value):.1f}" y="{_HEIGHT - 5}" '
            f'text-anchor="{anchor}">{value:.4g}</text>'
        )
    said = f"{shown.name}: {int(shown.every.sum())} clips from {low:.4g} to {high:.4g}, "
    said += f"{int(shown.kept.sum())} kept"
    said += "".join(f", {side} {bound:.4g}" for side, bound in bounds)
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(said)}">'
        f"{''.join(parts)}</svg>"
    )


def bar(share: float, kind: str = "kept") -> str:
    """A horizontal bar of 0..1 of its cell, for the eye only: the number stands beside it."""
    width = 100 * min(max(share, 0.0), 1.0)
    return (
        '<svg class="bar" viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true">'
        '<rect class="track" width="100" height="8" rx="1"/>'
        f'<rect class="{kind}" width="{width:.2f}" height="8" rx="1"/></svg>'
    )


def stacked_bar(shares: Sequence[tuple[str, float]]) -> str:
    """Parts of a whole one after another: (class, share 0..1)."""
    at, parts = 0.0, []
    for kind, share in shares:
        parts.append(
            f'<rect class="{kind}" x="{100 * at:.2f}" width="{100 * share:.2f}" height="8"/>'
        )
        at += share
    return (
        '<svg class="bar" viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true">'
        f'<rect class="track" width="100" height="8"/>{"".join(parts)}</svg>'
    )
