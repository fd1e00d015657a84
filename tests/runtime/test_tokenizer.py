"""The tokenizer against ids of the published one, and properties of its parts.

``golden.json`` holds 200 strings with ids computed by open_clip's tokenizer with ftfy
replaced by the identity, unlimited length.
"""

from __future__ import annotations

import gzip
import html
import itertools
import json
import time
from pathlib import Path

import numpy as np
import pytest
import tiny_bundle
from hypothesis import given
from hypothesis import strategies as st

from hummingbird_runtime.bytepairs import build_vocabulary, byte_alphabet, merge_word
from hummingbird_runtime.errors import InputError
from hummingbird_runtime.tokenizer import (
    CLIP_SPECIAL,
    Tokenizer,
    TokenizerConfig,
    parse_merges,
    read_vocabulary,
)
from hummingbird_runtime.wordsplit import clean, split_words

ROOT = Path(__file__).parents[2]
CLIP = ROOT / "export/hummingbird_export/data/clip_merges.txt.gz"
HOSTILE = json.loads((ROOT / "tests/data/golden.json").read_text("utf-8"))["tokens"]["clip"]
LETTERS = {character: byte for byte, character in byte_alphabet().items()}
START, END = 49406, 49407


@pytest.fixture(scope="module")
def clip_parts() -> tuple[dict[str, int], list[tuple[str, str]]]:
    merges = parse_merges(gzip.decompress(CLIP.read_bytes()))
    return build_vocabulary(merges, CLIP_SPECIAL), merges


@pytest.fixture(scope="module")
def clip(clip_parts: tuple) -> Tokenizer:
    return Tokenizer(*clip_parts, TokenizerConfig(77, START, END, pad_token_id=0))


@pytest.fixture(scope="module")
def endless(clip_parts: tuple) -> Tokenizer:
    return Tokenizer(*clip_parts, TokenizerConfig(1 << 16, START, END, pad_token_id=0))


@pytest.fixture(scope="module")
def names(clip_parts: tuple) -> list[str]:
    return list(clip_parts[0])


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """Like the built-in one: its vocabulary holds whole words and nothing else."""
    files = tiny_bundle.tokenizer_files()
    words = {f"{word}</w>" for word in tiny_bundle.WORDS} | {"!", "<start>", "<end>"}
    vocabulary = json.loads(files["tokenizer/vocab.json"])
    vocab = json.dumps({token: i for token, i in vocabulary.items() if token in words}).encode()
    return Tokenizer.from_files(
        write_files(tmp_path_factory.mktemp("tokenizer"), files, vocab=vocab)
    )


def write_files(folder: Path, files: dict[str, bytes], **changes: bytes) -> Path:
    for path, data in files.items():
        name = Path(path).name
        (folder / name).write_bytes(changes.get(name.partition(".")[0], data))
    return folder


@pytest.mark.parametrize(
    ("prompt", "ids"),
    [
        (
            "A drone flying over a snowy forest.",
            [START, 320, 9397, 4610, 962, 320, 14191, 4167, 269, END],
        ),
        (
            "A cute happy Corgi playing in park, sunset, animated style.",
            [START, 320, 2242, 900, 31320, 1629, 530, 1452, 267, 3424, 267, 13360, 1844, 269, END],
        ),
    ],
)
def test_published_prompts_have_the_published_ids(
    clip: Tokenizer, prompt: str, ids: list[int]
) -> None:
    tokens = clip.encode(prompt)
    assert tokens.ids.dtype == np.int64
    assert tokens.ids.tolist() == [ids + [0] * (77 - len(ids))]
    assert (tokens.truncated, tokens.num_tokens, tokens.unknown) == (False, len(ids), ())


@pytest.mark.parametrize("row", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_prompts_have_the_reference_ids(endless: Tokenizer, row: dict) -> None:
    tokens = endless.encode(row["prompt"])
    assert tokens.ids[0, : tokens.num_tokens].tolist() == row["ids"]


def test_control_tokens_typed_by_a_user_are_text(clip: Tokenizer) -> None:
    for text in ("<start_of_text>", "<|startoftext|>", "<end_of_text>", "<|endoftext|>"):
        tokens = clip.encode(text)
        assert not {START, END} & set(tokens.ids[0, 1 : tokens.num_tokens - 1].tolist())


@pytest.mark.parametrize(
    ("words", "truncated"), [(74, False), (75, False), (76, True), (300, True)]
)
def test_truncation_keeps_the_end_token(clip: Tokenizer, words: int, truncated: bool) -> None:
    tokens = clip.encode("a " * words)
    assert tokens.ids.shape == (1, 77)
    assert tokens.num_tokens == words + 2
    assert tokens.truncated is truncated
    assert tokens.ids[0, min(words + 1, 76)] == END


def test_the_empty_prompt_is_start_end_and_padding(clip: Tokenizer) -> None:
    for prompt in ("", "   ", "\n\t"):
        assert clip.encode(prompt).ids.tolist() == [[START, END] + [0] * 75]


def test_padding_may_be_the_end_token(clip_parts: tuple) -> None:
    tokenizer = Tokenizer(*clip_parts, TokenizerConfig(6, START, END, pad_token_id=END))
    assert tokenizer.encode("a").ids.tolist() == [[START, 320, END, END, END, END]]


def test_a_clip_tokenizer_survives_its_files(clip: Tokenizer, clip_parts: tuple, tmp_path) -> None:
    vocabulary, merges = clip_parts
    assert len(vocabulary) == 49408
    config = {"model_max_length": 77, "bos_token_id": START, "eos_token_id": END, "pad_token_id": 0}
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary))
    lines = ["#version: 0.2", *map(" ".join, merges)]
    (tmp_path / "merges.txt").write_text("\n".join(lines), encoding="utf-8")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    again = Tokenizer.from_files(tmp_path)
    for row in HOSTILE[::10]:
        assert (again.encode(row["prompt"]).ids == clip.encode(row["prompt"]).ids).all()


