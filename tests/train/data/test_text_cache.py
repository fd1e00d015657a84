"""Cached contexts equal the text tower's, and only new captions are encoded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from hummingbird_runtime.errors import InputError
from hummingbird_runtime.tokenizer import Tokenizer
from hummingbird_train.data.text_cache import encode_captions
from hummingbird_train.models.text_encoder import TextConfig, TextEncoder
from hummingbird_train.models.weights import save_model
from hummingbird_train.world.tokenizer_files import VOCABULARY, write_tokenizer

CONFIG = TextConfig(
    vocab_size=len(VOCABULARY), max_length=24, width=8, heads=2, layers=2, published_extras=False
)


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tokenizer(tmp_path_factory.mktemp("words"))


def tower(folder: Path, seed: int) -> tuple[Path, TextEncoder]:
    torch.manual_seed(seed)
    model = TextEncoder(CONFIG).eval()
    torch.nn.init.normal_(model.token_embedding.weight)
    save_model(folder / "text.safetensors", model, CONFIG)
    return folder / "text.safetensors", model


def test_contexts_are_the_towers_and_grow_with_new_captions(words: Path, tmp_path: Path) -> None:
    path, model = tower(tmp_path, 0)
    encode_captions(["a red ball"], path, words, tmp_path / "c")
    contexts = encode_captions(["a blue box", "a red ball"], path, words, tmp_path / "c")
    assert set(contexts.rows) == {"", "a red ball", "a blue box"}
    asked = ["a blue box", "", "a red ball"]
    tokenizer = Tokenizer.from_files(words)
    ids = torch.from_numpy(np.concatenate([tokenizer.encode(text).ids for text in asked]))
    with torch.no_grad():
        expected = model(ids)
    got = contexts(asked)
    assert got.dtype == torch.float32
    assert torch.allclose(got, expected, atol=2e-3, rtol=1e-3)  # stored as float16
    assert not torch.allclose(got[0], got[2], atol=0.1)
    with pytest.raises(KeyError):
        contexts(["never seen"])


def test_another_tower_is_another_cache_and_a_damaged_one_is_refused(
    words: Path, tmp_path: Path
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    for name, seed in (("a", 0), ("b", 1)):
        path, _ = tower(tmp_path / name, seed)
        encode_captions(["a ring"], path, words, tmp_path / "c")
    places = sorted((tmp_path / "c").iterdir())
    assert len(places) == 2
    for place in places:
        np.save(place / "contexts.npy", np.zeros((1, 24, 8), np.float16))
    with pytest.raises(InputError) as caught:
        encode_captions(["a ring"], path, words, tmp_path / "c")
    assert caught.value.code == "cache.incomplete"
    with pytest.raises(InputError) as caught:
        encode_captions(["a ring"], tmp_path / "none", words, tmp_path / "c")
    assert caught.value.code == "checkpoint.missing"
