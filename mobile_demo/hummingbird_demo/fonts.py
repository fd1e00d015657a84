"""Which font draws a text: Roboto for Latin and Cyrillic, Noto Sans SC for Chinese.

The SDL text provider draws one text with one font, so the choice is made by the text. Noto Sans SC
is shipped cut to GB 2312 level 1, Latin and the punctuation of both; what it lacks shows as a box.
"""

from __future__ import annotations

from pathlib import Path

LATIN = "Roboto"
HAN = "NotoSansSC"
HAN_FILE = Path(__file__).parent / "fonts" / "NotoSansSC-subset.otf"
_FIRST_HAN = 0x2E80
"""Where the East Asian blocks of Unicode begin."""


def font_of(text: str) -> str:
    """Name of the font that draws ``text``."""
    return HAN if any(ord(character) >= _FIRST_HAN for character in text) else LATIN
