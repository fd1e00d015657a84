"""Captions: complete, short, made of known words, and never shared by training and judging."""

from __future__ import annotations

import numpy as np
import pytest

from hummingbird_runtime.errors import UsageError
from hummingbird_train.world.grammar import (
    EXAMPLES,
    WORDS,
    caption,
    judging_prompts,
    words_of,
)
from hummingbird_train.world.scene import Scene, is_held_out, sample_scene

SCENE = Scene("circle", "purple", "small", "left", "grey", 1, 32.0, 32.0, 10.0, 22.0)
STILL = Scene("square", "orange", "large", "still", "sky", 1, 32.0, 32.0, 18.0)


def captions(templates: str, n: int, tier: int = 1) -> list[str]:
    rng = np.random.default_rng(2)
    return [caption(sample_scene(rng, tier=tier), rng, templates=templates) for _ in range(n)]


@pytest.mark.parametrize("templates", ["train", "partial", "judge"])
@pytest.mark.parametrize("tier", [1, 2])
def test_captions_are_short_and_made_of_known_words(templates: str, tier: int):
    for text in captions(templates, 800, tier):
        words = words_of(text)
        assert len(words) <= 18
        assert set(words) <= set(WORDS)
        assert "  " not in text
        assert " ," not in text


@pytest.mark.parametrize("templates", ["train", "judge"])
def test_a_caption_names_every_attribute(templates: str):
    rng = np.random.default_rng(0)
    for _ in range(200):
        words = set(words_of(caption(SCENE, rng, templates=templates)))
        for synonyms in (
            {"circle", "ball", "disc"},
            {"purple", "violet"},
            {"small", "little"},
            {"left"},
            {"grey", "gray"},
        ):
            assert words & synonyms


def test_a_still_object_may_go_without_a_motion_phrase():
    rng = np.random.default_rng(0)
    texts = {caption(STILL, rng) for _ in range(300)}
    assert "a large orange square on a sky background" in texts
    assert "the large orange square is standing still on a sky background." in texts
    assert not any(text.endswith((" is", ",")) or ", ," in text for text in texts)


def test_an_article_fits_its_vowel():
    texts = captions("train", 2000) + captions("partial", 500)
    assert any("an orange" in text for text in texts)
    assert not any("a orange" in text for text in texts)


def test_training_never_sees_a_judging_caption():
    rng = np.random.default_rng(0)
    for scene in (STILL, *(sample_scene(rng) for _ in range(8))):
        seen = {caption(scene, rng) for _ in range(600)}
        seen |= {caption(scene, rng, templates="partial") for _ in range(200)}
        assert not seen & {caption(scene, rng, templates="judge") for _ in range(200)}


def test_training_sees_every_word_that_judging_uses():
    def used(templates: str) -> set[str]:
        return {word for text in captions(templates, 1500) for word in words_of(text)}

    assert used("judge") <= used("train")


def test_judging_prompts_are_reproducible_and_keep_to_their_split():
    prompts = judging_prompts(40, 1, split="held_out")
    assert prompts == judging_prompts(40, 1, split="held_out")
    assert prompts != judging_prompts(40, 2, split="held_out")
    assert all(is_held_out(scene.shape, scene.colour, scene.motion) for _, scene in prompts)
    assert {scene.tier for _, scene in judging_prompts(10, 1, tier=2)} == {2}


def test_the_examples_are_made_of_known_words():
    assert all(set(words_of(text)) <= set(WORDS) for text in EXAMPLES)


def test_unknown_templates_are_refused():
    with pytest.raises(UsageError, match="templates, got 'poem', expected one of train"):
        caption(SCENE, np.random.default_rng(0), templates="poem")
