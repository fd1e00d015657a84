"""The guidance embedding has the published values, and the mix is linear."""

from __future__ import annotations

import math

import numpy as np

from hummingbird_runtime.guidance import classifier_free_mix, guidance_embedding


def test_the_embedding_has_the_published_values() -> None:
    golden = {
        0: -0.851236, 1: 0.842131, 64: -0.072438, 127: 0.681639,
        128: -0.524783, 129: 0.539273, 192: -0.997373, 255: 0.731689,
    }  # fmt: skip
    row = guidance_embedding(7.5, 256)
    assert row.dtype == np.float32
    assert row.shape == (1, 256)
    np.testing.assert_allclose(row[0, list(golden)], list(golden.values()), atol=1e-6)


def test_sines_come_first_and_frequencies_fall_to_one_ten_thousandth() -> None:
    row = guidance_embedding(0.002, 8)[0].astype(np.float64)
    angles = 2.0 * 10000.0 ** (-np.arange(4) / 3)
    np.testing.assert_allclose(row[:4], np.sin(angles), rtol=1e-5)
    np.testing.assert_allclose(row[4:], np.cos(angles), rtol=1e-5)


def test_a_scale_of_zero_is_all_cosine() -> None:
    assert guidance_embedding(0.0, 6).tolist() == [[0, 0, 0, 1, 1, 1]]


def test_float32_rounding_is_part_of_the_definition() -> None:
    """A float64 embedding differs visibly at large arguments; only the first sine is immune."""
    half = 128
    exact = 7500.0 * np.exp(-math.log(10000.0) * np.arange(half) / (half - 1))
    difference = np.abs(guidance_embedding(7.5, 256)[0, :half] - np.sin(exact))
    assert difference[0] < 1e-6
    assert 1e-5 < difference.max() < 1e-3


def test_mix_moves_from_unconditional_through_conditional() -> None:
    u, c = np.array([1.0, 2.0], np.float32), np.array([3.0, 1.0], np.float32)
    for scale, expected in ((0.0, u), (1.0, c), (12.0, u + 12 * (c - u))):
        mixed = classifier_free_mix(u, c, scale)
        assert mixed.dtype == np.float32
        np.testing.assert_allclose(mixed, expected)
