"""Stage `judge`: a learned judge of the tiny world, on clips rendered as they are needed.

Frames are evenly spaced at stride 2 or 3 from a random start, softened and made noisy, so that the
judge reads what a decoder draws as well as what the renderer does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from hummingbird_train.devices import Placed
from hummingbird_train.feedback.augmentation import Augmentation
from hummingbird_train.feedback.judge import Judge, JudgeConfig, save_judge
from hummingbird_train.feedback.prompt_labels import CLASSES, scene_labels
from hummingbird_train.recipe import Phase
from hummingbird_train.world.render import render
from hummingbird_train.world.scene import FRAMES, Scene, sample_scene


@dataclass(frozen=True)
class JudgeTraining:
    """What a judge is trained on."""

    tier: int = 2
    """Of the world; 2 holds tier 1, and a judge that knows diagonals does not call them "left"."""
    tier_1_share: float = 0.5
    """Share of scenes drawn from tier 1 all the same, in tier 2."""
    strides: tuple[int, ...] = (2, 3)
    """World frames between two shown ones, drawn per batch."""
    augmentation: Augmentation = field(
        default_factory=lambda: Augmentation(shift=2, blur=1.0, noise=0.04)
    )


class JudgeObjective(Placed):
    """Cross-entropy of the five attributes, summed.

    Args:
        config: shape of the judge.
        training: data.
        seed: of the initial weights; the data come from the run's seed.
    """

    def __init__(self, config: JudgeConfig, training: JudgeTraining, *, seed: int) -> None:
        torch.manual_seed(seed)
        self.judge, self.training = Judge(config), training
        self.modules = {"judge": self.judge}

    def loss(
        self, phase: Phase, images: bool, rng: np.random.Generator
    ) -> tuple[Tensor, dict[str, float]]:
        """Loss of ``phase.batch`` clips."""
        training = self.training
        scenes = [
            sample_scene(rng, tier=1 if rng.random() < training.tier_1_share else training.tier)
            for _ in range(phase.batch)
        ]
        stride = int(rng.choice(training.strides))
        frames = rendered(scenes, self.judge.config.frames, stride, rng)
        frames = training.augmentation(frames, rng)
        frames, labels = self.here(frames, scene_labels(scenes))
        logits = self.judge(frames)
        losses = {
            name: F.cross_entropy(logits[name], labels[:, i]) for i, name in enumerate(CLASSES)
        }
        hits = {
            name: float((logits[name].argmax(1) == labels[:, i]).float().mean())
            for i, name in enumerate(CLASSES)
        }
        return torch.stack(list(losses.values())).sum(), hits

    def save(self, folder: Path, weights: Mapping[str, Tensor]) -> None:
        """Write ``judge.safetensors`` from averaged weights."""
        own = {n.removeprefix("judge."): t for n, t in weights.items()}
        save_judge(folder / "judge.safetensors", self.judge, own)


def rendered(scenes: Sequence[Scene], count: int, stride: int, rng: np.random.Generator) -> Tensor:
    """Float (b, count, 3, 64, 64) in [0, 1], world frames ``stride`` apart from a drawn start."""
    start = int(rng.integers(FRAMES - (count - 1) * stride))
    frames = render(scenes, [start + stride * i for i in range(count)])
    return torch.from_numpy(frames).permute(0, 1, 4, 2, 3).float().div_(255.0)


@torch.no_grad()
def accuracy(judge: Judge, frames: Tensor, scenes: Sequence[Scene]) -> dict[str, float]:
    """Share of right answers by attribute on (b, f, 3, 64, 64), 64 clips at a time."""
    labels = scene_labels(scenes)
    right = dict.fromkeys(CLASSES, 0.0)
    for part, truth in zip(frames.split(64), labels.split(64), strict=True):
        logits = judge(part)
        for i, name in enumerate(CLASSES):
            right[name] += float((logits[name].argmax(1).cpu() == truth[:, i]).sum())
    return {name: hits / len(scenes) for name, hits in right.items()}
