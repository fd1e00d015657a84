"""The forward process on tensors: noising, the v target, stratified timesteps.

Schedule tables come from the runtime.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from hummingbird_runtime.schedule import SchedulerConfig, alphas_cumprod


class ForwardProcess:
    """q(x_t | x_0) of a schedule (Ho et al. 2020, eq. 4) and the v target (Salimans and Ho 2022).

    Args:
        config: schedule; ``prediction_type`` must be ``v_prediction`` or ``epsilon``.
    """

    def __init__(self, config: SchedulerConfig) -> None:
        cumulative = torch.from_numpy(alphas_cumprod(config))
        self.signal = cumulative.sqrt().float()
        self.noise = (1 - cumulative).sqrt().float()
        self.prediction_type = config.prediction_type

    def to(self, device: torch.device) -> None:
        """Move the tables."""
        self.signal, self.noise = self.signal.to(device), self.noise.to(device)

    def coefficients(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """(signal, noise) at int64 [b], shaped to broadcast against (b, c, f, h, w)."""
        shape = (-1, 1, 1, 1, 1)
        return self.signal[t].view(shape), self.noise[t].view(shape)

    def noised(self, x_0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """x_t of (b, c, f, h, w)."""
        a, s = self.coefficients(t)
        return a * x_0 + s * eps

    def target(self, x_0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """What the network is to predict: eps, or v = a eps - s x_0."""
        if self.prediction_type == "epsilon":
            return eps
        a, s = self.coefficients(t)
        return a * eps - s * x_0


def stratified_timesteps(
    rng: np.random.Generator, count: int, total: int = 1000, shift: float = 1.0
) -> Tensor:
    """One timestep from each of ``count`` equal strata, shuffled: int64 [count].

    Args:
        rng: of the draw.
        count: timesteps to draw.
        total: timesteps of the schedule.
        shift: 1 for uniform timesteps; above 1 it moves them towards noise by
            u -> shift u / (1 + (shift - 1) u) (Esser et al. 2024, eq. 23). The more frames a clip
            has, the more noise it takes to hide what they share.
    """
    u = (rng.permutation(count) + rng.random(count)) / count
    u = shift * u / (1 + (shift - 1) * u)
    return torch.from_numpy(np.minimum((u * total).astype(np.int64), total - 1))