def test_a_small_world_drops_and_reports_words_it_does_not_know(tiny: Tokenizer) -> None:
    tokens = tiny.encode("A RED cat, surfing left; cat!")
    known = tiny.encode("a red left")
    assert tokens.ids.tolist() == known.ids.tolist()
    assert tokens.unknown == ("cat", "surfing")  # once each, punctuation is not worth a word
    assert known.unknown == ()
    assert tokens.num_tokens == 5


def test_lone_surrogates_are_refused(clip: Tokenizer) -> None:
    with pytest.raises(InputError, match=r"\\ud800") as caught:
        clip.encode("a \ud800 cat")
    assert caught.value.code == "prompt.encoding"


@pytest.mark.parametrize(
    "text", ["a" * 30000, "ab" * 15000, "\u00e9" * 15000, "the quick fox " * 2000]
)
def test_no_prompt_stalls_the_tokenizer(clip: Tokenizer, text: str) -> None:
    started = time.perf_counter()
    assert clip.encode(text).truncated
    assert time.perf_counter() - started < 10.0  # quadratic merging would take a minute


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
def test_no_symbol_is_lost(endless: Tokenizer, names: list[str], text: str) -> None:
    tokens = endless.encode(text)
    spelled = [names[i].removesuffix("</w>") for i in tokens.ids[0, 1 : tokens.num_tokens - 1]]
    data = bytes(LETTERS[character] for character in "".join(spelled))
    assert data.decode("utf-8") == "".join(split_words(clean(text)))


@given(st.text(alphabet="ab1 '!s\u0345\u00e9", max_size=30))
def test_words_are_pieces_of_the_text_in_order(text: str) -> None:
    kept = clean(text).replace(" ", "").replace("\u0345", "")
    assert "".join(split_words(clean(text))) == kept


@given(
    st.lists(st.sampled_from("abc"), min_size=1, max_size=14),
    st.lists(
        st.tuples(
            st.sampled_from(["a", "b", "ab", "abc", "bb"]),
            st.sampled_from(["b", "c", "bc", "a</w>", "b</w>", "c</w>", "bc</w>", "a"]),
        ),
        max_size=12,
    ),
)
def test_fast_merging_equals_the_definition(word: list[str], merges: list) -> None:
    ranks = {pair: rank for rank, pair in reversed(list(enumerate(merges)))}
    symbols = [*word[:-1], word[-1] + "</w>"]
    assert merge_word(list(symbols), ranks) == merge_by_definition(symbols, ranks)


def merge_by_definition(symbols: list[str], ranks: dict) -> list[str]:
    while True:
        pairs = [pair for pair in itertools.pairwise(symbols) if pair in ranks]
        if not pairs:
            return symbols
        best, merged, i = min(pairs, key=ranks.__getitem__), [], 0
        while i < len(symbols):
            if tuple(symbols[i : i + 2]) == best:
                merged.append(best[0] + best[1])
                i += 2
            else:
                merged.append(symbols[i])
                i += 1
        symbols = merged


@given(st.text(alphabet="&amp;lt#39x; abc", max_size=20))
def test_cleaning_is_html_space_and_case(text: str) -> None:
    twice = html.unescape(html.unescape(text))
    assert clean(text) == " ".join(twice.split()).lower()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vocab": b"[1, 2]"}, "not an object"),
        ({"vocab": b"{"}, "not JSON"),
        ({"vocab": b"\xff"}, "not JSON"),
        ({"vocab": b"[" * 100_000}, "not JSON"),
        ({"vocab": b'{"a": 1, "b": 1}'}, "repeated"),
        ({"vocab": b'{"a": -1}'}, "negative"),
        ({"vocab": b'{"a": true}'}, "whole numbers"),
        ({"vocab": b'{"a": 0}'}, "control ids"),
        ({"merges": b"\xff\xfe"}, "not UTF-8"),
        ({"merges": b"#version: 0.2\na b c\n"}, "line 2"),
        ({"merges": b"a  b\n"}, "line 1"),
    ],
)
def test_broken_files_are_refused(tmp_path: Path, changes: dict, message: str) -> None:
    folder = write_files(tmp_path, tiny_bundle.tokenizer_files(), **changes)
    with pytest.raises(InputError, match=message) as caught:
        Tokenizer.from_files(folder)
    assert caught.value.code == "tokenizer.invalid"
    assert caught.value.hint


def test_missing_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"vocab\.json") as caught:
        Tokenizer.from_files(tmp_path)
    assert caught.value.code == "tokenizer.invalid"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"model_max_length": 1}, "tokenizer.invalid"),
        ({"eos_token_id": 10**6}, "tokenizer.invalid"),
        ({"unknown_words": "guess"}, "bundle.manifest_invalid"),
        ({"model_max_length": "77"}, "bundle.manifest_invalid"),
    ],
)
def test_a_wrong_configuration_is_refused(tmp_path: Path, change: dict, code: str) -> None:
    files = tiny_bundle.tokenizer_files()
    config = json.loads(files["tokenizer/tokenizer_config.json"])
    data = json.dumps({**config, **change}).encode()
    with pytest.raises(InputError) as caught:
        Tokenizer.from_files(write_files(tmp_path, files, tokenizer_config=data))
    assert caught.value.code == code


def test_an_open_vocabulary_must_spell_every_byte() -> None:
    vocabulary = read_vocabulary(b'{"a": 0, "b": 1, "c": 2}')
    with pytest.raises(InputError, match="symbols without an id"):
        Tokenizer(vocabulary, parse_merges(b""), TokenizerConfig(8, 0, 1, 2))
