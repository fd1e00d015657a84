"""Does the caption fit the pictures: CLIP similarity (Radford et al. 2021) with the user's model.

The folder holds what an ONNX export of a CLIP model holds: ``text_model.onnx`` (input_ids ->
text_embeds), ``vision_model.onnx`` (pixel_values -> image_embeds), and the tokenizer's
``vocab.json``, ``merges.txt``, ``tokenizer_config.json``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from hummingbird_runtime.errors import InputError
from hummingbird_runtime.tokenizer import Tokenizer, TokenizerConfig, parse_merges, read_vocabulary
from hummingbird_train.curation.clip import Clip
from hummingbird_train.curation.decode import Frames
from hummingbird_train.curation.stage import FramePlan, Scores, Stage
from hummingbird_train.curation.stages.model_file import file_sha256
from hummingbird_train.curation.stages.onnx_model import open_checked, refuse_interface, run_model
from hummingbird_train.curation.stages.opencv import opencv

FILES = ("text_model.onnx", "vision_model.onnx", "vocab.json", "merges.txt")
LENGTH = 77  # tokens
MEAN = np.array([0.48145466, 0.4578275, 0.40821073], np.float32)
STD = np.array([0.26862954, 0.26130258, 0.27577711], np.float32)
PLAN = FramePlan(max_frames=8)


@dataclass(frozen=True)
class ClipMatch(Stage):
    """Cosine of caption and frames."""

    name: ClassVar[str] = "clip_match"
    version: ClassVar[int] = 1
    needs: ClassVar[FramePlan] = PLAN
    after: ClassVar[tuple[str, ...]] = ()

    model: str
    """folder of the exported model."""
    side: int = 224
    """pixels of the square picture that it takes."""

    def parameters(self) -> Mapping[str, object]:
        """The side, and one digest over the model's files."""
        digests = [file_sha256(str(Path(self.model, name))) for name in FILES]
        joined = hashlib.sha256(" ".join(digests).encode()).hexdigest()
        return {"model": joined, "side": self.side}

    def score(self, clip: Clip, frames: Frames, earlier: Mapping[str, Scores]) -> Scores:
        """Keys ``mean`` and ``least`` cosine over 8 frames, -1..1.

        Raises:
            InputError: ``stage.caption`` for a clip without a caption.
        """
        if not clip.caption.strip():
            raise InputError(
                "stage.caption",
                f"{clip.uri}: got no caption, expected one to compare the pictures with",
                hint="give captions in the source, or leave [stages.clip_match] out",
            )
        text = embed_text(self.model, clip.caption)
        images = embed_frames(self.model, frames.of(PLAN), self.side)
        cosines = images @ text
        return {"mean": float(cosines.mean()), "least": float(cosines.min())}


def embed_text(folder: str, caption: str) -> NDArray[np.float32]:
    """Unit embedding [d] of a caption."""
    path = str(Path(folder, "text_model.onnx"))
    session = open_checked(path)
    ids = _tokenizer(folder).encode(caption).ids  # (1, 77)
    feeds: dict[str, NDArray[Any]] = {}
    for entry in session.get_inputs():
        kind = np.int32 if "int32" in entry.type else np.int64
        feeds[entry.name] = (np.ones_like(ids) if "mask" in entry.name else ids).astype(kind)
    return _unit(_pick(path, run_model(session, feeds), "text_embeds"))[0]


def embed_frames(folder: str, frames: NDArray[np.uint8], side: int) -> NDArray[np.float32]:
    """Unit embeddings [n, d] of frames uint8 [n, h, w, 3]: centre square, bicubic, standardised."""
    cv2 = opencv()
    path = str(Path(folder, "vision_model.onnx"))
    session = open_checked(path)
    least = min(frames.shape[1:3])
    top, left = (frames.shape[1] - least) // 2, (frames.shape[2] - least) // 2
    square = frames[:, top : top + least, left : left + least]
    kind = cv2.INTER_AREA if least > side else cv2.INTER_CUBIC
    small = np.stack([cv2.resize(frame, (side, side), interpolation=kind) for frame in square])
    pixels = ((small.astype(np.float32) / 255 - MEAN) / STD).transpose(0, 3, 1, 2)
    out = run_model(session, {session.get_inputs()[0].name: np.ascontiguousarray(pixels)})
    return _unit(_pick(path, out, "image_embeds"))


def _pick(path: str, outputs: Mapping[str, NDArray[Any]], name: str) -> NDArray[np.float32]:
    if name not in outputs or outputs[name].ndim != 2:
        raise refuse_interface(path, f"outputs {list(outputs)}", f"{name} [n, d]")
    return outputs[name].astype(np.float32)


def _unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


@lru_cache(maxsize=2)
def _tokenizer(folder: str) -> Tokenizer:
    vocabulary = read_vocabulary(Path(folder, "vocab.json").read_bytes())
    merges = parse_merges(Path(folder, "merges.txt").read_bytes())
    start, end = (vocabulary.get(f"<|{word}oftext|>", 0) for word in ("start", "end"))
    return Tokenizer(vocabulary, merges, TokenizerConfig(LENGTH, start, end, end))
