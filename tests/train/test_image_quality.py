"""PSNR, SSIM and flicker against their formulas, written a second time."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from hummingbird_train.image_quality import (
    filter_rows_and_columns,
    flicker,
    gaussian_taps,
    psnr,
    ssim,
    to_unit,
)


def image(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def test_psnr_of_a_known_error():
    a = image(2, 3, 8, 9) * 0.5
    b = a + torch.tensor([0.1, 0.01]).view(2, 1, 1, 1)
    # float32 holds the sums to about 1e-7, 1e-5 of the smaller error
    torch.testing.assert_close(psnr(a, b), torch.tensor([20.0, 40.0]).double(), atol=1e-4, rtol=0)
    torch.testing.assert_close(psnr(2 * a, 2 * b, peak=2.0), psnr(a, b), atol=1e-4, rtol=0)
    assert psnr(a, a).isinf().all()


def ssim_by_definition(a: np.ndarray, b: np.ndarray, peak: float) -> float:
    """One channel [H, W]: every window by the weighted sums of Wang et al. 2004, section III-B."""
    x = np.arange(11) - 5
    w = np.exp(-(x[:, None] ** 2 + x[None, :] ** 2) / (2 * 1.5**2))
    w /= w.sum()
    c1, c2 = (0.01 * peak) ** 2, (0.03 * peak) ** 2
    found = []
    for i in range(a.shape[0] - 10):
        for j in range(a.shape[1] - 10):
            p, q = a[i : i + 11, j : j + 11], b[i : i + 11, j : j + 11]
            mp, mq = (w * p).sum(), (w * q).sum()
            vp, vq = (w * (p - mp) ** 2).sum(), (w * (q - mq) ** 2).sum()
            cov = (w * (p - mp) * (q - mq)).sum()
            found.append(
                (2 * mp * mq + c1) * (2 * cov + c2) / ((mp**2 + mq**2 + c1) * (vp + vq + c2))
            )
    return float(np.mean(found))


@pytest.mark.parametrize("peak", [1.0, 255.0])
def test_ssim_is_the_papers(peak: float):
    a = image(1, 2, 13, 14) * peak
    b = (0.7 * a + 0.3 * peak * image(1, 2, 13, 14, seed=1)).clamp(0, peak)
    wanted = [
        ssim_by_definition(a[0, c].double().numpy(), b[0, c].double().numpy(), peak)
        for c in range(2)
    ]
    assert 0.3 < np.mean(wanted) < 0.98
    assert float(ssim(a, b, peak=peak)) == pytest.approx(np.mean(wanted), abs=1e-9)


def test_ssim_of_equal_and_of_constant_images():
    a = image(3, 3, 16, 16)
    torch.testing.assert_close(ssim(a, a), torch.ones(3).double())
    dark, light = torch.full((1, 1, 12, 12), 0.2), torch.full((1, 1, 12, 12), 0.6)
    wanted = (2 * 0.2 * 0.6 + 1e-4) / (0.2**2 + 0.6**2 + 1e-4)  # no variance: luminance alone
    assert float(ssim(dark, light)) == pytest.approx(wanted, abs=1e-6)


def test_ssim_of_an_inverted_pattern_is_negative():
    a = image(1, 1, 16, 16)
    assert float(ssim(a, 1 - a)) < -0.5


def test_flicker_sees_changes_only():
    clip = image(5, 3, 6, 6)
    assert float(flicker(clip + 0.25, clip)) == pytest.approx(0, abs=1e-7)
    sign = torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0]).view(5, 1, 1, 1)
    assert float(flicker(clip + 0.1 * sign, clip)) == pytest.approx(0.2, abs=1e-6)


def test_gaussian_taps_are_normalised_samples_and_nothing_at_zero():
    taps = gaussian_taps(torch.tensor([0.0, 0.8, 2.0]), 4)
    torch.testing.assert_close(taps.sum(1), torch.ones(3))
    assert torch.equal(taps[0], torch.eye(9)[4])
    assert float(taps[1, 5] / taps[1, 4]) == pytest.approx(math.exp(-0.5 / 0.8**2), rel=1e-5)
    assert torch.equal(taps, taps.flip(1))


def test_filters_work_per_image_on_whole_windows():
    dot = torch.zeros(2, 2, 9, 9)
    dot[:, :, 4, 4] = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    taps = torch.stack([torch.tensor([0.2, 0.5, 0.3]), torch.tensor([0.0, 1.0, 0.0])])
    out = filter_rows_and_columns(dot, taps)
    assert out.shape == (2, 2, 7, 7)
    outer = taps[0].flip(0)[:, None] * taps[0].flip(0)[None, :]
    torch.testing.assert_close(out[0, 1, 2:5, 2:5], 2 * outer)
    assert torch.equal(out[1], dot[1, :, 1:-1, 1:-1])


def test_unit_range_is_clipped():
    assert to_unit(torch.tensor([-3.0, -1.0, 0.0, 1.0, 2.0])).tolist() == [0, 0, 0.5, 1, 1]
