"""A page as Markdown: the same words, notes and tables; the drawings stay on the HTML page."""

from __future__ import annotations

from hummingbird_bench.page import Page, Table


def markdown_page(page: Page) -> str:
    """The whole document."""
    lines = [f"# {_text(page.title)}", "", _text(page.subtitle)]
    if page.tiles:
        lines.append("")
    for tile in page.tiles:
        tags = f" ({', '.join(tile.tags)})" if tile.tags else ""
        interval = f" {_text(tile.interval)}" if tile.interval else ""
        lines.append(f"- **{_text(tile.figure)}**{interval} {_text(tile.text)}{tags}")
    for note in page.notes:
        lines += ["", f"> {_text(note)}"]
    for section, figures in page.numbered():
        lines += ["", f"## {_text(section.title)}"]
        if section.lead:
            lines += ["", _text(section.lead)]
        for number, figure in figures:
            name = f"Figure {number}. {figure.title}." if number else f"{figure.title}."
            lines += ["", f"**{_text(name)}** {_text(figure.caption)}".rstrip()]
            lines += ["", markdown_table(figure.table)]
    return "\n".join([*lines, "", _text(page.footer), ""])


def markdown_table(table: Table) -> str:
    """A table without its caption."""
    rule = "|".join("---:" if kind == "n" else "---" for _, kind in table.heads)
    rows = [f"| {' | '.join(_text(cell) for cell in row)} |" for row in table.rows]
    heads = " | ".join(_text(name) for name, _ in table.heads)
    return "\n".join([f"| {heads} |", f"|{rule}|", *rows])


def _text(text: str) -> str:
    """Plain text as Markdown that shows it as it is, on one line."""
    for sign in ("\\", "|", "<", "*", "_", "`", "[", "#"):
        text = text.replace(sign, f"\\{sign}")
    return " ".join(text.split())
