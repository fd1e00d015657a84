"""InternVideo2 stage 2 as a video reward, through the user's own checkout of its code.

The model is a large one with code of its own (Wang et al. 2024), so that code is imported from the
folder the user names; here are the choice of frames, the differentiable preprocessing and the
cosine, as the published training run has them.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from hummingbird_runtime.cli.verbs import missing_extra
from hummingbird_runtime.errors import InputError
from hummingbird_train.feedback.reward import FrameSpec, normalised, resized
from hummingbird_train.feedback.rewards.clip_reward import IMAGENET_MEAN, IMAGENET_STD

PACKAGE = "intern_vid2"
CONFIG = "configs/internvideo2_stage2_config.py"
TEXT_LENGTH = 40


class InternVideoReward:
    """Cosine of prompt and clip.

    Args:
        model: has ``get_vid_feat_with_grad(b, f, 3, 224, 224)``, ``encode_text`` and ``text_proj``.
        tokenizer: called as a Hugging Face tokenizer.
        frames: shown, 4 for the published weights.
        size: height and width.
    """

    name = "internvideo2"
    differentiable = True

    def __init__(self, model: Any, tokenizer: Any, *, frames: int = 4, size: int = 224) -> None:
        self.model, self.tokenizer = model.requires_grad_(False).eval(), tokenizer
        self.wants = FrameSpec(frames, "strided", size)

    @classmethod
    def open(cls, checkout: Path, weights: Path, *, frames: int = 4) -> InternVideoReward:
        """Import the code from ``checkout`` and load ``weights``.

        Args:
            checkout: folder that holds the package ``intern_vid2`` (T2V-Turbo's repository).
            weights: the published checkpoint.
            frames: shown.

        Raises:
            InputError: ``feedback.checkout`` or ``checkpoint.missing``.
            ResourceError: ``extra.missing`` for a package that its code needs.
        """
        if not (checkout / PACKAGE / CONFIG).is_file():
            raise InputError(
                "feedback.checkout",
                f"code of InternVideo2, got no {PACKAGE}/{CONFIG} in {checkout}, expected a "
                "checkout that has it",
                hint="clone the T2V-Turbo repository and name its folder",
            )
        if not weights.is_file():
            raise InputError(
                "checkpoint.missing",
                f"weights {weights}, got no such file, expected InternVideo2's",
                hint="check the path",
            )
        sys.path.insert(0, str(checkout))
        try:
            config_code = importlib.import_module(f"{PACKAGE}.demo_config")
            set_up = importlib.import_module(f"{PACKAGE}.demo_utils").setup_internvideo2
        except ModuleNotFoundError as error:
            raise missing_extra("the InternVideo2 reward", error.name or "", "feedback") from error
        finally:
            sys.path.remove(str(checkout))
        config = config_code.eval_dict_leaf(
            config_code.Config.from_file(str(checkout / PACKAGE / CONFIG))
        )
        config["inputs"]["video_input"]["num_frames"] = frames
        config["inputs"]["video_input"]["num_frames_test"] = frames
        config["model"]["vision_encoder"]["num_frames"] = frames
        config["model"]["vision_encoder"]["pretrained"] = str(weights)
        config["pretrained_path"] = str(weights)
        return cls(*set_up(config), frames=frames)

    def to(self, device: torch.device) -> None:
        """Move the model."""
        self.model.to(device)

    @torch.no_grad()
    def encode_text(self, prompts: list[str]) -> Tensor:
        """Unit embeddings [b, d]."""
        text = self.tokenizer(
            prompts,
            padding="max_length",
            truncation=True,
            max_length=TEXT_LENGTH,
            return_tensors="pt",
        ).to(next(self.model.parameters()).device)
        _, pooled = self.model.encode_text(text)
        return F.normalize(self.model.text_proj(pooled), dim=-1)

    def __call__(self, frames: Tensor, text: Tensor) -> Tensor:
        """Scores [b] of (b, f, 3, s, s) in [0, 1] with s = ``wants.size``; others are resized."""
        x = normalised(resized(frames, self.wants.size), IMAGENET_MEAN, IMAGENET_STD)
        return (F.normalize(self.model.get_vid_feat_with_grad(x), dim=-1) * text).sum(-1)
