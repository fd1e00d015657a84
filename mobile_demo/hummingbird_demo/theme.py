"""Colours, spacing and type of the app, as plain numbers: one grid, three type sizes, two palettes.

Contrast is the ratio of WCAG 2.2 (relative luminance); a test holds every text colour to 4.5.
"""

from __future__ import annotations

from dataclasses import dataclass

GRID = 8
"""Density-independent pixels; every margin, gap and height is a multiple of it."""
TYPE = {"title": 22, "body": 16, "small": 13}
"""Scale-independent pixels."""
RADIUS = 16
"""Corners of cards and fields, density-independent pixels."""

Rgba = tuple[float, float, float, float]


def rgba(code: str, alpha: float = 1.0) -> Rgba:
    """``#rrggbb`` as four numbers in 0..1."""
    red, green, blue = (int(code[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return (red, green, blue, alpha)


@dataclass(frozen=True)
class Palette:
    """Every colour a screen may use, as ``#rrggbb``."""

    background: str
    surface: str
    """Cards, fields and bars."""
    raised: str
    """Sheets and dialogs, and what lies pressed on a surface."""
    line: str
    """Thin rules and the track of a progress bar."""
    text: str
    muted: str
    """Second text: captions, hints, icons at rest."""
    accent: str
    """The one colour of action."""
    on_accent: str
    soft: str
    """A selected chip or tab: the accent, thinned."""
    on_soft: str
    danger: str
    on_danger: str
    stage: str
    """Behind a clip."""


LIGHT = Palette(
    background="#f4f6f4",
    surface="#ffffff",
    raised="#ffffff",
    line="#dfe5e1",
    text="#14201c",
    muted="#56665f",
    accent="#0a7360",
    on_accent="#ffffff",
    soft="#d8ede6",
    on_soft="#07483c",
    danger="#b3243c",
    on_danger="#ffffff",
    stage="#e7ece9",
)
DARK = Palette(
    background="#0e1412",
    surface="#18201d",
    raised="#212b27",
    line="#2d3934",
    text="#e7efeb",
    muted="#9db0a8",
    accent="#57d3b6",
    on_accent="#04241d",
    soft="#1d3c34",
    on_soft="#a9ecd9",
    danger="#ff8b99",
    on_danger="#3a060e",
    stage="#0a0f0d",
)


def palette(choice: str, *, system_dark: bool) -> Palette:
    """The palette of a setting: ``light``, ``dark``, or ``system`` for what the device says."""
    dark = system_dark if choice == "system" else choice == "dark"
    return DARK if dark else LIGHT


def contrast(one: str, other: str) -> float:
    """Contrast ratio of two colours, 1..21 (WCAG 2.2, relative luminance)."""
    bright, dim = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (bright + 0.05) / (dim + 0.05)


def _luminance(code: str) -> float:
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in rgba(code)[:3]]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
