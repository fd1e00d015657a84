"""A page as one HTML file: its own style and drawings inside, no script, nothing fetched."""

from __future__ import annotations

from html import escape
from importlib import resources

from hummingbird_bench.page import TAGS, Figure, Page, Table, Tile

_LONG = 60
"""Letters above which a cell asks for a wider column, so that a phone shows no tower of words."""


def html_page(page: Page) -> str:
    """The whole document."""
    links, bodies = [], []
    for section, figures in page.numbered():
        links.append(f'<a href="#{section.anchor}">{escape(section.title)}</a>')
        bodies.append(
            f'<section aria-labelledby="{section.anchor}"><h2 id="{section.anchor}">'
            f"{escape(section.title)}</h2>"
            + (f'<p class="soft">{escape(section.lead)}</p>' if section.lead else "")
            + "".join(_figure(figure, number) for number, figure in figures)
            + "</section>"
        )
    tiles = "".join(map(_tile, page.tiles))
    notes = "".join(f"<li>{escape(note)}</li>" for note in page.notes)
    style = resources.files(__package__).joinpath("page.css").read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(page.title)}</title><style>\n{style}</style></head><body>"
        '<a class="skip" href="#main">Skip to the figures</a>'
        f'<header><h1>{escape(page.title)}</h1><p class="soft">{escape(page.subtitle)}</p>'
        f'<nav aria-label="Sections">{"".join(links)}</nav></header><main id="main">'
        + (f'<ul class="tiles">{tiles}</ul>' if tiles else "")
        + (f'<ul class="notes">{notes}</ul>' if notes else "")
        + f"{''.join(bodies)}</main><footer>{escape(page.footer)}</footer></body></html>\n"
    )


def _tile(tile: Tile) -> str:
    interval = f'<span class="range">{escape(tile.interval)}</span>' if tile.interval else ""
    return (
        f'<li class="tile"><b>{escape(tile.figure)}</b>{interval}'
        f"<span>{escape(tile.text)}</span>{' '.join(map(_tag, tile.tags))}</li>"
    )


def _figure(figure: Figure, number: int) -> str:
    table = _table(figure.table)
    if not number:
        lead = f"<figcaption>{escape(figure.caption)}</figcaption>" if figure.caption else ""
        return f"<figure><h3>{escape(figure.title)}</h3>{lead}{table}</figure>"
    beside = ' class="beside"' if figure.beside else ""
    return (
        f"<figure{beside}><figcaption><b>Figure {number}. {escape(figure.title)}.</b> "
        f"{escape(figure.caption)}</figcaption><div>{figure.drawing}</div>{table}</figure>"
    )


def _table(table: Table) -> str:
    """A table that scrolls sideways by itself where it is too wide."""
    head = "".join(
        f'<th scope="col" class="{kind}">{escape(name)}</th>' for name, kind in table.heads
    )
    body = "".join(
        f'<tr><th scope="row">{escape(row[0])}</th>'
        + "".join(
            f'<td class="{kind}{" long" if len(cell) > _LONG else ""}">{_cell(cell)}</td>'
            for cell, (_, kind) in zip(row[1:], table.heads[1:], strict=True)
        )
        + "</tr>"
        for row in table.rows
    )
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(table.caption)}">'
        f"<table><caption>{escape(table.caption)}</caption><thead><tr>{head}</tr></thead>"
        f"<tbody>{body}</tbody></table></div>"
    )


def _cell(cell: str) -> str:
    """A cell; status words become tags."""
    words = [word.strip() for word in cell.split(";")]
    if cell and all(word in TAGS for word in words):
        return " ".join(map(_tag, words))
    return escape(cell)


def _tag(word: str) -> str:
    return f'<span class="tag {TAGS[word]}">{escape(word)}</span>'
