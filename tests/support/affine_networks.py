"""Networks affine in what they see, clips and prompts: whole losses have a closed form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hummingbird_runtime.schedule import SchedulerConfig


class AffineUNet(nn.Module):
    """output = p x + q mean(context) + r t / 1000 + k mean(timestep_cond); remembers its calls.

    Args:
        p, q, r, k: coefficients; each is a trainable number.
    """

    def __init__(self, p: float, q: float, r: float, k: float = 0.0) -> None:
        super().__init__()
        for name, value in {"p": p, "q": q, "r": r, "k": k}.items():
            setattr(self, name, nn.Parameter(torch.tensor(value)))
        self.calls: list[dict[str, Any]] = []

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        *,
        timestep_cond: Tensor | None = None,
        fps: Tensor,
        frame_indices: Tensor | None = None,
        images: bool = False,
    ) -> Tensor:
        self.calls.append(
            {
                "x_t": sample.detach().clone(),
                "t": timestep.clone(),
                "context": encoder_hidden_states.clone(),
                "timestep_cond": None if timestep_cond is None else timestep_cond.clone(),
                "fps": fps.clone(),
                "grad": torch.is_grad_enabled(),
            }
        )
        shape = (-1, 1, 1, 1, 1)
        output = self.p * sample + self.q * encoder_hidden_states.mean((1, 2)).view(shape)
        output = output + self.r * (timestep.view(shape) / 1000)
        if timestep_cond is not None:
            output = output + self.k * timestep_cond.mean(1).view(shape)
        return output


def contexts(prompts: Sequence[str]) -> Tensor:
    """float32 [n, 2, 4] of the constant length(prompt) / 10."""
    return torch.stack([torch.full((2, 4), len(p) / 10) for p in prompts])


class FixedClips:
    """A source whose every clip is one value, at 24 frames a second.

    Args:
        value: of every latent; None draws standard normal latents from the generator.
        size: channels, height and width.
    """

    scaling_factor = 1.0
    fps = 24

    def __init__(self, value: float | None, size: tuple[int, int, int] = (2, 3, 3)) -> None:
        self.value, self.size = value, size

    def __len__(self) -> int:
        return 8

    def sample(
        self, rng: np.random.Generator, count: int, frames: int, stride: int
    ) -> tuple[Tensor, np.ndarray, list[str]]:
        channels, height, width = self.size
        x = rng.standard_normal((count, channels, frames, height, width)).astype(np.float32)
        if self.value is not None:
            x[:] = self.value
        index = np.tile(np.arange(frames) * stride, (count, 1))
        return torch.from_numpy(x), index, ["prompt " + "x" * i for i in range(count)]


def alphas(schedule: SchedulerConfig) -> np.ndarray:
    """Cumulative alphas from the betas' definition, and Lin et al. 2023, algorithm 1."""
    beta = (0.00085**0.5 + (0.012**0.5 - 0.00085**0.5) * np.arange(1000) / 999) ** 2
    root = np.sqrt(np.cumprod(1 - beta))
    if schedule.rescale_betas_zero_snr:
        root = (root - root[-1]) * root[0] / (root[0] - root[-1])
    return root**2


def close(got: Tensor, expected: np.ndarray, tolerance: float = 1e-6) -> None:
    """Equal up to float32 rounding of numbers of about one."""
    np.testing.assert_allclose(got.detach().double().numpy(), expected, rtol=0, atol=tolerance)
