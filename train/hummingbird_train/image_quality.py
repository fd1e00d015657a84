"""How close decoded frames are to what they should be: PSNR, SSIM, temporal flicker.

SSIM is that of Wang et al. 2004 (11 x 11 Gaussian of 1.5 pixels, K1 = 0.01, K2 = 0.03, only windows
that lie inside the image), per colour channel. Pure functions of tensors.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

SSIM_SIGMA = 1.5
SSIM_RADIUS = 5
SSIM_K = (0.01, 0.03)


def gaussian_taps(sigma: Tensor, radius: int) -> Tensor:
    """Normalised samples of Gaussians: sigma float [n] in pixels, 0 for none, to [n, 2 radius + 1].

    Standard deviations under a hundredth of a pixel leave an image as it is.
    """
    x = torch.arange(-radius, radius + 1, dtype=sigma.dtype, device=sigma.device)
    taps = torch.exp(-0.5 * (x / sigma.clamp(min=1e-2)[:, None]).square())
    return taps / taps.sum(1, keepdim=True)


def filter_rows_and_columns(images: Tensor, taps: Tensor) -> Tensor:
    """Filter every channel of image i with taps i along both axes; only whole windows remain.

    Args:
        images: float [n, c, H, W].
        taps: float [n, k], or [1, k] for all images.

    Returns:
        float [n, c, H - k + 1, W - k + 1].
    """
    n, c, height, width = images.shape
    k = taps.shape[1]
    kernel = taps.expand(n, k).repeat_interleave(c, 0)[:, None]  # (n c, 1, k)
    flat = images.reshape(1, n * c, height, width)
    flat = F.conv2d(flat, kernel[:, :, :, None], groups=n * c)
    flat = F.conv2d(flat, kernel[:, :, None, :], groups=n * c)
    return flat.reshape(n, c, height - k + 1, width - k + 1)


def psnr(a: Tensor, b: Tensor, *, peak: float = 1.0) -> Tensor:
    """Peak signal-to-noise ratio of each image: [n, c, H, W] in [0, peak] to float64 dB [n].

    Equal images give infinity.
    """
    mse = (a.double() - b.double()).square().mean((1, 2, 3))
    return 10 * torch.log10(peak**2 / mse)


def ssim(a: Tensor, b: Tensor, *, peak: float = 1.0) -> Tensor:
    """Mean structural similarity of each image: [n, c, H, W] in [0, peak] to float64 [n].

    Args:
        a: images of at least 11 x 11 pixels.
        b: images of the same shape.
        peak: the largest value that a pixel can take.
    """
    a, b = a.double(), b.double()
    taps = gaussian_taps(torch.tensor([SSIM_SIGMA], dtype=a.dtype, device=a.device), SSIM_RADIUS)
    mean_a, mean_b, aa, bb, ab = (
        filter_rows_and_columns(image, taps) for image in (a, b, a * a, b * b, a * b)
    )
    c1, c2 = ((k * peak) ** 2 for k in SSIM_K)
    covariance = ab - mean_a * mean_b
    variances = (aa - mean_a.square()) + (bb - mean_b.square())
    luminance = (2 * mean_a * mean_b + c1) / (mean_a.square() + mean_b.square() + c1)
    structure = (2 * covariance + c2) / (variances + c2)
    return (luminance * structure).mean((1, 2, 3))


def flicker(clip: Tensor, reference: Tensor) -> Tensor:
    """Change from frame to frame that the reference does not have, mean absolute.

    Args:
        clip: float [f, c, H, W], at least two frames.
        reference: of the same shape.

    Returns:
        mean |(clip_t+1 - clip_t) - (reference_t+1 - reference_t)|, a float64 scalar in the unit of
        the pixels. A constant error of every frame alike gives 0.
    """
    error = clip.double() - reference.double()
    return (error[1:] - error[:-1]).abs().mean()


def to_unit(pixels: Tensor) -> Tensor:
    """[-1, 1] to [0, 1], clipped."""
    return ((pixels + 1) / 2).clamp(0, 1)
