"""The tokenizer of the text encoder: a prompt to int64 ids, by CLIP's byte-pair encoding.

Reads ``vocab.json``, ``merges.txt`` and ``tokenizer_config.json``; ids equal open_clip's for text
that ftfy would leave alone. Small worlds use ``unknown_words: drop``: only whole known words count.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hummingbird_runtime.bytepairs import (
    END_OF_WORD,
    Pair,
    byte_alphabet,
    merge_word,
)
from hummingbird_runtime.errors import InputError
from hummingbird_runtime.strict_json import parse_json, record
from hummingbird_runtime.wordsplit import clean, has_letters, split_words

# CLIP: ids 0..49405 are bytes and merges, then the two control tokens under Hugging Face's names
CLIP_SPECIAL = ("<|startoftext|>", "<|endoftext|>")


@dataclass(frozen=True)
class Tokens:
    """An encoded prompt; also the event of ``stream`` that reports it."""

    ids: NDArray[np.int64]
    """int64 [1, model_max_length]: start, prompt, end, padding."""
    truncated: bool
    """Whether the prompt was longer than the model reads."""
    num_tokens: int
    """Start, whole prompt and end, before truncation and without padding."""
    unknown: tuple[str, ...] = ()
    """Words left out because the vocabulary lacks them (``unknown_words: drop`` only)."""


@dataclass(frozen=True)
class TokenizerConfig:
    """``tokenizer_config.json``."""

    model_max_length: int
    """Length of the id row, start and end tokens included."""
    bos_token_id: int
    eos_token_id: int
    pad_token_id: int
    """open_clip pads with 0, Hugging Face with the end token."""
    unknown_words: Literal["encode", "drop"] = "encode"
    """"encode" spells unknown words from bytes; "drop" leaves them out and reports them."""


class Tokenizer:
    """Encode prompts with one vocabulary. ``from_files`` reads a bundle's tokenizer folder.

    Args:
        vocabulary: token -> id.
        merges: pairs of symbols, the earliest merges first.
        config: lengths, control ids and the handling of unknown words.

    Raises:
        InputError: ``tokenizer.invalid`` when the parts do not fit together.
    """

    def __init__(
        self, vocabulary: Mapping[str, int], merges: Sequence[Pair], config: TokenizerConfig
    ) -> None:
        self.config = config
        self._vocabulary = dict(vocabulary)
        self._ranks = {pair: rank for rank, pair in reversed(list(enumerate(merges)))}
        self._alphabet = byte_alphabet()
        controls = {config.bos_token_id, config.eos_token_id, config.pad_token_id}
        if config.model_max_length < 2:
            raise _invalid(f"model_max_length {config.model_max_length}", "at least 2")
        if not controls <= set(self._vocabulary.values()):
            raise _invalid(f"control ids {sorted(controls)}", "ids of the vocabulary")
        if config.unknown_words == "encode":
            letters = self._alphabet.values()
            spelled = {*letters, *(character + END_OF_WORD for character in letters)}
            missing = (spelled | {a + b for a, b in self._ranks}) - self._vocabulary.keys()
            if missing:
                example = f"{len(missing)} symbols without an id, such as {min(missing)!r}"
                raise _invalid(example, "an id for every byte and merge")

    @classmethod
    def from_files(cls, folder: Path) -> Tokenizer:
        """Read the three files of a tokenizer folder.

        Raises:
            InputError: ``tokenizer.invalid`` or ``bundle.manifest_invalid``, naming the file.
        """
        vocabulary = read_vocabulary(_read(folder / "vocab.json"))
        merges = parse_merges(_read(folder / "merges.txt"))
        data = parse_json(_read(folder / "tokenizer_config.json"), what="tokenizer_config.json")
        return cls(vocabulary, merges, record(TokenizerConfig, data, "tokenizer_config.json"))

    def encode(self, prompt: str) -> Tokens:
        """The ids of a prompt; an empty prompt is start, end and padding.

        Raises:
            InputError: ``prompt.encoding`` when the text holds a lone surrogate.
        """
        ids, unknown = [self.config.bos_token_id], dict[str, None]()
        for word in split_words(clean(prompt)):
            symbols = self._symbols(word)
            if self.config.unknown_words == "encode":
                ids.extend(self._vocabulary[symbol] for symbol in symbols)
            elif len(symbols) == 1 and symbols[0] in self._vocabulary:
                ids.append(self._vocabulary[symbols[0]])
            elif has_letters(word):
                unknown[word] = None
        ids.append(self.config.eos_token_id)
        length = self.config.model_max_length
        row = np.full((1, length), self.config.pad_token_id, np.int64)
        row[0, : len(ids)] = ids[:length]
        if len(ids) > length:
            row[0, -1] = self.config.eos_token_id
        return Tokens(row, len(ids) > length, len(ids), tuple(unknown))

    def _symbols(self, word: str) -> list[str]:
        try:
            characters = [self._alphabet[byte] for byte in word.encode("utf-8")]
        except UnicodeEncodeError as error:
            raise InputError(
                "prompt.encoding",
                f"prompt, got a lone surrogate {error.object[error.start]!a}, "
                "expected text that can be written as UTF-8",
                hint="decode the text with its real encoding first",
            ) from error
        characters[-1] += END_OF_WORD
        return merge_word(characters, self._ranks)


def read_vocabulary(data: bytes) -> dict[str, int]:
    """Parse ``vocab.json``: distinct tokens to distinct ids 0..2^31-1."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise _invalid("vocab.json that is not JSON", "token -> id") from error
    if not isinstance(value, dict) or not all(type(v) is int for v in value.values()):
        raise _invalid("vocab.json that is not an object of whole numbers", "token -> id")
    ids = set(value.values())
    if len(ids) != len(value) or not all(0 <= index < 1 << 31 for index in ids):
        raise _invalid("vocab.json with repeated or negative ids", "distinct ids from 0")
    return value


def parse_merges(data: bytes) -> list[Pair]:
    """Parse ``merges.txt``: an optional ``#version`` line, then one pair of symbols a line."""
    try:
        lines = data.decode("utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise _invalid("merges.txt that is not UTF-8", "one pair of symbols a line") from error
    merges: list[Pair] = []
    for number, line in enumerate(lines, 1):
        parts = line.removesuffix("\r").split(" ")
        if parts == [""] or (number == 1 and line.startswith("#version")):
            continue
        if len(parts) != 2 or not all(parts):
            raise _invalid(f"merges.txt line {number} {line[:40]!r}", "two symbols and a space")
        merges.append((parts[0], parts[1]))
    return merges


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise _invalid(f"{path.name} that cannot be read ({error.strerror})", "a file") from error


def _invalid(got: str, expected: str) -> InputError:
    return InputError(
        "tokenizer.invalid",
        f"tokenizer, got {got}, expected {expected}",
        hint="export or copy the bundle again",
    )
