"""Scenes to words: caption templates for training, other templates for judging, and every word.

A full caption names shape, colour, size and background, and the motion unless the object is
still. Judging templates arrange the same words in orders that no training caption uses.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import numpy as np

from hummingbird_runtime.errors import UsageError
from hummingbird_train.world.scene import BACKGROUNDS, COLOURS, Scene, sample_scene

_SHAPE_WORDS = {
    "circle": ("circle", "ball", "disc"),
    "square": ("square", "box"),
    "triangle": ("triangle",),
    "ring": ("ring",),
    "heart": ("heart",),
    "star": ("star",),
}
_SIZE_WORDS = {
    "small": ("small", "little"),
    "medium": ("medium",),
    "large": ("large", "big"),
}
_COLOUR_WORDS = {"purple": ("purple", "violet"), "cyan": ("cyan", "turquoise")}
_BACKGROUND_WORDS = {
    "grey": ("grey", "gray"),
    "checker": ("checker", "checkered"),
    "stripes": ("striped",),
}
_MOTION_WORDS = {
    "still": ("", "", "standing still", "not moving"),
    "left": ("moving to the left", "moving left", "going left", "sliding to the left"),
    "right": ("moving to the right", "moving right", "going right", "sliding to the right"),
    "up": ("moving up", "going up", "rising", "moving upwards"),
    "down": ("moving down", "going down", "falling", "moving downwards"),
    "growing": ("growing", "getting bigger", "getting larger"),
    "shrinking": ("shrinking", "getting smaller"),
    "up-left": ("moving up and to the left", "going up and left"),
    "up-right": ("moving up and to the right", "going up and right"),
    "down-left": ("moving down and to the left", "going down and left"),
    "down-right": ("moving down and to the right", "going down and right"),
    "circling": ("moving in a circle", "circling"),
    "bouncing": ("bouncing", "bouncing up and down"),
    "spinning": ("spinning", "turning"),
}

# {m} is the motion; a template with commas around it closes up when the motion is not named.
_TEMPLATES = {
    "train": (
        "a {s} {c} {o} {m} on a {b} background",
        "a {s} {c} {o} on a {b} background {m}",
        "a {s} {c} {o} {m} in front of a {b} background",
        "on a {b} background, a {s} {c} {o} {m}",
        "{s} {c} {o}, {m}, {b} background",
        "a {c} {o}, {s}, {m}, on {b}",
        "the {s} {c} {o} is {m} on a {b} background.",
        "a {b} background with a {s} {c} {o} {m}",
        "there is a {s} {c} {o} on {b}, {m}",
    ),
    # What a person types in a hurry: size or background left open. Training mixes these in.
    "partial": (
        "a {c} {o} {m}",
        "{c} {o}",
        "a {s} {c} {o} {m}",
        "a {c} {o} {m} on a {b} background",
    ),
    "judge": (
        "there is a {s} {c} {o} {m} in front of a {b} background",
        "a {b} background, a {s} {c} {o} {m}",
        "{m}, {s} {c} {o} in front of {b}",
        "in front of {b}, a {s} {c} {o} {m}",
    ),
}
TEMPLATE_SETS = tuple(_TEMPLATES)

EXAMPLES = (
    "a small red circle moving to the left on a black background",
    "a large blue ring on a grey background",
    "a medium yellow heart growing on a sky background",
    "a big green triangle falling in front of a checker background",
)

GRAMMAR = """\
One object on one background, 64x64 pixels, 26 frames. A prompt names
  size        small (little), medium, large (big)
  colour      red, orange, yellow, green, cyan (turquoise), blue, purple (violet), pink
  shape       circle (ball, disc), square (box), triangle, ring, heart
  motion      moving to the left / right, moving up (rising) / down (falling),
              growing, shrinking, or nothing for an object that stands still
  background  black, white, grey, sky, checker
for example: a small red circle moving to the left on a black background"""


def caption(scene: Scene, rng: np.random.Generator, *, templates: str = "train") -> str:
    """Describe a scene in one English phrase.

    Args:
        scene: what to describe.
        rng: chooses the template and the synonyms.
        templates: ``"train"``; ``"partial"`` to leave size or background open; ``"judge"`` for word
            orders that training never sees.

    Returns:
        At most 18 tokens (20 with the start and end tokens), every one a word of ``WORDS``.

    Raises:
        UsageError: an unknown set of templates.
    """
    if templates not in _TEMPLATES:
        raise UsageError(
            "world.templates",
            f"unknown templates, got {templates!r}, expected one of {', '.join(TEMPLATE_SETS)}",
            hint='pass templates="train"',
        )
    pattern = _pick(rng, _TEMPLATES[templates])
    return _fill(
        pattern,
        s=_pick(rng, _SIZE_WORDS[scene.size]),
        c=_pick(rng, _COLOUR_WORDS.get(scene.colour, (scene.colour,))),
        o=_pick(rng, _SHAPE_WORDS[scene.shape]),
        m=_pick(rng, _MOTION_WORDS[scene.motion]),
        b=_pick(rng, _BACKGROUND_WORDS.get(scene.background, (scene.background,))),
    )


def judging_prompts(
    n: int, seed: int, tier: int = 1, *, split: str = "train"
) -> list[tuple[str, Scene]]:
    """Draw n prompts in judging templates, each with the scene it describes.

    The scenes are fresh draws from a random stream that no training run uses; with
    ``split="held_out"`` their (shape, colour, motion) was never seen in training either.
    """
    rng = np.random.default_rng([0x6A756467, seed])
    scenes = [sample_scene(rng, tier=tier, split=split) for _ in range(n)]
    return [(caption(scene, rng, templates="judge"), scene) for scene in scenes]


def words_of(text: str) -> list[str]:
    """Split a caption the way the tokenizer does: runs of letters, and punctuation by itself."""
    return re.findall(r"[a-z]+|[^\sa-z]", text.lower())


def _fill(pattern: str, *, m: str, **words: str) -> str:
    if not m:
        pattern = pattern.replace("{m}, ", "").replace(", {m}", "").replace(" is {m}", "")
    text = pattern.format(m=m, **words)
    return re.sub(r"\ba (?=[aeiou])", "an ", " ".join(text.split()))


def _pick(rng: np.random.Generator, names: Sequence[str]) -> str:
    return names[int(rng.integers(len(names)))]


def _texts() -> Iterator[str]:
    """Every phrase that a caption can be made of."""
    for templates in _TEMPLATES.values():
        for pattern in templates:
            yield re.sub(r"{\w}", "", pattern)
    yield "an"
    yield " ".join(_COLOUR_WORDS[name][0] for name in _COLOUR_WORDS)
    for table in (_SHAPE_WORDS, _SIZE_WORDS, _COLOUR_WORDS, _BACKGROUND_WORDS, _MOTION_WORDS):
        for synonyms in table.values():
            yield from synonyms


def _collect() -> tuple[str, ...]:
    found = {word for text in _texts() for word in words_of(text)}
    found.update(name for name in COLOURS if name not in _COLOUR_WORDS)
    found.update(name for name in BACKGROUNDS[2] if name not in _BACKGROUND_WORDS)
    return tuple(sorted(found))


WORDS = _collect()
