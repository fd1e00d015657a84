"""Sampling trajectories outside a pipeline: what a U-Net is asked, and what comes out.

The sampler is the runtime's own. A denoiser is any function of graph inputs: an ONNX Runtime
session, a torch module, a quantized candidate. Recorded inputs calibrate; final latents are judged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hummingbird_export.wrappers import Feeds
from hummingbird_runtime.errors import ExecutionError
from hummingbird_runtime.guidance import classifier_free_mix, guidance_embedding
from hummingbird_runtime.noise import noise
from hummingbird_runtime.sampler import sample
from hummingbird_runtime.schedule import SchedulerConfig

Array = NDArray[np.float32]
Denoiser = Callable[[Feeds], Array]
"""Graph inputs to ``out_sample``."""


@dataclass(frozen=True)
class Case:
    """One clip to sample."""

    context: Array
    """Prompt embedding [1, L, D]."""
    seed: int
    """Of the noise, 0..2^64-1."""


@dataclass(frozen=True)
class Settings:
    """How clips are sampled, the same for all cases of a comparison."""

    scheduler: SchedulerConfig
    """Schedule and solver."""
    latent: tuple[int, int, int, int]
    """(C, F, h, w)."""
    steps: int = 4
    """Network evaluations of a run."""
    guidance: float = 7.5
    """Guidance scale."""
    guidance_dim: int | None = None
    """Width of ``timestep_cond``, None for a network without it."""
    negative: Array | None = None
    """Embedding of the negative prompt: classifier-free guidance, two evaluations per step."""
    fps: int = 8
    """Frame-rate condition."""


@dataclass(frozen=True)
class Trajectory:
    """One sampled clip."""

    feeds: list[Feeds]
    """What the network was asked, in order."""
    latent: Array
    """The result, [1, C, F, h, w]."""


def random_cases(count: int, tokens: int, width: int, *, seed: int = 0) -> list[Case]:
    """Cases for networks without a text encoder at hand: normal embeddings, one seed each."""
    rng = np.random.default_rng(seed)
    shape = (1, tokens, width)
    return [Case(rng.standard_normal(shape, dtype=np.float32), seed + i) for i in range(count)]


def trajectory(denoiser: Denoiser, case: Case, settings: Settings) -> Trajectory:
    """Sample one clip and record what the network was asked.

    Raises:
        ExecutionError: ``numeric.non_finite`` when a latent is not finite.
    """
    asked: list[Feeds] = []

    def ask(feeds: Feeds) -> Array:
        asked.append(feeds)
        return denoiser(feeds)

    return Trajectory(asked, final_latent(ask, case, settings))


def final_latent(denoiser: Denoiser, case: Case, settings: Settings) -> Array:
    """Sample one clip: [1, C, F, h, w].

    Raises:
        ExecutionError: ``numeric.non_finite`` when a latent is not finite.
    """
    channels, frames, height, width = settings.latent

    def fresh(stream: int) -> Array:
        return noise(case.seed, stream, frames, channels, height, width)

    def predict(x_t: Array, t: int, context: Array) -> Array:
        feeds: Feeds = {
            "sample": x_t.astype(np.float32),
            "timestep": np.array(t, np.int64),
            "encoder_hidden_states": context,
            "fps": np.array([settings.fps], np.int64),
        }
        if settings.guidance_dim is not None:
            feeds["timestep_cond"] = guidance_embedding(settings.guidance, settings.guidance_dim)
        return denoiser(feeds)

    def denoise(x_t: Array, t: int) -> Array:
        conditional = predict(x_t, t, case.context)
        if settings.negative is None:
            return conditional
        unconditional = predict(x_t, t, settings.negative)
        return classifier_free_mix(unconditional, conditional, settings.guidance)

    result = fresh(0)
    states = sample(denoise, result, settings.scheduler, settings.steps, lambda i: fresh(1 + i))
    for state in states:
        result = state.denoised
        if not np.isfinite(result).all():
            raise ExecutionError(
                "numeric.non_finite",
                f"latent after step {state.index + 1} of {state.count}: got values that are not "
                "finite, expected finite ones",
                hint="the network's weights or its quantization overflow",
            )
    return result


def final_latents(denoiser: Denoiser, cases: Sequence[Case], settings: Settings) -> Iterator[Array]:
    """The results of several clips, one after the other."""
    for case in cases:
        yield final_latent(denoiser, case, settings)
