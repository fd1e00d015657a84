"""The frame of the report page: style, head and sections. No script, no file beside it."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

STYLE = """
:root{--bg:#f7f6f2;--card:#fff;--ink:#1d2321;--soft:#5c6662;--line:#dedcd3;--kept:#0f766e;
--every:#c9ccc6;--drop:#b4431f;--shade:#b4431f1a;--track:#e9e7df;color-scheme:light dark}
@media (prefers-color-scheme:dark){:root{--bg:#121615;--card:#1a201e;--ink:#e8ebe8;--soft:#9faaa5;
--line:#2c3431;--kept:#3fb8a9;--every:#4a544f;--drop:#f08a5d;--shade:#f08a5d22;--track:#262d2a}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--ink);font:16px/1.55 system-ui,-apple-system,
"Segoe UI",Roboto,sans-serif;font-variant-numeric:tabular-nums}
main,header,footer{max-width:1180px;margin:0 auto;padding:0 20px}
header{padding-top:44px}
h1{font-size:clamp(1.7rem,4vw,2.5rem);line-height:1.15;margin:0 0 6px;letter-spacing:-.02em;
text-wrap:balance;overflow-wrap:anywhere}
h2{font-size:1.3rem;margin:52px 0 4px;letter-spacing:-.01em}
h3{font-size:.95rem;margin:0;font-weight:600;overflow-wrap:anywhere}
p{margin:4px 0 14px;max-width:72ch}.soft,caption,dt{color:var(--soft)}
nav{display:flex;flex-wrap:wrap;gap:4px 18px;margin:18px 0 0;font-size:.92rem}
a{color:var(--kept)}a:focus-visible{outline:2px solid var(--kept);outline-offset:2px}
.skip{position:absolute;left:-999px}.skip:focus{left:20px;top:8px}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:12px;
margin:24px 0 0}
.tile,.card{background:var(--card);border:1px solid var(--line);border-radius:10px;
padding:14px 16px}
.tile b{display:block;font-size:1.65rem;line-height:1.2;letter-spacing:-.02em}
.tile span{color:var(--soft);font-size:.86rem}
.grid{display:grid;grid-template-columns:repeat(auto-fill,minmax(290px,1fr));gap:14px}
.sheets{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,360px),1fr));gap:14px}
.card svg{width:100%;height:auto;display:block;margin-top:6px}
.card p{margin:6px 0 0;font-size:.86rem}.card img{width:100%;height:auto;display:block;
border-radius:6px;background:#000}
.card .none{display:grid;place-items:center;height:96px;border-radius:6px;background:var(--track);
color:var(--soft);font-size:.86rem}
.why{color:var(--soft);font-size:.82rem;overflow-wrap:anywhere}
.scroll{overflow-x:auto;background:var(--card);border:1px solid var(--line);border-radius:10px}
table{border-collapse:collapse;width:100%;font-size:.9rem}
caption{text-align:left;padding:10px 14px 0;font-size:.86rem}
th,td{padding:8px 14px;text-align:left;border-bottom:1px solid var(--line);vertical-align:top}
tr:last-child td,tr:last-child th{border-bottom:0}thead th{font-size:.8rem;color:var(--soft);
font-weight:600;white-space:nowrap}tbody th{font-weight:500;min-width:10em;overflow-wrap:anywhere}
.n{text-align:right;white-space:nowrap}td.wide{min-width:140px}
td.text{max-width:46ch;min-width:7em;overflow-wrap:anywhere}
.bar{width:100%;height:10px;display:block;margin-top:6px}
.every{fill:var(--every)}.kept{fill:var(--kept)}.drop{fill:var(--drop)}.track{fill:var(--track)}
.shade{fill:var(--shade)}.axis{stroke:var(--line)}
.bound{stroke:var(--drop);stroke-width:1.5;stroke-dasharray:4 3}
.bound-text{fill:var(--drop);font-size:11px;font-weight:600}.tick{fill:var(--soft);font-size:11px}
.key{display:inline-block;width:.75em;height:.75em;border-radius:2px;margin:0 .35em 0 .9em}
.key:first-child{margin-left:0}
footer{color:var(--soft);font-size:.86rem;padding:48px 20px 40px}
code{font:.92em ui-monospace,SFMono-Regular,Menlo,monospace;overflow-wrap:anywhere}
@media print{.card,.tile,.scroll{break-inside:avoid}nav{display:none}}
"""


def page(title: str, subtitle: str, tiles: Sequence[tuple[str, str]], sections: Sequence[Section],
         footer: str) -> str:  # fmt: skip
    """The whole document.

    Args:
        title: plain text.
        subtitle: plain text.
        tiles: (figure, what it is), plain text.
        sections: (anchor, heading, lead as plain text, body as HTML); empty bodies are left out.
        footer: plain text.
    """
    shown = [section for section in sections if section[3]]
    links = "".join(f'<a href="#{anchor}">{escape(head)}</a>' for anchor, head, _, _ in shown)
    figures = "".join(
        f'<div class="tile"><b>{escape(figure)}</b><span>{escape(what)}</span></div>'
        for figure, what in tiles
    )
    bodies = "".join(
        f'<section aria-labelledby="{anchor}"><h2 id="{anchor}">{escape(head)}</h2>'
        f'<p class="soft">{escape(lead)}</p>{body}</section>'
        for anchor, head, lead, body in shown
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>"
        '<a class="skip" href="#main">Skip to the figures</a>'
        f'<header><h1>{escape(title)}</h1><p class="soft">{escape(subtitle)}</p>'
        f'<nav aria-label="Sections">{links}</nav></header>'
        f'<main id="main"><div class="tiles">{figures}</div>{bodies}</main>'
        f"<footer>{escape(footer)}</footer></body></html>\n"
    )


def table(caption: str, heads: Sequence[tuple[str, str]], rows: Sequence[Sequence[str]]) -> str:
    """A table; the first cell of a row is its header.

    Args:
        caption: plain text.
        heads: (name as plain text, class of the column: ``n`` for numbers, ``text``, ``wide``).
        rows: cells as HTML.
    """
    if not rows:
        return ""
    head = "".join(f'<th scope="col" class="{kind}">{escape(name)}</th>' for name, kind in heads)
    body = "".join(
        f'<tr><th scope="row">{row[0]}</th>'
        + "".join(
            f'<td class="{kind}">{cell}</td>'
            for cell, (_, kind) in zip(row[1:], heads[1:], strict=True)
        )
        + "</tr>"
        for row in rows
    )
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(caption)}">'
        f"<table><caption>{escape(caption)}</caption><thead><tr>{head}</tr>"
        f"</thead><tbody>{body}</tbody></table></div>"
    )


Section = tuple[str, str, str, str]
