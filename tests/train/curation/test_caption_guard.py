"""The guard: what a rewrite may change, and every kind of invention that it refuses."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hummingbird_train.curation.caption_guard import check_caption, key_words
from hummingbird_train.curation.recaptioners.rules import MISSPELLINGS, clean_caption

ORIGINAL = "aerial view of 3 surfers riding big waves at sunset in Portugal"


@pytest.mark.parametrize(
    "rewritten",
    [
        "An aerial view of three surfers riding big waves at sunset in Portugal.",
        "Three surfers ride big waves in Portugal at sunset, seen from an aerial view.",
        "Surfers ride waves at sunset in Portugal in an aerial shot.",
        ORIGINAL,
    ],
)
def test_the_same_content_in_other_words_of_the_sentence_is_accepted(rewritten: str) -> None:
    verdict = check_caption(ORIGINAL, rewritten)
    assert verdict.accepted, verdict.reason


@pytest.mark.parametrize(
    ("rewritten", "reason"),
    [
        ("", "empty"),
        ("Surfers.", "1 words"),
        ("A quiet village street in the rain.", "keeps"),
        ("Aerial view of 4 surfers riding big waves at sunset in Portugal", "the number 4"),
        ("Aerial view of surfers riding big waves at sunset near Nazaré, Portugal", "name Nazaré"),
        ("Sure, aerial view of surfers riding big waves at sunset in Portugal", "'sure,'"),
        ("Aerial view: surfers, waves, sunset. As an AI I cannot see Portugal.", "'as an ai'"),
        ("**Surfers** riding big waves at sunset in Portugal, aerial view", "markup"),
        ("Surfers riding big waves at sunset in Portugal aerial https://a.b", "'https://'"),
        (
            "Aerial view of brave surfers riding huge turquoise waves beside a lonely lighthouse "
            "and golden cliffs at sunset in Portugal with dolphins",
            "adds",
        ),
        ("waves " * 61, "61 words"),
        ("Серферы: aerial surfers riding big waves at sunset in Portugal", "Cyrillic"),
    ],
)
def test_every_kind_of_invention_is_refused_with_its_reason(rewritten: str, reason: str) -> None:
    verdict = check_caption(ORIGINAL, rewritten)
    assert not verdict.accepted
    assert reason in verdict.reason


def test_what_a_rule_would_strip_or_mend_need_not_stay() -> None:
    stock = "MOSCOW, RUSSIA - CIRCA MAY 2014: poeple walk on the street. 4K stock footage"
    assert check_caption(stock, "People walk on the street.").accepted
    assert not check_caption(stock, "People dance on the square.").accepted


def test_one_new_thing_in_a_short_caption_is_too_much() -> None:
    verdict = check_caption(
        "a hummingbird near a flower", "A hummingbird near a flower in a garden."
    )
    assert verdict.reason == "adds garden"


def test_an_original_without_content_accepts_nothing() -> None:
    assert "no key words" in check_caption("of the", "A red car.").reason


def test_words_meet_across_their_endings_and_empty_words_do_not_count() -> None:
    assert key_words("The dogs are running") == key_words("a dog runs")
    assert key_words("flies") == key_words("fly") or key_words("flies") == key_words("flied")
    assert key_words("a video that shows the") == frozenset()


@pytest.mark.parametrize(
    ("found", "cleaned"),
    [
        ("Aerial drone view of the beach, 4k stock footage", "Aerial drone view of the beach."),
        ("KYIV, UKRAINE - MARCH 12, 2016: Cars drive on a bridge", "Cars drive on a bridge."),
        ("happy  dog dog runs ,in the park .", "Happy dog runs, in the park."),
        ("Poeple In The Beautifull Backround Of The City", "People in the beautiful background of "
         "the city."),
        ("beach, sea, Beach, sea, sand", "Beach, sea, sand."),
        ("A cat sleeps. A cat sleeps.", "A cat sleeps."),
        ("Tom &amp;amp; his dog\u200b", "Tom & his dog."),
        ("river_flow 18273645.mov", "River_flow."),
        ("CLOSE UP SHOT OF A RED FLOWER", "Close up shot of a red flower."),
        ("Shutterstock royalty-free stock video", ""),
        ("a small red circle moving to the left on a black background",
         "A small red circle moving to the left on a black background."),
        ("New York at night", "New York at night."),
    ],
)  # fmt: skip
def test_rules_clean_what_stock_sites_add(found: str, cleaned: str) -> None:
    assert clean_caption(found) == cleaned


@given(st.text(max_size=120))
def test_cleaning_twice_is_cleaning_once_more_at_most_and_never_fails(text: str) -> None:
    once = clean_caption(text)
    assert "\n" not in once
    assert once == "" or once[-1] in ".!?"
    clean_caption(once)


@given(st.lists(st.sampled_from(["red", "dog", "beach", "walks", "two", "big"]), min_size=3))
def test_rules_add_no_key_word(words: list[str]) -> None:
    text = " ".join(words)
    assert key_words(clean_caption(text)) <= key_words(text)


def test_no_misspelling_is_its_own_or_another_ones_correction() -> None:
    assert not MISSPELLINGS.keys() & {w for v in MISSPELLINGS.values() for w in v.split()}
