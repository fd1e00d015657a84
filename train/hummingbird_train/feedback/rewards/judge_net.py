"""A learned judge as a reward: mean log-probability of the attributes that a prompt names."""

from __future__ import annotations

import torch
from torch import Tensor

from hummingbird_train.feedback.judge import Judge
from hummingbird_train.feedback.prompt_labels import CLASSES, OPEN, prompt_labels
from hummingbird_train.feedback.reward import FrameSpec
from hummingbird_train.world.scene import SIZE


class JudgeReward:
    """Higher where the judge reads what the prompt asks for; at most 0.

    Args:
        judge: frozen network.
        name: of the term.
        attributes: those that count.
    """

    differentiable = True

    def __init__(
        self, judge: Judge, name: str = "judge", attributes: tuple[str, ...] = tuple(CLASSES)
    ) -> None:
        self.judge = judge.requires_grad_(False).eval()
        self.name = name
        self.wants = FrameSpec(judge.config.frames, "strided", SIZE)
        self.counted = torch.tensor([attribute in attributes for attribute in CLASSES])

    def to(self, device: torch.device) -> None:
        """Move the judge."""
        self.judge.to(device)

    def encode_text(self, prompts: list[str]) -> Tensor:
        """Labels int64 [b, 5]."""
        return prompt_labels(prompts)

    def __call__(self, frames: Tensor, text: Tensor) -> Tensor:
        """Scores [b] of (b, f, 3, 64, 64); 0 where the prompt names nothing."""
        logits = self.judge(frames)
        text = text.to(frames.device)
        named = (text != OPEN) & self.counted.to(frames.device)  # (b, 5)
        chosen = [
            logits[name].float().log_softmax(dim=1).gather(1, text[:, i : i + 1].clamp(min=0))
            for i, name in enumerate(CLASSES)
        ]
        logs = torch.cat(chosen, dim=1)  # (b, 5)
        return (logs * named).sum(dim=1) / named.sum(dim=1).clamp(min=1)
