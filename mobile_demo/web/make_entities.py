"""Writes src/entities.js: HTML's character references as Python's ``html.unescape`` has them.

The tokenizer undoes them before it splits words, so the page needs the same table. Run it after a
new Python changes its table; tests/web/test_numerics.py compares the two.
"""

from __future__ import annotations

import html
import html.entities
import textwrap
from pathlib import Path

TARGET = Path(__file__).parent / "src" / "entities.js"
_HEAD = """\
/**
 * The named and the irregular numeric character references of HTML 5, as Python's `html.unescape`
 * reads them. Data, written by make_entities.py: a name, then its code points in hexadecimal.
 */

/** @param {string} text @returns {string[]} */
const fields = (text) => text.trim().split(/\\s+/);
/** @param {string} code @returns {string} */
const characters = (code) => code === "-" ? ""
  : String.fromCodePoint(...code.split(",").map((part) => parseInt(part, 16)));

/** Name, with its semicolon where it needs one, to text. @type {ReadonlyMap<string, string>} */
export const NAMES = new Map(fields(`
@NAMES@
`).map((field) => {
  const [name, code] = field.split("=");
  return [name, characters(code)];
}));

/** Number that stands for another text than itself. @type {ReadonlyMap<number, string>} */
export const CODE_POINTS = new Map(fields(`
@POINTS@
`).map((field) => {
  const [number, code] = field.split("=");
  return [parseInt(number, 16), characters(code)];
}));
"""


def module_text() -> str:
    """The text of src/entities.js."""
    irregular: dict[int, str] = dict.fromkeys(html._invalid_codepoints, "")  # type: ignore[attr-defined]
    irregular.update(html._invalid_charrefs)  # type: ignore[attr-defined]
    names = [f"{name}={_codes(text)}" for name, text in sorted(html.entities.html5.items())]
    points = [f"{number:x}={_codes(text)}" for number, text in sorted(irregular.items())]
    return _HEAD.replace("@NAMES@", _filled(names)).replace("@POINTS@", _filled(points))


def _codes(text: str) -> str:
    return ",".join(f"{ord(character):x}" for character in text) or "-"


def _filled(fields: list[str]) -> str:
    return textwrap.fill(" ".join(fields), 98, break_long_words=False, break_on_hyphens=False)


if __name__ == "__main__":
    TARGET.write_text(module_text(), encoding="utf-8")
