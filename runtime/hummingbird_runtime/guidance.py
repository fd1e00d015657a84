"""Guidance: the embedding of a distilled guidance scale, and the classifier-free mix.

A guidance-distilled network takes w as an input (T2V-Turbo, after Meng et al. 2023): one pass per
step. A plain network is run twice per step and the raw outputs are mixed (Ho and Salimans 2022).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray


def guidance_embedding(w: float, dim: int) -> NDArray[np.float32]:
    """Sinusoids of the guidance scale: float32 [1, dim], sines first.

    u = 1000 w; g_i = exp(-i ln(10000) / (half - 1)) with half = dim / 2; [sin(u g), cos(u g)].
    Arguments reach thousands of radians, so the rounding is part of the definition: every product
    and quotient is float32 in this order, exp, sin and cos are rounded from float64. w is the
    guidance scale itself (diffusers' LCM pipelines pass guidance_scale - 1: not here).

    Args:
        w: guidance scale, finite.
        dim: width of the embedding, even, at least 4.
    """
    half = dim // 2
    rate = np.float32(math.log(10000.0)) / np.float32(half - 1)
    exponent = np.arange(half, dtype=np.float32) * -rate
    frequency = np.exp(exponent.astype(np.float64)).astype(np.float32)
    u = np.float32(w) * np.float32(1000.0)
    angle = (u * frequency).astype(np.float64)
    return np.concatenate([np.sin(angle), np.cos(angle)]).astype(np.float32)[np.newaxis]


def classifier_free_mix(
    unconditional: NDArray[np.float32], conditional: NDArray[np.float32], scale: float
) -> NDArray[np.float32]:
    """Raw outputs of two passes, mixed: unconditional + scale (conditional - unconditional).

    Args:
        unconditional: output for the negative prompt, any shape.
        conditional: output for the prompt, the same shape.
        scale: guidance scale; 1 gives the conditional output.
    """
    mixed: NDArray[np.float32] = unconditional + float(scale) * (conditional - unconditional)
    return mixed
