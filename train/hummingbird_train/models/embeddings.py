"""Sinusoidal embedding of integers as a table: a row per diffusion step, frame rate, frame index.

Rows are cosines first, divisor half the width. The guidance scale has another embedding (sines
first, divisor half - 1) that enters the network ready-made as ``timestep_cond``.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

NUM_ROWS = 1000
"""Diffusion steps of the published schedules; frame rates and frame indices stay below."""


def sinusoid_table(width: int, rows: int = NUM_ROWS) -> Tensor:
    """Row n is [cos(n f_i), sin(n f_i)], f_i = 10000^(-i / half), computed in float64.

    Args:
        width: even embedding width.
        rows: number of integers, from 0.

    Returns:
        float32 [rows, width].
    """
    half = width // 2
    index = torch.arange(half, dtype=torch.float64)
    angles = torch.arange(rows, dtype=torch.float64)[:, None] * torch.exp(
        -math.log(10000.0) * index / half
    )
    return torch.cat([angles.cos(), angles.sin()], dim=1).float()


class EmbeddingMLP(nn.Sequential):
    """Linear, SiLU, Linear: tensors ``0`` and ``2``."""

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__(nn.Linear(channels_in, channels), nn.SiLU(), nn.Linear(channels, channels))
