"""Exponential moving average of weights, with the usual warm-up min(decay, (1 + n) / (10 + n))."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor


class MovingAverage:
    """Average of named parameters, kept beside them.

    Args:
        named_parameters: what to average; copied at construction.
        decay: upper bound of the decay, 0..1.
    """

    def __init__(self, named_parameters: Iterable[tuple[str, Tensor]], decay: float) -> None:
        self.decay = decay
        self.live = dict(named_parameters)
        self.average = {n: p.detach().clone() for n, p in self.live.items()}

    @torch.no_grad()
    def update(self, count: int) -> None:
        """Move towards the live weights after ``count`` updates (0-based)."""
        decay = min(self.decay, (1 + count) / (10 + count))
        torch._foreach_lerp_(
            list(self.average.values()), [p.detach() for p in self.live.values()], 1 - decay
        )

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore the averages by name."""
        for name, tensor in self.average.items():
            tensor.copy_(tensors[name])
