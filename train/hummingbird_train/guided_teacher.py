"""What both stages of distillation share: a frozen teacher under guidance, prompts, and batches."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from hummingbird_runtime.errors import UsageError
from hummingbird_runtime.tokenizer import Tokenizer
from hummingbird_train.base import embedded_guidance
from hummingbird_train.data.clip_source import ClipSource
from hummingbird_train.models.text_encoder import TextEncoder
from hummingbird_train.models.unet import UNetConfig
from hummingbird_train.recipe import Phase
from hummingbird_train.sampling import Contexts
from hummingbird_train.world.grammar import caption
from hummingbird_train.world.scene import FPS, Scene

GuidanceForm = Literal["cfg", "lcm", "embedded"]
"""``cfg``: v_u + w (v_c - v_u), w = 1 is no guidance (Ho and Salimans 2022); ``lcm``:
v_c + w (v_c - v_u), w = 0 is none (Luo et al. 2023, equation 14; the published models);
``embedded``: one pass of a teacher that takes w as an input."""

LARGEST_FPS = 999


class GuidedTeacher:
    """A frozen network and how guidance is applied to it.

    Outputs are affine in x_0 and in eps with the same x_t part, so mixing them is mixing either.

    Args:
        unet: the network; it is frozen and put into evaluation mode.
        config: its shape.
        empty: context of the empty prompt, float32 [1, L, D].
        form: of guidance.

    Raises:
        UsageError: ``train.guidance`` for an unknown form, or ``embedded`` without an embedding.
    """

    def __init__(
        self, unet: nn.Module, config: UNetConfig, empty: Tensor, form: GuidanceForm
    ) -> None:
        if form not in get_args(GuidanceForm) or (
            form == "embedded" and config.time_cond_proj_dim is None
        ):
            raise UsageError(
                "train.guidance",
                f"form of guidance, got {form!r} for a teacher with a guidance embedding of width "
                f"{config.time_cond_proj_dim}, expected one of {', '.join(get_args(GuidanceForm))}"
                ", 'embedded' for a teacher that has one",
                hint="use cfg or lcm for a teacher of two passes",
            )
        self.unet = unet.requires_grad_(False).eval()
        self.width, self.empty, self.form = config.time_cond_proj_dim, empty, form

    def to(self, device: torch.device) -> None:
        """Move network and empty context."""
        self.unet.to(device)
        self.empty = self.empty.to(device)

    @torch.no_grad()
    def predict(
        self, x_t: Tensor, t: Tensor, context: Tensor, w: Tensor, conditions: dict[str, Any]
    ) -> Tensor:
        """The guided output, noise or velocity, float32 [b, c, f, h, w].

        Args:
            x_t: noisy latents [b, c, f, h, w].
            t: int64 [b].
            context: prompts [b, L, D].
            w: guidance scales [b].
            conditions: ``fps``, ``frame_indices`` and ``images`` of both passes.
        """
        if self.form == "embedded":
            row = embed(w, self.width)
            return self.unet(x_t, t, context, timestep_cond=row, **conditions).float()
        none = embed(torch.ones_like(w), self.width)
        prompted = self.unet(x_t, t, context, timestep_cond=none, **conditions).float()
        empty = self.empty.expand(len(x_t), -1, -1)
        unprompted = self.unet(x_t, t, empty, timestep_cond=none, **conditions).float()
        start = unprompted if self.form == "cfg" else prompted
        return start + w.view(-1, 1, 1, 1, 1).float() * (prompted - unprompted)


def embed(w: Tensor, width: int | None) -> Tensor | None:
    """Embedding of guidance scales: float32 [b, width]; None for a network without one."""
    if width is None:
        return None
    return embedded_guidance(w.double().cpu().numpy(), width).to(w.device)


class TowerContexts:
    """Prompts to contexts through a frozen text tower.

    Args:
        text: the tower.
        tokenizer: of the tower.
    """

    def __init__(self, text: TextEncoder, tokenizer: Tokenizer) -> None:
        self.text = text.requires_grad_(False).eval()
        self.tokenizer = tokenizer

    def to(self, device: torch.device) -> None:
        """Move the tower."""
        self.text.to(device)

    @torch.no_grad()
    def __call__(self, prompts: Sequence[str]) -> Tensor:
        """float32 [n, L, D]."""
        ids = np.concatenate([self.tokenizer.encode(prompt).ids for prompt in prompts])
        return self.text(torch.from_numpy(ids).to(next(self.text.parameters()).device))


@dataclass(frozen=True)
class Draw:
    """Clips of one step, on the CPU."""

    x_0: Tensor
    """Scaled latents [b, c, f, h, w]."""
    prompts: list[str]
    """b sentences."""
    context: Tensor
    """[b, L, D]."""
    fps: Tensor
    """int64 [b]."""
    frame_indices: Tensor
    """int64 [b, f]."""
    images: bool
    """Whether every sample is a single frame."""


def draw(
    clips: ClipSource[Any],
    contexts: Contexts,
    phase: Phase,
    images: bool,
    rng: np.random.Generator,
    *,
    partial_captions: float = 0.0,
) -> Draw:
    """The clips of one step with their prompts.

    Args:
        clips: encoded clips with captions, or with scenes of the tiny world.
        contexts: encodes prompts.
        phase: batch, frames and stride.
        images: take single frames.
        rng: the only source of randomness.
        partial_captions: share of scenes whose caption leaves size or background open.
    """
    frames = 1 if images else phase.frames
    count = phase.images_batch if images else phase.batch
    x_0, index, described = clips.sample(rng, count, frames, phase.stride)
    prompts = [_prompt(item, rng, partial_captions) for item in described]
    fps = min(max(int(getattr(clips, "fps", FPS)) // phase.stride, 1), LARGEST_FPS)
    return Draw(
        x_0,
        prompts,
        contexts(prompts),
        torch.full((len(x_0),), fps),
        torch.from_numpy(index),
        x_0.shape[2] == 1,
    )


def _prompt(item: str | Scene, rng: np.random.Generator, partial: float) -> str:
    if isinstance(item, str):
        return item
    return caption(item, rng, templates="partial" if rng.random() < partial else "train")


def draw_guidance(span: tuple[float, float], count: int, rng: np.random.Generator) -> Tensor:
    """Guidance scales float64 [count], uniform over ``span``."""
    return torch.from_numpy(rng.uniform(span[0], span[1], count))


def check_guidance(span: tuple[float, float], width: int | None) -> None:
    """Refuse ranges that a student cannot tell apart.

    Raises:
        UsageError: ``train.guidance``.
    """
    low, high = span
    if not low <= high or (width is None and low != high):
        raise UsageError(
            "train.guidance",
            f"guidance, got {low} to {high} for a student with an embedding of width {width}, "
            "expected a rising range, or one number twice for a student without an embedding",
            hint="give the student time_cond_proj_dim, or distil one scale",
        )


@contextlib.contextmanager
def outputs_of(network: nn.Module, paths: Sequence[str]) -> Iterator[list[Tensor]]:
    """Collect what the submodules at ``paths`` give, in the order in which they run."""
    found: list[Tensor] = []
    handles = [
        network.get_submodule(path).register_forward_hook(
            lambda module, arguments, output: found.append(output)
        )
        for path in paths
    ]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()
