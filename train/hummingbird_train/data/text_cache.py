"""A cache of encoded captions: every sentence goes through the text tower once.

The folder is named by a hash of the tower's file and the tokenizer. The empty caption is always in
it: it is what caption dropout and guidance need.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hummingbird_runtime.atomic import atomic_file
from hummingbird_runtime.errors import InputError
from hummingbird_runtime.tokenizer import Tokenizer
from hummingbird_train.models.text_encoder import TextEncoder
from hummingbird_train.models.weights import load_model

_BATCH = 32
_FILES = ("vocab.json", "merges.txt", "tokenizer_config.json")


def text_key(text_path: Path, tokenizer_folder: Path) -> str:
    """Name of a cache: 16 hexadecimal digits of the hash of tower and tokenizer."""
    digest = hashlib.sha256()
    for path in (text_path, *(tokenizer_folder / name for name in _FILES)):
        try:
            digest.update(hashlib.sha256(path.read_bytes()).digest())
        except OSError as error:
            raise InputError(
                "checkpoint.missing",
                f"weights {path}, got {error.strerror or error}, expected a file",
                hint="check the path",
            ) from error
    return digest.hexdigest()[:16]


def encode_captions(
    captions: Iterable[str], text_path: Path, tokenizer_folder: Path, folder: Path
) -> CaptionContexts:
    """Encode the captions that the cache lacks, and open it.

    Writes ``folder/KEY/contexts.npy`` (float16 [n, L, D]) and ``captions.json``.

    Raises:
        InputError: ``checkpoint.*``, ``tokenizer.invalid``, ``cache.incomplete``.
    """
    place = folder / text_key(text_path, tokenizer_folder)
    place.mkdir(parents=True, exist_ok=True)
    known = CaptionContexts(place).rows if (place / "captions.json").exists() else {}
    new = [text for text in dict.fromkeys(["", *captions]) if text not in known]
    if new:
        tower = load_model(text_path)
        if not isinstance(tower, TextEncoder):
            raise InputError(
                "checkpoint.kind",
                f"weights {text_path}, got {type(tower).__name__}, expected a text tower",
                hint="give the text tower of the model",
            )
        tokenizer = Tokenizer.from_files(tokenizer_folder)
        with torch.no_grad():
            encoded = [
                tower(_ids(tokenizer, new[i : i + _BATCH])).numpy().astype(np.float16)
                for i in range(0, len(new), _BATCH)
            ]
        old = [CaptionContexts(place).contexts] if known else []
        with (
            atomic_file(place / "contexts.npy", overwrite=True) as temporary,
            open(temporary, "wb") as file,
        ):
            np.save(file, np.concatenate([*old, *encoded]))
        with atomic_file(place / "captions.json", overwrite=True) as temporary:
            temporary.write_text(json.dumps([*known, *new], ensure_ascii=False), encoding="utf-8")
    return CaptionContexts(place)


def _ids(tokenizer: Tokenizer, captions: Sequence[str]) -> Tensor:
    return torch.from_numpy(np.concatenate([tokenizer.encode(text).ids for text in captions]))


class CaptionContexts:
    """Contexts by caption.

    Args:
        place: folder of one cache.

    Raises:
        InputError: ``cache.incomplete``.
    """

    def __init__(self, place: Path) -> None:
        try:
            captions = json.loads((place / "captions.json").read_text(encoding="utf-8"))
            contexts = np.load(place / "contexts.npy")
            if len(contexts) < len(captions):  # more is an append that was cut off between files
                raise ValueError(f"got {len(contexts)} contexts of {len(captions)} captions")
        except (OSError, ValueError, EOFError) as error:
            raise InputError(
                "cache.incomplete",
                f"text cache {place}: {error}",
                hint="remove the folder and run again: it encodes what is missing",
            ) from error
        self.contexts = contexts[: len(captions)]
        self.rows = {text: row for row, text in enumerate(captions)}

    def __call__(self, captions: Sequence[str]) -> Tensor:
        """float32 [n, L, D].

        Raises:
            KeyError: a caption that was not given to ``encode_captions``.
        """
        chosen = self.contexts[[self.rows[text] for text in captions]]
        return torch.from_numpy(chosen.astype(np.float32))
