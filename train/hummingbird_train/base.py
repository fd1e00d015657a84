"""Stages `base` and `teacher`: v-prediction on cached latents, images before clips.

The U-Net is the guidance-embedded one from the start: these stages run it at w = 1 (no guidance),
so that stage `distill` only has to teach it what other w mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hummingbird_runtime.guidance import guidance_embedding
from hummingbird_runtime.schedule import SchedulerConfig
from hummingbird_runtime.tokenizer import Tokenizer
from hummingbird_train.autoencoder import save_averaged
from hummingbird_train.devices import Placed
from hummingbird_train.diffusion import ForwardProcess, stratified_timesteps
from hummingbird_train.latents import LatentCache
from hummingbird_train.models.text_encoder import TextEncoder
from hummingbird_train.models.unet import VideoUNet
from hummingbird_train.recipe import Phase
from hummingbird_train.world.grammar import caption
from hummingbird_train.world.scene import FPS, FRAMES, Scene, trajectory

PLACE_MEAN, PLACE_STD = (32.0, 32.0, 14.0), (6.2, 6.4, 3.7)
"""Pixels, over frames of tier-1 clips."""


@dataclass(frozen=True)
class BaseConfig:
    """What the diffusion stages share."""

    caption_dropout: float = 0.1
    """Share of samples trained with the empty prompt, for classifier-free guidance."""
    partial_captions: float = 0.15
    """Share of captions that leave size or background open."""
    cache_clips: int = 8000
    tier: int = 1
    place_weight: float = 1.0
    """Weight of the error of the object's place, for a network with ``place_planes``."""


def world_schedule() -> SchedulerConfig:
    """VideoCrafter2's betas rescaled to zero terminal SNR, v-prediction, trailing DDIM steps."""
    return SchedulerConfig(
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        sampler="ddim",
    )


class Captioner:
    """Scenes or captions to token ids, with caption dropout; scenes with partial captions."""

    def __init__(self, tokenizer: Tokenizer, dropout: float, partial: float) -> None:
        self.tokenizer, self.dropout, self.partial = tokenizer, dropout, partial
        self.empty = tokenizer.encode("").ids

    def ids(self, scenes: Sequence[Scene | str], rng: np.random.Generator) -> Tensor:
        """int64 [b, L]; each caption dropped with the configured probability."""
        rows = [
            self.empty if rng.random() < self.dropout
            else self.tokenizer.encode(self._caption(scene, rng)).ids
            for scene in scenes
        ]  # fmt: skip
        return torch.from_numpy(np.concatenate(rows))

    def _caption(self, scene: Scene | str, rng: np.random.Generator) -> str:
        if isinstance(scene, str):
            return scene
        return caption(scene, rng, templates="partial" if rng.random() < self.partial else "train")


def embedded_guidance(w: np.ndarray, dim: int) -> Tensor:
    """float32 [b, dim] from guidance scales float [b]."""
    return torch.from_numpy(np.concatenate([guidance_embedding(float(x), dim) for x in w]))


def places_of(scenes: Sequence[Scene], index: np.ndarray) -> Tensor:
    """Centre x, centre y and radius of objects, each over the world's mean and deviation.

    Args:
        scenes: n scenes.
        index: int [n, f], frames.

    Returns:
        float32 [n, f, 3].
    """
    moments = index / (FRAMES - 1)
    paths = [trajectory([scene], t)[:3] for scene, t in zip(scenes, moments, strict=True)]
    found = np.array([np.concatenate(path) for path in paths])  # (n, 3, f)
    return torch.from_numpy((found.transpose(0, 2, 1) - PLACE_MEAN) / PLACE_STD).float()


class BaseObjective(Placed):
    """v-prediction on sub-clips, captions dropped now and then.

    A network with ``place_planes`` and a text tower in training also learn where scenes have their
    objects: the diffusion loss alone does not teach the tower to tell "left" from "right".

    Args:
        unet: network to train.
        text: its text tower.
        cache: encoded clips.
        tokenizer: of the world.
        config: dropout and so on.
        train_text: train the tower as well; else it is frozen.
    """

    def __init__(
        self,
        unet: VideoUNet,
        text: TextEncoder,
        cache: LatentCache,
        tokenizer: Tokenizer,
        config: BaseConfig,
        *,
        train_text: bool = True,
    ) -> None:
        self.unet, self.text = unet.train(), text.requires_grad_(train_text)
        self.train_text = train_text
        self.modules = {"unet": unet, "text": text} if train_text else {"unet": unet}
        self.cache = cache
        self.captioner = Captioner(tokenizer, config.caption_dropout, config.partial_captions)
        self.process = ForwardProcess(world_schedule())
        self.place_weight = config.place_weight if unet.config.place_planes else 0.0
        width = unet.config.time_cond_proj_dim
        self.no_guidance = None if width is None else embedded_guidance(np.ones(1), width)

    def loss(
        self, phase: Phase, images: bool, rng: np.random.Generator
    ) -> tuple[Tensor, dict[str, float]]:
        """Mean squared error of v on one batch."""
        frames = 1 if images else phase.frames
        count = phase.images_batch if images else phase.batch
        x_0, index, scenes = self.cache.sample(rng, count, frames, phase.stride, phase.first_frames)
        t = stratified_timesteps(rng, count, shift=phase.timestep_shift)
        eps = torch.randn(x_0.shape, generator=torch_generator(rng))
        w = None if self.no_guidance is None else self.no_guidance.expand(count, -1)
        x_0, eps, t, ids, w, fps, rows = self.here(
            x_0,
            eps,
            t,
            self.captioner.ids(scenes, rng),
            w,
            torch.full((count,), max(1, FPS // phase.stride)),
            torch.from_numpy(index),
        )
        context = self.text(ids)
        output = self.unet(
            self.process.noised(x_0, eps, t),
            t,
            context,
            timestep_cond=w,
            fps=fps,
            frame_indices=rows,
            images=frames == 1,
        )
        loss = (output.float() - self.process.target(x_0, eps, t)).square().mean()
        numbers = {"image" if frames == 1 else "clip": float(loss.detach())}
        if self.place_weight and self.train_text:
            (places,) = self.here(places_of(scenes, index))
            error = (self.unet.place_planes.place(context, rows) - places).square().mean()
            numbers["place"] = float(error.detach())
            loss = loss + self.place_weight * error
        return loss, numbers

    def save(self, folder: Path, weights: Mapping[str, Tensor]) -> None:
        """Write ``unet.safetensors``, and ``text.safetensors`` if trained, from averages."""
        save_averaged(folder / "unet.safetensors", self.unet, self.unet.config, weights, "unet")
        if self.train_text:
            save_averaged(folder / "text.safetensors", self.text, self.text.config, weights, "text")


def torch_generator(rng: np.random.Generator) -> torch.Generator:
    """A torch generator seeded from a NumPy one."""
    return torch.Generator().manual_seed(int(rng.integers(2**62)))
