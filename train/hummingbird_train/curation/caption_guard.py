"""What a rewritten caption must keep of the original, and what it must not add.

A language model asked to polish "a man on a beach" may answer with a sunset, a name or an apology.
The guard compares words: enough of the original's key words stay, few new ones come, no number and
no name that was not there, a sane length, none of a model's stock phrases. It is a screen, not a
judge of truth: one wrong verb in a long caption passes.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

from hummingbird_train.curation.recaptioners.rules import clean_caption

# Words without content, and the frame of a caption ("a video shows ..."): neither kept nor new.
_EMPTY_TEXT = """
    a about above across after against all along also am among an and another any are around as
    at away back be because been before behind being below beneath beside between both but by can
    close could depicts did do does doing down during each either features for from front further
    had has have having he her here hers him his how i if in inside into is it its itself just like
    many more most much near next no nor not of off on one onto or other our out outside over own
    she shot showing shown shows since so some something such than that the their them then there
    these they this those through to toward towards under until up upon us very video view was we
    were what when where which while who whose will with within without you your captures capturing
    captured clip footage image scene camera seen visible set against featuring depicting
"""
_EMPTY_WORDS = frozenset(_EMPTY_TEXT.split())
# "one" is left out: as often a pronoun
_COUNTED = (
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
)
_NUMBER_WORDS = {word: str(value) for value, word in enumerate(_COUNTED, 2)}
BANNED = (
    "as an ai", "language model", "i cannot", "i can't", "i'm sorry", "i am sorry", "sorry,",
    "caption:", "rewritten", "rewrite", "here is", "here's", "sure,", "sure!", "certainly",
    "note:", "http://", "https://", "www.", "shutterstock", "getty", "istock", "pond5",
    "adobe stock", "stock footage", "stock video", "royalty free", "royalty-free",
)  # fmt: skip
_MARKUP = re.compile(r"[*_`#<>{}\[\]|\\]|\n")
_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)?")
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_ENDINGS = ("ations", "ation", "ings", "edly", "ing", "ies", "ied", "ers", "er", "ed", "es", "s")


@dataclass(frozen=True)
class GuardConfig:
    """How far a rewrite may go."""

    min_kept: float = 0.6
    """share of the original's key words that the rewrite has"""
    max_new: float = 0.25
    """share of the rewrite's key words that the original does not have"""
    max_growth: float = 2.5
    """words of the rewrite over words of the original, beyond eight words"""
    min_words: int = 2
    """of the rewrite"""
    max_words: int = 60
    """of the rewrite; CLIP's text tower reads 77 tokens"""
    banned: tuple[str, ...] = BANNED
    """phrases, lower case, that no caption has unless the original has them"""


@dataclass(frozen=True)
class Verdict:
    """Whether a rewrite replaces the original."""

    accepted: bool
    """False keeps the original."""
    reason: str = ""
    """why not; empty when accepted"""


def check_caption(
    original: str,
    rewritten: str,
    config: GuardConfig = GuardConfig(),
) -> Verdict:
    """Compare a rewrite with its original.

    Args:
        original: the caption as found.
        rewritten: one line of text.
        config: the limits.
    """
    before, after = _plain(original), _plain(rewritten)
    # what a rule would strip need not stay, what a rule would mend may be mended
    keys = key_words(clean_caption(original)) or key_words(before)
    new_keys = key_words(after)
    reason = (
        _form(before, after, config)
        or _numbers(before, after)
        or _names(before, rewritten)
        or _script(before, after)
    )
    if reason:
        return Verdict(False, reason)
    if not keys:
        return Verdict(False, "the original has no key words to compare with")
    kept = len(keys & new_keys) / len(keys)
    if kept < config.min_kept:
        lost = ", ".join(sorted(keys - new_keys)[:4])
        return Verdict(False, f"keeps {kept:.0%} of the key words, lost {lost}")
    new = new_keys - keys - key_words(before)
    if len(new) > config.max_new * len(new_keys):
        return Verdict(False, f"adds {', '.join(sorted(new)[:4])}")
    return Verdict(True)


def key_words(text: str) -> frozenset[str]:
    """The stems of a text's content words; numbers are not among them."""
    words = (word.lower().replace("’", "'") for word in _WORD.findall(text))
    plain = (word.removesuffix("'s") for word in words)
    return frozenset(
        _stem(word)
        for word in plain
        if len(word) > 1 and word not in _EMPTY_WORDS and word not in _NUMBER_WORDS
    )


def _form(before: str, after: str, config: GuardConfig) -> str:
    lower, count = after.lower(), len(after.split())
    if not after:
        return "empty"
    if _MARKUP.search(after) and not _MARKUP.search(before):
        return "has markup"
    for phrase in config.banned:
        if phrase in lower and phrase not in before.lower():
            return f"says {phrase!r}"
    if count < config.min_words:
        return f"has {count} words"
    if count > config.max_words or count > max(8, config.max_growth * len(before.split())):
        return f"has {count} words for {len(before.split())}"
    return ""


def _numbers(before: str, after: str) -> str:
    new = _number_set(after) - _number_set(before)
    return f"adds the number {sorted(new)[0]}" if new else ""


def _number_set(text: str) -> set[str]:
    words = {_NUMBER_WORDS[w] for w in map(str.lower, _WORD.findall(text)) if w in _NUMBER_WORDS}
    return words | set(_NUMBER.findall(text))


def _names(before: str, rewritten: str) -> str:
    """A capital inside a sentence that the original does not spell, in any case, is a new name."""
    known = {word.lower() for word in _WORD.findall(before)}
    for sentence in re.split(r"[.!?:]\s+|\n", _plain(rewritten)):
        for word in _WORD.findall(sentence)[1:]:
            bare = word.removesuffix("'s").removesuffix("’s")
            if bare[0].isupper() and len(bare) > 1 and bare.lower() not in known:
                return f"adds the name {bare}"
    return ""


def _script(before: str, after: str) -> str:
    """Letters of a writing system that the original does not use (Latin always may)."""
    new = _scripts(after) - _scripts(before) - {"LATIN"}
    return f"is written in {sorted(new)[0].title()}" if new else ""


def _scripts(text: str) -> set[str]:
    return {unicodedata.name(c, "UNKNOWN").partition(" ")[0] for c in text if c.isalpha()}


def _stem(word: str) -> str:
    """Cut one English ending; only ever compared with other stems."""
    for ending in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            word = word.removesuffix(ending)
            break
    if len(word) > 3 and word[-1] == word[-2]:
        word = word[:-1]  # running, run
    return word.removesuffix("e") if len(word) > 3 else word


def _plain(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).split(" ")).strip()
