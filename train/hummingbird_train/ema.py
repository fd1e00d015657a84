"""Exponential moving average of weights, with the usual warm-up min(decay, (1 + n) / (10 + n))."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor

from hummingbird_train.parallel import assign, local


class MovingAverage:
    """Average of named parameters, kept beside them; sharded where they are.

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
            [local(t) for t in self.average.values()],
            [local(p.detach()) for p in self.live.values()],
            1 - decay,
        )

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore the averages by name from whole tensors."""
        for name, tensor in self.average.items():
            assign(tensor, tensors[name])

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """The averages in place of the live weights, which come back bit for bit."""
        kept = {n: p.detach().clone() for n, p in self.live.items()}
        with torch.no_grad():
            for name, parameter in self.live.items():
                parameter.copy_(self.average[name])
        try:
            yield
        finally:
            with torch.no_grad():
                for name, parameter in self.live.items():
                    parameter.copy_(kept[name])
