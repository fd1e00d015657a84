"""Cosine of prompt and picture in CLIP-type towers: HPSv2.1, CLIP, PickScore, and ViCLIP for clips.

Files are the user's own: HPSv2.1 (Wu et al. 2023) and OpenCLIP's ViT-H-14 as ``.pt`` or
safetensors, PickScore (Kirstain et al. 2023) as its Hugging Face file, ViCLIP (Wang et al. 2023) as
published. None is shipped.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from hummingbird_runtime.errors import UsageError
from hummingbird_runtime.tokenizer import Tokenizer
from hummingbird_train.feedback.reward import FrameSpec, Sampling, normalised, resized
from hummingbird_train.feedback.rewards.clip_towers import (
    ClipTowers,
    TowerFacts,
    from_hugging_face,
    from_viclip,
    read_tensors,
)

OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Family:
    """One published kind of model."""

    layout: str
    """Names in the file: ``open_clip``, ``hugging_face`` or ``viclip``."""
    frames: int
    """Frames per clip; ViCLIP's own number of frames takes precedence."""
    sampling: Sampling
    facts: TowerFacts = field(default_factory=TowerFacts)
    mean: tuple[float, ...] = OPENAI_MEAN
    deviation: tuple[float, ...] = OPENAI_STD


FAMILIES: Mapping[str, Family] = {
    "hpsv2.1": Family("open_clip", 5, "random"),
    "clip": Family("open_clip", 5, "random"),
    "clip-openai": Family("open_clip", 5, "random", TowerFacts(quick_gelu=True)),
    "pickscore": Family("hugging_face", 5, "random"),
    "viclip": Family(
        "viclip", 8, "strided", TowerFacts(quick_gelu=True), IMAGENET_MEAN, IMAGENET_STD
    ),
}
"""Name of a reward -> its kind. Five random frames and eight strided ones are upstream's choice."""


class ClipReward:
    """Cosine, -1..1, averaged over the frames of a clip where the tower sees single pictures.

    Args:
        towers: frozen.
        tokenizer: CLIP's.
        family: how frames are chosen and normalised.
        name: of the term.
    """

    differentiable = True

    def __init__(self, towers: ClipTowers, tokenizer: Tokenizer, family: Family, name: str) -> None:
        self.towers, self.tokenizer, self.family, self.name = towers, tokenizer, family, name
        count = towers.visual.frames if towers.visual.video else family.frames
        self.wants = FrameSpec(count, family.sampling, towers.visual.size)
        self._known: dict[str, Tensor] = {}

    @classmethod
    def open(cls, name: str, weights: Path, tokenizer: Path) -> ClipReward:
        """Load a model.

        Args:
            name: a key of ``FAMILIES``.
            weights: its file.
            tokenizer: folder with CLIP's vocab.json, merges.txt and tokenizer_config.json, such as
                a converted checkpoint's.

        Raises:
            UsageError: ``feedback.reward_name``.
            InputError: ``checkpoint.missing``, ``checkpoint.corrupt``, ``feedback.towers``, and the
                tokenizer's own.
        """
        if name not in FAMILIES:
            raise UsageError(
                "feedback.reward_name",
                f"reward model, got {name!r}, expected one of {', '.join(FAMILIES)}",
                hint="correct the recipe",
            )
        family = FAMILIES[name]
        tensors = read_tensors(weights)
        if family.layout == "hugging_face":
            tensors = from_hugging_face(tensors)
        elif family.layout == "viclip":
            tensors = from_viclip(tensors)
        tensors.pop("attn_mask", None)  # OpenCLIP's causal mask, a constant
        towers = ClipTowers(tensors, family.facts)
        return cls(towers, Tokenizer.from_files(tokenizer), family, name)

    def to(self, device: torch.device) -> None:
        """Move the towers."""
        self.towers.to(device)
        self._known.clear()

    @torch.no_grad()
    def encode_text(self, prompts: list[str]) -> Tensor:
        """Unit embeddings [b, d]; the last 4096 prompts are remembered."""
        device = self.towers.visual.proj.device
        for prompt in dict.fromkeys(prompts):
            if prompt not in self._known:
                ids = torch.from_numpy(self.tokenizer.encode(prompt).ids).to(device)
                self._known[prompt] = F.normalize(
                    self.towers.text(ids[:, : self.towers.text.length]), dim=-1
                )[0]
        rows = torch.stack([self._known[prompt] for prompt in prompts])
        while len(self._known) > 4096:
            self._known.pop(next(iter(self._known)))
        return rows

    def __call__(self, frames: Tensor, text: Tensor) -> Tensor:
        """Scores [b] of (b, f, 3, s, s) in [0, 1] with s = ``wants.size``; others are resized."""
        x = normalised(resized(frames, self.wants.size), self.family.mean, self.family.deviation)
        if self.towers.visual.video:
            return (F.normalize(self.towers.visual(x.transpose(1, 2)), dim=-1) * text).sum(-1)
        pictures = F.normalize(self.towers.visual(x.flatten(0, 1)), dim=-1)
        return (pictures.unflatten(0, frames.shape[:2]) * text[:, None]).sum(-1).mean(1)
