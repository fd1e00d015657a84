"""Captions cleaned by fixed rules: no model, no network, the same result everywhere.

Takes off what stock sites put around a description (resolution, site names, dates, file numbers),
mends case, spaces, punctuation, doubled words and a table of frequent misspellings. It adds no
word, so it cannot invent anything.
"""

from __future__ import annotations

import html
import re
import unicodedata

VERSION = 1
_SITE_WORDS = re.compile(
    r"\b(?:(?:royalty[- ]free|editorial|free)\s+)?(?:stock\s+(?:video|footage|clips?|photos?)"
    r"(?:\s+(?:footage|clips?))?|b-?roll)\b"
    r"|\b(?:shutterstock|i?stock ?photo|istock|getty ?images?|pond5|adobe ?stock|videoblocks|"
    r"storyblocks|dreamstime|alamy|123rf|depositphotos)(?:\.com)?\b"
    r"|\b(?:editorial use only|royalty[- ]free|copyright|all rights reserved)\b|[©®™]",
    re.IGNORECASE,
)
_QUALITY = re.compile(
    r"\b(?:ultra[- ]hd|full[- ]hd|uhd|fhd|hdr|hd|(?:2160|1440|1080|720|480)[pi]|[248]k|"
    r"3840\s?x\s?2160|1920\s?x\s?1080|1280\s?x\s?720|pro ?res(?: ?422)?|h\.?26[45]|"
    r"\d{2,3}(?:\.\d+)?\s?fps)\b(?:\s+(?:resolution|quality|video|footage))?",
    re.IGNORECASE,
)
_MONTHS = (
    "jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|"
    "sep(?:t(?:ember)?)?|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?"
)
# "MOSCOW, RUSSIA - CIRCA MAY 2014: people ..."
_DATELINE = re.compile(
    rf"^[^:.]{{2,60}}[-–—,]\s*(?:circa\s+)?(?:(?:{_MONTHS})\.?\s*)?(?:\d{{1,2}},?\s*)?"
    r"(?:19|20)\d\d\s*[:.\-–—]\s+",
    re.IGNORECASE,
)
_CIRCA = re.compile(rf"\bcirca\s+(?:(?:{_MONTHS})\.?,?\s*)?(?:19|20)\d\d\b", re.IGNORECASE)
_FILE_TAIL = re.compile(
    r"\s*[-_,.]?\s*(?:\b(?:clip|video|footage|id|no\.?|nr\.?|#)\s*)*\d{5,}(?:\.(?:mp4|mov|avi))?$"
    r"|\.(?:mp4|mov|avi|wmv|mkv)$",
    re.IGNORECASE,
)
MISSPELLINGS = {
    "acros": "across", "adn": "and", "agains": "against", "agressive": "aggressive",
    "arround": "around", "backgroud": "background", "backround": "background",
    "beautifull": "beautiful", "begining": "beginning", "beleive": "believe", "bycicle": "bicycle",
    "calender": "calendar", "cemetary": "cemetery", "childern": "children", "cieling": "ceiling",
    "definately": "definitely", "flys": "flies", "foward": "forward", "freind": "friend",
    "futher": "further", "girafe": "giraffe", "hapy": "happy", "hte": "the",
    "lanscape": "landscape", "landscpae": "landscape", "litle": "little", "mountian": "mountain",
    "moutain": "mountain", "occured": "occurred", "peolpe": "people", "poeple": "people",
    "recieve": "receive", "restaraunt": "restaurant", "seperate": "separate",
    "slowy": "slowly", "smilling": "smiling", "sunflouwer": "sunflower", "swiming": "swimming",
    "teh": "the", "thier": "their", "tommorow": "tomorrow", "wich": "which",
    "wiht": "with", "whith": "with", "witha": "with a", "womens": "women", "writting": "writing",
}  # fmt: skip
_CAPITALISED = 0.8  # share of words with a capital that makes a headline of a caption


class RulesRecaptioner:
    """Cleans captions by rules; deterministic and offline."""

    def __init__(self) -> None:
        self.name = "rules"
        self.identity = f"rules/{VERSION}"

    def rewrite(self, caption: str) -> str:
        """See :func:`clean_caption`."""
        return clean_caption(caption)

    def close(self) -> None:
        """Nothing to give back."""


def clean_caption(caption: str) -> str:
    """The cleaned caption as one sentence; empty when nothing but stock words was there."""
    text = html.unescape(html.unescape(unicodedata.normalize("NFKC", caption)))
    text = "".join(c if c.isprintable() else " " for c in text)
    text = " ".join(text.split())
    text = _DATELINE.sub("", text)
    for pattern in (_CIRCA, _SITE_WORDS, _QUALITY):
        text = pattern.sub(" ", text)
    text = _FILE_TAIL.sub("", " ".join(text.split()))
    text = _punctuate(text)
    text = _lower_headline(text)
    text = re.sub(r"[^\W\d_]+", _spell, text)
    text = re.sub(r"\b(\w+)(?:\s+\1\b)+", r"\1", text, flags=re.IGNORECASE)
    return _sentence(_once(text))


def _punctuate(text: str) -> str:
    text = re.sub(r"\(\s*\)|\[\s*\]|\"\s*\"", " ", text)
    text = re.sub(r"\s+([,.;:!?)])", r"\1", " ".join(text.split()))
    text = re.sub(r"([,;:])(?=[^\W\d_])", r"\1 ", text)
    text = re.sub(r"([,.;:!?\-–—])(?:\s*[,;:\-–—])+", r"\1", text)
    text = re.sub(r"([!?.])\1+", r"\1", text)
    text = re.sub(r"\b(?:in|of|with|by|from|at|on|and)\s*(?=[,.;]|$)", "", text)
    return text.strip(" ,;:-–—_/|").strip()


def _lower_headline(text: str) -> str:
    words = re.findall(r"[^\W\d_]{2,}", text)
    long = [word for word in words if len(word) > 3]
    capitals = sum(word[0].isupper() for word in long)
    if len(words) > 3 and capitals >= _CAPITALISED * len(long):
        return text.lower()
    return text


def _spell(match: re.Match[str]) -> str:
    word = match.group()
    right = MISSPELLINGS.get(word.lower())
    if right is None:
        return word
    return right.capitalize() if word[0].isupper() else right


def _once(text: str) -> str:
    """Drop parts between commas, and sentences, that stood before."""
    for mark, joint in ((r"(?<=[.!?])\s+", " "), (r",\s*", ", ")):
        seen: set[str] = set()
        parts = []
        for part in re.split(mark, text):
            key = part.lower().strip(" .")
            if key and key not in seen:
                seen.add(key)
                parts.append(part)
        text = joint.join(parts)
    return text


def _sentence(text: str) -> str:
    text = text.strip(" ,;")
    if not any(c.isalnum() for c in text):
        return ""
    text = text[0].upper() + text[1:]
    return text if text[-1] in ".!?" else text + "."
