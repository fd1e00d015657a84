"""A page as data: headline figures, notes, sections of numbered figures with their tables.

``html_page`` and ``markdown`` say the same page in their two forms.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Table:
    """A table, the same on the page and in Markdown."""

    caption: str
    """what it lists; plain text"""
    heads: tuple[tuple[str, str], ...]
    """(name as plain text, class of the column: ``n`` for numbers, ``text``, or empty)"""
    rows: tuple[tuple[str, ...], ...]
    """cells as plain text; the first of a row is its header"""


@dataclass(frozen=True)
class Figure:
    """A drawing with its caption and the table of the same figures."""

    title: str
    """plain text"""
    caption: str
    """what is seen, and how to read it; plain text"""
    drawing: str
    """HTML of ``charts``; empty shows the table alone"""
    table: Table
    """every figure that is drawn"""
    beside: bool = True
    """whether the table is narrow enough to stand beside the drawing"""


@dataclass(frozen=True)
class Section:
    """A heading with its figures."""

    anchor: str
    """id on the page"""
    title: str
    """plain text"""
    lead: str
    """the first paragraph; plain text"""
    figures: tuple[Figure, ...]
    """those without rows are left out, and a section without any other"""


@dataclass(frozen=True)
class Tile:
    """One headline figure."""

    figure: str
    """such as 63.1×"""
    interval: str
    """its interval as words, or empty"""
    text: str
    """what it is; plain text"""
    tags: tuple[str, ...] = ()
    """words that must be seen with the figure, out of ``TAGS``"""


@dataclass(frozen=True)
class Page:
    """The whole page; every text is plain."""

    title: str
    subtitle: str
    tiles: tuple[Tile, ...]
    notes: tuple[str, ...]
    """what must be read with the figures"""
    sections: tuple[Section, ...]
    footer: str

    def numbered(self) -> Iterator[tuple[Section, list[tuple[int, Figure]]]]:
        """Sections that have something to show; a figure that is a table alone has number 0."""
        number = 0
        for section in self.sections:
            shown = []
            for figure in section.figures:
                if figure.table.rows:
                    number += bool(figure.drawing)
                    shown.append((number if figure.drawing else 0, figure))
            if shown:
                yield section, shown


TAGS = {
    "INVALID": "bad",
    "refused": "bad",
    "too noisy": "bad",
    "does not close": "bad",
    "extrapolated": "guess",
    "not gated": "guess",
    "architecture only": "guess",
    "measured": "good",
}
"""Words of a status, and how they are coloured: good, guess, bad."""
