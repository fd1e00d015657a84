"""The linear map from latent channels to colour that the runtime's previews use.

Fitted by least squares between decoded latents and the mean colour of each cell's pixels.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from hummingbird_train.models.autoencoder import AutoencoderKL

SAMPLES = 64
CELLS = 4


def fit_latent_rgb(vae: AutoencoderKL, latents: torch.Tensor | None = None) -> list[list[float]]:
    """Three rows (r, g, b) of C weights and a bias: colour in [-1, 1] = W z + b.

    Args:
        vae: decoder.
        latents: U-Net-scaled [N,C,h,w] to fit on; None takes smooth standard normal ones, whose
            cells are alike, so that a cell's colour is its own.
    """
    config = vae.config
    if latents is None:
        generator = torch.Generator().manual_seed(0)
        latents = torch.randn(SAMPLES, config.latent_channels, 1, 1, generator=generator)
        latents = latents.expand(-1, -1, CELLS, CELLS)
    with torch.inference_mode():
        pixels = vae.decode(latents / config.scaling_factor).clamp(-1, 1)
        colour = F.avg_pool2d(pixels, config.downscale)  # (n, 3, h, w)
    z = latents.permute(0, 2, 3, 1).reshape(-1, config.latent_channels).double().numpy()
    design = np.concatenate([z, np.ones((len(z), 1))], axis=1)
    target = colour.permute(0, 2, 3, 1).reshape(-1, 3).double().numpy()
    solution, *_ = np.linalg.lstsq(design, target, rcond=None)
    return [[round(float(value), 6) for value in row] for row in solution.T]
