"""A rough RGB preview of a latent by one linear map, fitted at export (``latent_rgb``)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hummingbird_runtime.decode import to_uint8


def latent_preview(
    latents: NDArray[np.float32], latent_rgb: Sequence[Sequence[float]]
) -> NDArray[np.uint8]:
    """(r, g, b) = W z + bias for every latent cell: uint8 [F, h, w, 3].

    Args:
        latents: float32 [1, C, F, h, w], scaled for the U-Net.
        latent_rgb: 3 rows of C weights and a bias; results in [-1, 1].
    """
    rows = np.asarray(latent_rgb, np.float32)
    weights, bias = rows[:, :-1], rows[:, -1]
    pixels = np.tensordot(latents[0], weights, axes=(0, 1)) + bias  # (f, h, w, 3)
    return to_uint8(pixels)
