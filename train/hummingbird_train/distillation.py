"""Stage `distill`: a pruned student learns its teacher's guided prediction (Hummingbird, stage 1).

The published loss is the squared distance between the student's output and the teacher's
classifier-free guided one at scale 12. Optional terms compare features at the ends of levels.
Healing (0.7 B from 0.9 B) is the same with ``form = "embedded"``: one pass of a guided teacher.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hummingbird_runtime.errors import UsageError
from hummingbird_runtime.schedule import SchedulerConfig, rescale_factors
from hummingbird_train.autoencoder import save_averaged
from hummingbird_train.base import torch_generator
from hummingbird_train.data.clip_source import ClipSource
from hummingbird_train.devices import Placed
from hummingbird_train.diffusion import ForwardProcess, stratified_timesteps
from hummingbird_train.guided_teacher import (
    GuidanceForm,
    GuidedTeacher,
    check_guidance,
    draw,
    draw_guidance,
    embed,
    outputs_of,
)
from hummingbird_train.models.unet import UNetConfig, VideoUNet
from hummingbird_train.pruning.plan import levels
from hummingbird_train.recipe import Phase
from hummingbird_train.sampling import Contexts


@dataclass(frozen=True)
class DistillationConfig:
    """Guidance and terms of stage 1; defaults are the published ones."""

    guidance: tuple[float, float] = (12.0, 12.0)
    """Lowest and highest scale; drawn uniformly and given to a student with an embedding of it."""
    form: GuidanceForm = "cfg"
    """How the teacher is guided; ``embedded`` heals against a guided teacher in one pass."""
    output_weight: float = 1.0
    """Of the squared distance of predictions."""
    feature_weight: float = 0.0
    """Of the relative squared distance of features, averaged over the ends of levels."""
    partial_captions: float = 0.15
    """Share of the tiny world's captions that leave size or background open."""


def level_ends(config: UNetConfig) -> list[str]:
    """Paths of the last block of each level, down then up, in the order in which they run."""
    found = levels(config)
    return [down[-1] for down in found.down] + [up[-1] for up in reversed(found.up)]


def relative_distance(a: Tensor, b: Tensor) -> Tensor:
    """Mean squared difference over the mean square of ``b``: a scalar, equal for every scale."""
    a, b = a.float(), b.float()
    return (a - b).square().mean() / b.square().mean().clamp(min=1e-12)


class DistillationObjective(Placed):
    """Student against guided teacher on noised clips.

    Args:
        unet: the student; all of it is trained.
        unet_config: its shape.
        teacher: the larger network; it is frozen.
        teacher_config: its shape.
        contexts: encodes prompts, and the empty one.
        clips: encoded clips.
        schedule: of both networks, with its dynamic rescale where there is one.
        config: guidance and terms.

    Raises:
        UsageError: ``train.guidance``; ``train.features`` when levels differ between the networks.
    """

    def __init__(
        self,
        unet: VideoUNet,
        unet_config: UNetConfig,
        teacher: VideoUNet,
        teacher_config: UNetConfig,
        contexts: Contexts,
        clips: ClipSource[Any],
        schedule: SchedulerConfig,
        config: DistillationConfig,
    ) -> None:
        check_guidance(config.guidance, unet_config.time_cond_proj_dim)
        self.unet, self.unet_config = unet.train(), unet_config
        self.modules = {"unet": unet}
        with torch.no_grad():
            empty = contexts([""])
        self.teacher = GuidedTeacher(teacher, teacher_config, empty, config.form)
        self.contexts, self.clips, self.config = contexts, clips, config
        self.process = ForwardProcess(schedule)
        self.rescale = torch.from_numpy(rescale_factors(schedule)).float()
        self.total = schedule.num_train_timesteps
        self.ends: tuple[list[str], list[str]] = ([], [])
        if config.feature_weight:
            self.ends = level_ends(unet_config), level_ends(teacher_config)
            shapes = [
                [c.model_channels * m for m in c.channel_mult]
                for c in (unet_config, teacher_config)
            ]
            if shapes[0] != shapes[1]:
                raise UsageError(
                    "train.features",
                    f"feature terms, got levels of widths {shapes[0]} and {shapes[1]}, "
                    "expected equal ones",
                    hint="set feature_weight to 0",
                )

    def loss(
        self, phase: Phase, images: bool, rng: np.random.Generator
    ) -> tuple[Tensor, dict[str, float]]:
        """Squared distance to the guided prediction, and to the prompted pass's features."""
        batch = draw(
            self.clips, self.contexts, phase, images, rng,
            partial_captions=self.config.partial_captions,
        )  # fmt: skip
        count = len(batch.x_0)
        t = stratified_timesteps(rng, count, self.total)
        eps = torch.randn(batch.x_0.shape, generator=torch_generator(rng))
        tables = self.process.signal.device
        scale = self.rescale.to(tables)[t.to(tables)].view(-1, 1, 1, 1, 1)
        x_t = self.process.noised(batch.x_0.to(tables) * scale, eps.to(tables), t.to(tables))
        w = draw_guidance(self.config.guidance, count, rng)
        x_t, t, context, w, fps, index = self.here(
            x_t, t, batch.context, w, batch.fps, batch.frame_indices
        )
        conditions = {"fps": fps, "frame_indices": index, "images": batch.images}
        with outputs_of(self.teacher.unet, self.ends[1]) as wanted:
            target = self.teacher.predict(x_t, t, context, w, conditions)
        with outputs_of(self.unet, self.ends[0]) as got:
            row = embed(w, self.unet_config.time_cond_proj_dim)
            output = self.unet(x_t, t, context, timestep_cond=row, **conditions).float()
        loss = (output - target).square().mean()
        numbers = {"image" if batch.images else "clip": float(loss.detach())}
        loss = self.config.output_weight * loss
        if self.config.feature_weight:
            # Of the two passes the prompted one runs first: its features are the first of `wanted`.
            pairs = zip(got, wanted[: len(got)], strict=True)
            feature = torch.stack([relative_distance(a, b) for a, b in pairs]).mean()
            numbers["feature"] = float(feature.detach())
            loss = loss + self.config.feature_weight * feature
        return loss, numbers

    def save(self, folder: Path, weights: Mapping[str, Tensor]) -> None:
        """Write ``unet.safetensors`` from averaged weights."""
        save_averaged(folder / "unet.safetensors", self.unet, self.unet_config, weights, "unet")
