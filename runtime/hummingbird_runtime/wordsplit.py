r"""CLIP's text cleaning and word splitting, with Unicode categories in place of ``\p{L}``.

Same words as the published pattern ``'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+``
(ignoring case) on the cleaned text. No ftfy: mojibake is not repaired. Control tokens typed by a
user, such as ``<end_of_text>``, are ordinary text here (open_clip would turn them into the token).
Letters that are newer than Python's Unicode tables count as symbols.
"""

from __future__ import annotations

import html
import re
import unicodedata

# U+017F, the long s, matches an s when case is ignored and survives lower().
_CONTRACTION = re.compile("'(?:[s\u017f]|t|re|ve|m|ll|d)")
# U+0345, a mark that folds to a letter, falls through the published pattern.
_DROPPED = " \u0345"


def clean(text: str) -> str:
    """HTML entities undone twice, white space collapsed to single spaces, lower case."""
    return " ".join(html.unescape(html.unescape(text)).split()).lower()


def split_words(text: str) -> list[str]:
    """Words of a cleaned text: contractions, runs of letters, single digits, runs of the rest."""
    words: list[str] = []
    kinds = [_kind(character) for character in text]
    position, end = 0, len(text)
    while position < end:
        start, kind = position, kinds[position]
        contraction = _CONTRACTION.match(text, start) if text[start] == "'" else None
        if contraction is not None:
            position = contraction.end()
        elif kind == "N":
            position += 1
        else:
            while position < end and kinds[position] == kind:
                position += 1
        if kind != " ":
            words.append(text[start:position])
    return words


def has_letters(word: str) -> bool:
    """Whether a word says something: punctuation alone does not."""
    return any(_kind(character) in "LN" for character in word)


def _kind(character: str) -> str:
    """``L`` letter, ``N`` number, a space for what is dropped, ``S`` everything else."""
    if character in _DROPPED:
        return " "
    category = unicodedata.category(character)[0]
    return category if category in "LN" else "S"
