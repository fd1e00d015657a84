"""The tiny world's tokenizer: byte-pair merges trained until every word is exactly one token.

Standard byte-pair encoding (Sennrich et al. 2016) with CLIP's end-of-word mark, so that the same
reader serves this tokenizer and the published one. The vocabulary holds the words only: pieces
that arise between merges get no id, and words outside the list are left out of a prompt.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

from hummingbird_train.world.grammar import WORDS

PAD, START, END = "<|pad|>", "<|startoftext|>", "<|endoftext|>"
SPECIALS = (PAD, START, END)  # ids 0, 1, 2
MAX_LENGTH = 24  # tokens with start and end
VOCABULARY = (*SPECIALS, *(f"{word}</w>" for word in WORDS))


def train_merges(words: Iterable[str]) -> list[tuple[str, str]]:
    """Merge the most frequent neighbouring pair, ties in alphabetical order, until none is left.

    Args:
        words: ASCII words, each counted once.

    Returns:
        The merges in the order they were made; applied in that order they join each word whole.
    """
    pieces = [(*word[:-1], f"{word[-1]}</w>") for word in dict.fromkeys(words)]
    merges = []
    while pairs := Counter(pair for word in pieces for pair in pairwise(word)):
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        pieces = [merge_pair(word, best) for word in pieces]
    return merges


def merge_pair(pieces: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    """Join every occurrence of a pair, from left to right."""
    out: list[str] = []
    i = 0
    while i < len(pieces):
        if pieces[i : i + 2] == pair:
            out.append(pieces[i] + pieces[i + 1])
            i += 2
        else:
            out.append(pieces[i])
            i += 1
    return tuple(out)


def write_tokenizer(folder: Path) -> Path:
    """Write vocab.json, merges.txt and tokenizer_config.json; the same bytes every time.

    Args:
        folder: made when absent.

    Returns:
        The folder.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = {token: index for index, token in enumerate(VOCABULARY)}
    config = {
        "model_max_length": MAX_LENGTH,
        "bos_token_id": vocabulary[START],
        "eos_token_id": vocabulary[END],
        "pad_token_id": vocabulary[PAD],
        "unknown_words": "drop",
    }
    merges = ["#version: 0.2", *(f"{left} {right}" for left, right in train_merges(WORDS))]
    for name, text in (
        ("vocab.json", json.dumps(vocabulary, indent=1, ensure_ascii=False)),
        ("merges.txt", "\n".join(merges)),
        ("tokenizer_config.json", json.dumps(config, indent=1)),
    ):
        (folder / name).write_bytes(f"{text}\n".encode())
    return folder
