"""The world's tokenizer: every word one token, read back by the runtime that ships."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hummingbird_runtime.tokenizer import Tokenizer
from hummingbird_train.world.grammar import WORDS, caption, words_of
from hummingbird_train.world.scene import sample_scene
from hummingbird_train.world.tokenizer_files import (
    MAX_LENGTH,
    SPECIALS,
    VOCABULARY,
    train_merges,
    write_tokenizer,
)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return Tokenizer.from_files(write_tokenizer(tmp_path_factory.mktemp("world") / "tokenizer"))


def test_every_word_is_one_token_with_its_own_id(tokenizer: Tokenizer):
    for index, word in enumerate(WORDS, len(SPECIALS)):
        tokens = tokenizer.encode(word)
        assert tokens.ids[0, :3].tolist() == [1, index, 2]
        assert tokens.num_tokens == 3
    assert len(VOCABULARY) == len(WORDS) + len(SPECIALS)


def test_a_plain_prompt_has_no_unknown_word(tokenizer: Tokenizer):
    tokens = tokenizer.encode("A red ball moving to the left")
    assert tokens.unknown == ()
    assert tokens.num_tokens == 9
    assert tokens.ids.shape == (1, MAX_LENGTH)
    assert (tokens.ids[0, 9:] == 0).all()


def test_other_words_are_left_out_and_reported(tokenizer: Tokenizer):
    tokens = tokenizer.encode("a red cat surfing to the left")
    assert tokens.unknown == ("cat", "surfing")
    np.testing.assert_array_equal(tokens.ids, tokenizer.encode("a red to the left").ids)


def test_captions_encode_word_by_word_and_fit(tokenizer: Tokenizer):
    rng = np.random.default_rng(6)
    for templates in ("train", "judge"):
        for _ in range(200):
            text = caption(sample_scene(rng, tier=2), rng, templates=templates)
            tokens = tokenizer.encode(text)
            expected = [1, *(VOCABULARY.index(f"{word}</w>") for word in words_of(text)), 2]
            assert tokens.ids[0, : len(expected)].tolist() == expected
            assert not tokens.truncated
            assert tokens.num_tokens <= 20


def test_merges_are_made_by_frequency_then_alphabet():
    assert train_merges(["ab", "ab", "cab", "d"]) == [("a", "b</w>"), ("c", "ab</w>")]


def test_the_files_are_the_same_bytes_every_time(tmp_path: Path):
    first, second = write_tokenizer(tmp_path / "a"), write_tokenizer(tmp_path / "b")
    for name in ("vocab.json", "merges.txt", "tokenizer_config.json"):
        assert (first / name).read_bytes() == (second / name).read_bytes()
