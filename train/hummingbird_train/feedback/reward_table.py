"""From a recipe's tables to the objective of stage `feedback`.

[feedback.config] holds the fields of ``FeedbackConfig`` without ``calls`` and ``augmentation``;
[feedback.mix], [feedback.decode] and [feedback.augmentation] those of their classes; each
[[feedback.rewards]] one ``RewardEntry``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hummingbird_runtime.errors import UsageError
from hummingbird_runtime.scheduler_config import SchedulerConfig
from hummingbird_train.feedback.augmentation import Augmentation
from hummingbird_train.feedback.decode import DecodeConfig, FrameDecoder
from hummingbird_train.feedback.judge import load_judge
from hummingbird_train.feedback.mix import MixConfig, RewardMix, Term, real_quantile
from hummingbird_train.feedback.objective import Anchor, FeedbackConfig, FeedbackObjective
from hummingbird_train.feedback.prompt_labels import CLASSES
from hummingbird_train.feedback.reward import RewardModel, resized
from hummingbird_train.feedback.rewards.clip_reward import FAMILIES, ClipReward
from hummingbird_train.feedback.rewards.internvideo import InternVideoReward
from hummingbird_train.feedback.rewards.judge_net import JudgeReward
from hummingbird_train.feedback.rewards.pixel import Redness, SoftColour, SoftMotion
from hummingbird_train.models.autoencoder import AutoencoderKL
from hummingbird_train.models.tiny_decoder import TinyDecoder
from hummingbird_train.recipe import section
from hummingbird_train.world.grammar import caption
from hummingbird_train.world.render import render
from hummingbird_train.world.scene import FRAMES, sample_scene

PIXEL: dict[str, Callable[[], RewardModel]] = {
    "colour": SoftColour,
    "motion": SoftMotion,
    "redness": Redness,
}
NAMES = (*PIXEL, "judge", *FAMILIES, "internvideo2")

JUDGE_A, JUDGE_B = Path("a", "judge.safetensors"), Path("b", "judge.safetensors")

RealClips = Callable[[int], tuple[Tensor, list[str]]]
"""n -> frames (n, f, 3, H, W) in [0, 1] of real clips and their captions."""


@dataclass(frozen=True)
class RewardEntry:
    """One [[feedback.rewards]] table."""

    name: str
    """One of ``NAMES``."""
    weight: float = 1.0
    """Of the normalised reward."""
    schedule: str = "constant"
    """Of the weight after the warm-up: constant, linear or cosine."""
    every_n: int = 1
    """Steps between two uses."""
    share: float | None = None
    """Cap of its gradient, over the anchor's; none: the mix's."""
    weights: str = ""
    """File of the model; not for the programmatic ones. A judge's default is the run's own."""
    tokenizer: str = ""
    """Folder of CLIP's tokenizer, for CLIP-type towers."""
    checkout: str = ""
    """Folder with InternVideo2's code."""
    attributes: tuple[str, ...] = ()
    """What a judge is asked about; empty for everything that the prompt names."""


def open_reward(entry: RewardEntry, judges: Path = Path()) -> RewardModel:
    """Load the model of an entry; ``judges`` is the folder of `hummingbird train judge`.

    Raises:
        UsageError: ``feedback.reward_name`` for an unknown name.
        InputError: for files that are missing or of something else.
    """
    if entry.name in PIXEL:
        return PIXEL[entry.name]()
    if entry.name == "judge":
        judge = load_judge(Path(entry.weights) if entry.weights else judges / JUDGE_A)
        return JudgeReward(judge, attributes=entry.attributes or tuple(CLASSES))
    if entry.name in FAMILIES:
        return ClipReward.open(entry.name, Path(entry.weights), Path(entry.tokenizer))
    if entry.name == "internvideo2":
        return InternVideoReward.open(Path(entry.checkout), Path(entry.weights))
    raise UsageError(
        "feedback.reward_name",
        f"reward model, got {entry.name!r}, expected one of {', '.join(NAMES)}",
        hint="correct the recipe",
    )


@torch.no_grad()
def calibrated(
    term: Term, frames: Tensor, captions: Sequence[str], quantile: float, *, batch: int = 16
) -> Term:
    """The term with ``clip_at`` the quantile of what real clips earn for their own captions.

    Args:
        term: to calibrate.
        frames: (n, f, 3, H, W) in [0, 1].
        captions: n sentences.
        quantile: 0 to 1.
        batch: clips scored together.
    """
    model, rng = term.model, np.random.default_rng(0)
    scores = []
    for start in range(0, len(frames), batch):
        part = frames[start : start + batch]
        index = torch.from_numpy(model.wants.choose(part.shape[1], rng))
        text = model.encode_text(list(captions[start : start + batch]))
        scores.append(model(resized(part[:, index], model.wants.size), text))
    return dataclasses.replace(term, clip_at=real_quantile(torch.cat(scores), quantile))


def world_clips(tier: int = 1, seed: int = 0) -> RealClips:
    """Real clips of the tiny world: rendered, 26 frames, with training captions."""

    def draw(count: int) -> tuple[Tensor, list[str]]:
        rng = np.random.default_rng([0x7265616C, seed])
        scenes = [sample_scene(rng, tier=tier) for _ in range(count)]
        frames = torch.from_numpy(render(scenes, range(FRAMES)))
        captions = [caption(scene, rng) for scene in scenes]
        return frames.permute(0, 1, 4, 2, 3).float().div_(255.0), captions

    return draw


def feedback_objective(
    consistency: Anchor,
    table: dict[str, Any],
    *,
    decoder: AutoencoderKL | TinyDecoder,
    scaling_factor: float,
    scheduler: SchedulerConfig,
    calls: int,
    real: RealClips,
    real_clips: int = 64,
    judges: Path = Path(),
    samples: Callable[[Path, int], None] | None = None,
) -> FeedbackObjective:
    """The objective that a [feedback] table describes.

    Args:
        consistency: the anchor.
        table: [feedback] of the recipe; only the tables named above are read.
        decoder: latents to pixels; frozen here.
        scaling_factor: of the latents.
        scheduler: that the student ships with, `consistency.student_schedule`.
        calls: micro-batches per rank of the whole run.
        real: real clips, for the clip levels.
        real_clips: how many of them.
        judges: folder of `hummingbird train judge`.
        samples: see ``FeedbackObjective``.

    Raises:
        InputError: ``recipe.keys``, and those of ``open_reward``.
        UsageError: ``feedback.mix``, ``feedback.config``, ``feedback.reward_name``.
    """
    augmentation = section(Augmentation, table.get("augmentation", {}), "feedback.augmentation")
    values = {**table.get("config", {}), "calls": calls, "augmentation": augmentation}
    config = section(FeedbackConfig, values, "feedback.config")
    mix = section(MixConfig, table.get("mix", {}), "feedback.mix")
    frames, captions = real(real_clips)
    terms = []
    for number, own in enumerate(table.get("rewards", [])):
        entry = section(RewardEntry, own, f"feedback.rewards[{number}]")
        term = Term(
            open_reward(entry, judges),
            entry.weight,
            entry.schedule,
            entry.every_n,
            share=entry.share,
        )
        terms.append(calibrated(term, frames, captions, mix.clip_quantile))
    decode = section(DecodeConfig, table.get("decode", {}), "feedback.decode")
    return FeedbackObjective(
        consistency,
        RewardMix(terms, mix),
        FrameDecoder(decoder, scaling_factor, decode),
        config,
        scheduler=scheduler,
        samples=samples,
    )
