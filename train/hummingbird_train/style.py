"""Stage `style`: a U-Net learns a look from a few clips or images, as a small file of its own.

The published model stays frozen; a change of low rank is trained on it (lora.py) by the diffusion
loss on the user's clips, at the guidance scale and, for models of a few steps, at the noise levels
that it is sampled at: elsewhere the change would be spent on inputs it never meets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from hummingbird_runtime.errors import UsageError
from hummingbird_runtime.facts import ModelFacts
from hummingbird_runtime.schedule import SchedulerConfig, timesteps
from hummingbird_train.data.clip_source import ClipSource
from hummingbird_train.data.latent_cache import ClipLatents
from hummingbird_train.devices import Placed
from hummingbird_train.diffusion import ForwardProcess, stratified_timesteps
from hummingbird_train.lora import LoraConfig, add_lora, low_ranks, save_adapter, set_strength
from hummingbird_train.models.unet import VideoUNet
from hummingbird_train.recipe import Phase
from hummingbird_train.sampling import Contexts
from hummingbird_train.style_sampling import guidance_condition

STYLE_FILE = "style.safetensors"
LARGEST_FPS = 999


@dataclass(frozen=True)
class StyleConfig:
    """What a style is trained with, besides its clips."""

    levels: Literal["sampler", "all"] = "sampler"
    """``sampler``: the timesteps of a default run, for models of a few steps (their consistency
    timesteps); ``all``: every timestep, for models sampled in many."""
    prior_weight: float = 0.0
    """Weight of staying with the base on prior clips; 0 leaves the prior out."""
    prior_share: float = 1.0
    """Prior clips per clip of the style, in a batch."""
    caption_dropout: float = 0.1
    """Share of captions left out; only for models that are sampled with an unprompted pass."""

    def __post_init__(self) -> None:
        shares = self.prior_share > 0 and 0 <= self.caption_dropout < 1 and self.prior_weight >= 0
        if self.levels not in ("sampler", "all") or not shares:
            raise UsageError(
                "style.options",
                f"style, got levels {self.levels!r}, prior_weight {self.prior_weight}, prior_share "
                f"{self.prior_share}, caption_dropout {self.caption_dropout}, expected 'sampler' "
                "or 'all', weights of 0 or more, a positive share, dropout in [0, 1)",
                hint="the defaults suit a model of a few steps",
            )


class StyleObjective(Placed):
    """Diffusion loss of a changed U-Net on the clips of a style.

    Args:
        unet: the published network; it is frozen and gets the change.
        clips: of the style, with captions.
        contexts: encodes those captions, and the empty one.
        scheduler: of the published model: schedule, prediction, noise levels.
        facts: its guidance, steps and rate.
        lora: size and place of the change.
        config: loss.
        prior: clips with captions that the base shall go on drawing as it does.
        seed: of the initial factors.
        name: written into the file, for people.

    Raises:
        UsageError: ``lora.targets``; ``style.options`` for a prior weight without prior clips.
    """

    def __init__(
        self,
        unet: VideoUNet,
        clips: ClipSource[str],
        contexts: Contexts,
        scheduler: SchedulerConfig,
        facts: ModelFacts,
        *,
        lora: LoraConfig,
        config: StyleConfig,
        prior: ClipSource[str] | None = None,
        seed: int = 0,
        name: str = "",
    ) -> None:
        if config.prior_weight and prior is None:
            raise UsageError(
                "style.options",
                f"style, got prior_weight {config.prior_weight} and no prior clips, expected both",
                hint="give prior clips, or prior_weight 0",
            )
        self.targets = add_lora(unet, lora, seed=seed)
        self.unet = unet.train()
        self.modules = {"unet": unet}
        self.clips, self.contexts, self.prior = clips, contexts, prior
        self.facts, self.config, self.name = facts, config, name
        self.process = ForwardProcess(scheduler)
        self.levels = timesteps(scheduler, facts.num_inference_steps.default)
        self.total = scheduler.num_train_timesteps
        self.rate = int(getattr(clips, "fps", facts.fps_condition.default))

    def loss(
        self, phase: Phase, images: bool, rng: np.random.Generator
    ) -> tuple[Tensor, dict[str, float]]:
        """Mean squared error on the style's clips, and on the prior's where there is one."""
        frames = 1 if images else phase.frames
        count = phase.images_batch if images else phase.batch
        kind = "image" if frames == 1 else "clip"
        x_0, index, captions = self.clips.sample(rng, count, frames, phase.stride)
        inputs = self._inputs(x_0, index, captions, phase.stride, rng)
        target = inputs.pop("target")
        loss = (self.unet(**inputs) - target).square().mean()
        numbers = {kind: float(loss.detach())}
        if self.prior is not None and self.config.prior_weight:
            kept = self._prior_loss(frames, count, phase.stride, rng)
            numbers["prior"] = float(kept.detach())
            loss = loss + self.config.prior_weight * kept
        return loss, numbers

    def _prior_loss(self, frames: int, count: int, stride: int, rng: np.random.Generator) -> Tensor:
        """Squared distance to what the base predicts on prior clips."""
        assert self.prior is not None
        count = max(1, round(count * self.config.prior_share))
        x_0, index, captions = self.prior.sample(rng, count, frames, stride)
        inputs = self._inputs(x_0, index, captions, stride, rng)
        del inputs["target"]
        with torch.no_grad():
            set_strength(self.unet, 0.0)
            try:
                base = self.unet(**inputs)
            finally:
                set_strength(self.unet, 1.0)
        return (self.unet(**inputs) - base).square().mean()

    def _inputs(
        self,
        x_0: Tensor,
        index: np.ndarray,
        captions: Sequence[str],
        stride: int,
        rng: np.random.Generator,
    ) -> dict[str, Any]:
        """Arguments of the U-Net for noised clips, and what it is to predict, ``target``."""
        count = len(x_0)
        t = self._timesteps(rng, count)
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        eps = torch.randn(x_0.shape, generator=generator)
        if self.facts.guidance.kind == "cfg":
            left_out = rng.random(count) < self.config.caption_dropout
            pairs = zip(captions, left_out, strict=True)
            captions = ["" if left else text for text, left in pairs]
        fps = min(max(round(self.rate / stride), 1), LARGEST_FPS)
        tables = self.process.signal.device
        drawn = x_0.to(tables), eps.to(tables), t.to(tables)
        x_t, target, t, context, w, fps, index = self.here(
            self.process.noised(*drawn),
            self.process.target(*drawn),
            t,
            self.contexts(captions),
            guidance_condition(self.facts, count),
            torch.full((count,), fps),
            torch.from_numpy(index),
        )
        return {
            "target": target,
            "sample": x_t,
            "timestep": t,
            "encoder_hidden_states": context,
            "timestep_cond": w,
            "fps": fps,
            "frame_indices": index,
            "images": x_0.shape[2] == 1,
        }

    def _timesteps(self, rng: np.random.Generator, count: int) -> Tensor:
        """int64 [count]: stratified over all, or over those of a default run."""
        if self.config.levels == "all":
            return stratified_timesteps(rng, count, self.total)
        places = stratified_timesteps(rng, count, self.total).numpy() * len(self.levels)
        return torch.from_numpy(self.levels[places // self.total])

    def save(self, folder: Path, weights: Mapping[str, Tensor]) -> None:
        """Write ``style.safetensors``, which the runtime applies, from averaged factors."""
        pairs = low_ranks(self.unet, weights, prefix="unet.")
        save_adapter(folder / STYLE_FILE, pairs, name=self.name)


def style_phases(
    clips: ClipLatents, *, steps: int, batch: int, rate: float, frames: int, stride: int
) -> tuple[Phase, ...]:
    """One phase on clips, every third step on single frames; on single frames alone for images."""
    common: dict[str, Any] = {
        "name": "style", "steps": steps, "learning_rate": rate, "final_learning_rate": 0.1 * rate,
        "warmup": min(20, max(1, steps // 10)),
    }  # fmt: skip
    longest = int(clips.lengths.max())
    frames = min(frames, (longest - 1) // stride + 1)
    if frames == 1:
        return (Phase(**common, batch=4 * batch),)
    mixed = {"images_every": 3, "images_batch": 4 * batch}
    return (Phase(**common, batch=batch, frames=frames, stride=stride, **mixed),)
