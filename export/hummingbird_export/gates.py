"""Quality gates: final latents of a quantized U-Net against those of the float32 one.

Both sample the same prompts from the same noise. The figure is the signal-to-noise ratio of the
final latent in decibels, 10 log10(||reference||^2 / ||candidate - reference||^2), its mean and its
worst over the cases; one number per step would hide how errors of early steps grow.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hummingbird_export.trajectory import Case, Denoiser, Settings, final_latents
from hummingbird_runtime.errors import ExecutionError

Array = NDArray[np.float32]

CASES = 8
"""(prompt, seed) pairs of a gate."""

IDENTICAL = 200.0
"""Decibels stated for latents without any difference, and the most that is ever stated."""


@dataclass(frozen=True)
class Gate:
    """The least quality of a precision."""

    mean_db: float
    """Mean over the cases."""
    worst_db: float
    """Worst case."""


GATES = {
    "int8": Gate(18.0, 15.0),
    "int8-dynamic": Gate(18.0, 15.0),
    "w8": Gate(18.0, 15.0),
    "mixed": Gate(16.0, 13.0),
    "w4": Gate(10.0, 8.0),
}
"""Gates by precision; others have none."""


@dataclass(frozen=True)
class Quality:
    """Agreement of final latents over several cases."""

    snr_db: tuple[float, ...]
    """Of each case."""
    cosine: float
    """Smallest cosine of a case."""

    @property
    def mean_db(self) -> float:
        """Mean over the cases."""
        return float(np.mean(self.snr_db))

    @property
    def worst_db(self) -> float:
        """Worst case."""
        return min(self.snr_db)

    def to_json(self) -> dict[str, float]:
        """The figures as the manifest stores them."""
        return {
            "snr_db_mean": round(self.mean_db, 2),
            "snr_db_worst": round(self.worst_db, 2),
            "cosine": round(self.cosine, 6),
        }


def snr_db(got: Array, want: Array) -> float:
    """Signal-to-noise ratio in decibels; ``want`` is the signal."""
    signal = float(np.square(want, dtype=np.float64).sum())
    noise = float(np.square(got.astype(np.float64) - want).sum())
    if not np.isfinite(noise):
        return -IDENTICAL
    if noise <= signal * 10 ** (-IDENTICAL / 10):
        return IDENTICAL
    return 10.0 * float(np.log10(max(signal, 1e-300) / noise))


def cosine(got: Array, want: Array) -> float:
    """Cosine of the angle between two latents."""
    a, b = got.astype(np.float64).ravel(), want.astype(np.float64).ravel()
    length = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / length if length else 0.0


def compare(got: Iterable[Array], want: Iterable[Array]) -> Quality:
    """Quality of latents against their references, pair by pair."""
    figures = [(snr_db(g, w), cosine(g, w)) for g, w in zip(got, want, strict=True)]
    return Quality(tuple(figure[0] for figure in figures), min(figure[1] for figure in figures))


def gate(
    candidate: Denoiser,
    references: Sequence[Array],
    cases: Sequence[Case],
    settings: Settings,
    precision: str,
) -> Quality:
    """Sample the cases with a candidate and hold it to its precision's gate.

    Args:
        candidate: the quantized network.
        references: ``final_latents`` of the float32 network, in the cases' order; computed first,
            so that the two networks need not be in memory together.
        cases: prompts and seeds.
        settings: how both were sampled.
        precision: key of ``GATES``.

    Raises:
        ExecutionError: ``export.quality``; ``numeric.non_finite`` from the sampler.
    """
    quality = compare(final_latents(candidate, cases, settings), references)
    check_quality(quality, precision)
    return quality


def check_quality(quality: Quality, precision: str) -> None:
    """Refuse what misses its gate.

    Raises:
        ExecutionError: ``export.quality`` with both figures.
    """
    least = GATES.get(precision)
    if least is None:
        return
    if quality.mean_db < least.mean_db or quality.worst_db < least.worst_db:
        raise ExecutionError(
            "export.quality",
            f"{precision} U-Net: final latents against float32, got SNR {quality.mean_db:.1f} dB "
            f"mean and {quality.worst_db:.1f} dB worst of {len(quality.snr_db)}, expected at least "
            f"{least.mean_db:g} and {least.worst_db:g}",
            hint="take precision mixed or w8, keep the layers that `export sensitivity` lists "
            "first in a higher precision, calibrate on more prompts, or use --force",
        )
