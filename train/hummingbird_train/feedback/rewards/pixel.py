"""Rewards that are formulas on pixels, for the tiny world: soft colour, soft motion, redness.

The object is found as the exact judge does, by its distance to the nearest known background, with a
sigmoid in place of the threshold. ``Redness`` ignores the prompt: it is there to be gamed, so that
the guard can be seen to work.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from hummingbird_train.feedback.prompt_labels import CLASSES, OPEN, prompt_labels
from hummingbird_train.feedback.reward import FrameSpec
from hummingbird_train.world.render import background_images
from hummingbird_train.world.scene import DIRECTIONS, PALETTE, SIZE

CONTRAST = 45.0 / 255.0  # RGB distance at which a pixel is half object, the exact judge's
SOFTNESS = 8.0 / 255.0
COLOUR_WIDTH = 60.0 / 255.0  # RGB distance at which the colour reward has fallen to exp(-1/2)
RIM = 4  # px
FULL_TRAVEL = 20.0 / SIZE  # shortest path of a moving object of the world, in frame heights
FULL_GROWTH = float(np.log(1.8))  # smallest growth of the world, log of the ratio of radii


@lru_cache(maxsize=1)
def _backdrops() -> Tensor:
    images = background_images(SIZE)
    return torch.from_numpy(np.stack([images[n] for n in CLASSES["background"]]) / 255.0).float()


def soft_mask(frames: Tensor) -> Tensor:
    """Share of object in each pixel.

    Args:
        frames: (b, f, 3, 64, 64) in [0, 1].

    Returns:
        (b, f, 64, 64) in 0..1. Which background it is, is decided without gradient.
    """
    known = _backdrops().to(frames)  # (k, 3, h, w)
    rim = torch.ones(frames.shape[-2:], dtype=torch.bool, device=frames.device)
    rim[RIM:-RIM, RIM:-RIM] = False
    with torch.no_grad():
        seen = frames.median(dim=1).values[..., rim]  # (b, 3, p)
        distance = (known[None, ..., rim] - seen[:, None]).norm(dim=2).mean(dim=2)  # (b, k)
        nearest = known[distance.argmin(dim=1)]  # (b, 3, h, w)
    offset = (frames - nearest[:, None]).square().sum(dim=2).add(1e-8).sqrt()
    return torch.sigmoid((offset - CONTRAST) / SOFTNESS)


def centroids(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Centre (x, y) in frame sizes (b, f, 2) and log of the root of the area (b, f) of a mask."""
    height, width = mask.shape[-2:]
    x = (torch.arange(width, device=mask.device, dtype=mask.dtype) + 0.5) / width
    y = (torch.arange(height, device=mask.device, dtype=mask.dtype) + 0.5) / height
    area = mask.sum(dim=(2, 3)) + 1e-3
    centre = torch.stack([mask.sum(dim=2) @ x, mask.sum(dim=3) @ y], dim=-1) / area[..., None]
    return centre, 0.5 * area.log()


def slopes(values: Tensor) -> Tensor:
    """Least-squares change over the whole clip of (b, f, ...): (b, ...); f >= 2."""
    f = values.shape[1]
    t = torch.linspace(-0.5, 0.5, f, device=values.device, dtype=values.dtype)
    shape = (1, f, *[1] * (values.dim() - 2))
    return (values * t.view(shape)).sum(dim=1) / t.square().sum()


class SoftColour:
    """How much of the object has the prompt's colour: 0..1; 0 where the prompt names none."""

    name = "pixel_colour"
    differentiable = True

    def __init__(self, frames: int = 3) -> None:
        self.wants = FrameSpec(frames, "random", SIZE)

    def encode_text(self, prompts: list[str]) -> Tensor:
        """Colour numbers int64 [b]."""
        return prompt_labels(prompts)[:, list(CLASSES).index("colour")]

    def __call__(self, frames: Tensor, text: Tensor) -> Tensor:
        """Scores [b] of (b, f, 3, 64, 64)."""
        palette = torch.tensor([PALETTE[n] for n in CLASSES["colour"]]).to(frames) / 255.0
        text = text.to(frames.device)
        wanted = palette[text.clamp(min=0)][:, None, :, None, None]  # (b, 1, 3, 1, 1)
        error = (frames - wanted).square().sum(dim=2)  # (b, f, h, w)
        likeness = torch.exp(-0.5 * error / COLOUR_WIDTH**2)
        mask = soft_mask(frames)
        share = (mask * likeness).sum(dim=(1, 2, 3)) / (mask.sum(dim=(1, 2, 3)) + 1.0)
        return torch.where(text == OPEN, 0.0, share)


class SoftMotion:
    """How much of the prompt's motion the object makes: at most 1; 0 where the prompt names none.

    Directions: travel along the direction less travel across, full at the world's shortest path.
    Growth: change of log radius. Still: minus what there is of either. Other motions score 0.
    """

    name = "pixel_motion"
    differentiable = True

    def __init__(self, frames: int = 6) -> None:
        self.wants = FrameSpec(frames, "strided", SIZE)

    def encode_text(self, prompts: list[str]) -> Tensor:
        """Motion numbers int64 [b]."""
        return prompt_labels(prompts)[:, list(CLASSES).index("motion")]

    def __call__(self, frames: Tensor, text: Tensor) -> Tensor:
        """Scores [b] of (b, f, 3, 64, 64), f >= 2."""
        centre, log_radius = centroids(soft_mask(frames))
        travel = slopes(centre) / FULL_TRAVEL  # (b, 2)
        growth = slopes(log_radius) / FULL_GROWTH  # (b,)
        scores = []
        for move, grow, number in zip(travel, growth, text.tolist(), strict=True):
            name = None if number == OPEN else CLASSES["motion"][number]
            if name in DIRECTIONS:
                way = move.new_tensor(DIRECTIONS[name])
                across = move[0] * way[1] - move[1] * way[0]
                scores.append((move @ way).clamp(max=1.0) - across.abs())
            elif name in ("growing", "shrinking"):
                scores.append((grow if name == "growing" else -grow).clamp(max=1.0))
            elif name == "still":
                scores.append(-(move.square().sum() + grow.square() + 1e-8).sqrt())
            else:
                scores.append(0.0 * grow)
        return torch.stack(scores)


class Redness:
    """Mean of red less the mean of green and blue, whatever the prompt: a reward to be gamed."""

    name = "redness"
    differentiable = True

    def __init__(self, frames: int = 2) -> None:
        self.wants = FrameSpec(frames, "random")

    def encode_text(self, prompts: list[str]) -> None:
        """Nothing: the prompt plays no part."""

    def __call__(self, frames: Tensor, text: None) -> Tensor:
        """Scores [b] in -1..1 of (b, f, 3, h, w)."""
        red, green, blue = frames.unbind(dim=2)
        return (red - 0.5 * (green + blue)).mean(dim=(1, 2, 3))
