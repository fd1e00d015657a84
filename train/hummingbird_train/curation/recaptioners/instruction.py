"""The one instruction that language models get, and what of their answer counts.

They see the caption as the rules clean it: a small model repeats datelines and site names.
"""

from __future__ import annotations

from hummingbird_train.curation.recaptioners.rules import clean_caption

VERSION = 1
SYSTEM = (
    "You rewrite captions of short video clips for training a text-to-video model. Answer with one "
    "plain English sentence that says what is seen and how it moves. Use only what the caption "
    "says: add no objects, places, names, numbers, colours, moods or camera moves. Drop words "
    "about stock sites, resolution and dates. Answer with the sentence only."
)
EXAMPLES = (
    (
        "Aerial view 4k drone stock footage waves beach Bali",
        "An aerial view of waves on a beach in Bali.",
    ),
    (
        "cute dog run grass park slow motion hd",
        "A cute dog runs on grass in a park in slow motion.",
    ),
)


def messages(caption: str, *, examples: bool = True) -> list[dict[str, str]]:
    """The chat: instruction, worked examples, the caption."""
    chat = [{"role": "system", "content": SYSTEM}]
    for asked, answered in EXAMPLES if examples else ():
        chat += [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]
    return [*chat, {"role": "user", "content": clean_caption(caption) or caption}]


def first_line(answer: str) -> str:
    """The first line with text, without the quotes that models put around it."""
    for line in answer.strip().splitlines():
        text = line.strip().strip("\"'“”").strip()
        if text:
            return text
    return ""
