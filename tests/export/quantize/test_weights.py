"""Whole-number weights: closed forms of the errors, and what the slowest kernels can hold."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hummingbird_export.quantize import weights
from hummingbird_export.quantize.weights import (
    BLOCK,
    EIGHT_BITS,
    FOUR_BITS,
    SEVEN_BITS,
    TWO_LEVELS,
    best_clipping,
    blocked,
    channel_scales,
    per_channel,
    restore,
    two_level,
    widen,
)


def rows(seed: int = 0, shape: tuple[int, int, int] = (7, 24, 9)) -> np.ndarray:
    rng = np.random.default_rng(seed)
    gains = rng.lognormal(0, 2, (shape[0], 1, 1))
    return (rng.standard_normal(shape) * gains).astype(np.float32)


def vpmaddubsw(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """uint8 x int8, neighbours added in int16 with saturation: AVX2's product."""
    products = a.astype(np.int32) * b.astype(np.int32)
    return np.clip(products[..., 0::2] + products[..., 1::2], -(2**15), 2**15 - 1)


@given(st.integers(0, 10**6))
def test_an_int8_weight_is_at_most_half_a_step_away(seed: int) -> None:
    w = rows(seed)
    q = per_channel(w)
    error = np.abs(restore(q, w.shape) - w).max(axis=(1, 2))
    assert np.all(error <= 0.5001 * q.scale)
    assert np.abs(q.q).max(axis=(1, 2)).tolist() == 7 * [SEVEN_BITS]


def test_seven_bits_never_saturate_and_eight_do() -> None:
    w = np.ones((1, 64, 1), np.float32)  # all weights at the end of the range: the worst case
    a = np.full((1, 64), 255, np.uint8)
    for sign in (1, -1):
        safe = per_channel(sign * w).q.reshape(1, -1)
        assert vpmaddubsw(a, safe).sum() == (a.astype(int) * safe).sum()
        full = per_channel(sign * w, EIGHT_BITS).q.reshape(1, -1)
        assert vpmaddubsw(a, full).sum() != (a.astype(int) * full).sum()


def test_a_channel_of_zeros_has_a_scale_and_stays_zero() -> None:
    w = rows()
    w[3] = 0
    q = per_channel(w)
    assert q.scale[3] == 1
    assert not q.q[3].any()
    assert not restore(blocked(w, FOUR_BITS, clip=True), w.shape)[3].any()


def test_slabs_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    w = rows(shape=(64, 32, 9))
    scale = channel_scales(w, TWO_LEVELS)
    whole = per_channel(w), blocked(w, FOUR_BITS, clip=True), two_level(w, scale)
    clipped = best_clipping(w, FOUR_BITS)
    monkeypatch.setattr(weights, "SLAB", 1000)
    pieces = per_channel(w), blocked(w, FOUR_BITS, clip=True), two_level(w, scale)
    for one, other in zip(whole, pieces, strict=True):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(clipped, best_clipping(w, FOUR_BITS))


@pytest.mark.parametrize("limit", [FOUR_BITS, EIGHT_BITS])
def test_blocks_have_scales_of_their_own_that_float16_holds(limit: int) -> None:
    w = rows(shape=(5, 40, 9))  # 360 weights: the last block is cut
    q = blocked(w, limit)
    assert q.scale.shape == (5, 12)
    np.testing.assert_array_equal(q.scale, q.scale.astype(np.float16).astype(np.float32))
    step = np.repeat(q.scale, BLOCK, axis=1)[:, :360].reshape(w.shape)
    # half a step, and what a scale rounded down to 11 bits cuts off the largest weight
    assert np.all(np.abs(restore(q, w.shape) - w) <= step * (0.5 + limit * 2.0**-11))


def test_clipping_wins_in_four_bits_as_gaussian_theory_says() -> None:
    w = np.random.default_rng(0).standard_normal((16, 64, 9)).astype(np.float32)

    def noise(scale: np.ndarray) -> float:
        return float(np.square(restore(per_channel(w, FOUR_BITS, scale), w.shape) - w).mean())

    plain, best = noise(channel_scales(w, FOUR_BITS)), noise(best_clipping(w, FOUR_BITS))
    # Max 1960: the best uniform quantizer with 16 levels leaves 0.01154 of a unit Gaussian
    assert 0.0115 < best < 0.0135 < plain


def test_two_levels_stay_in_seven_bits_and_beat_one_level() -> None:
    w = rows(shape=(8, 64, 9))
    scale = channel_scales(w, TWO_LEVELS)
    numbers = two_level(w, scale)
    wide = widen(numbers, w.shape)
    assert np.abs(numbers.q).max() <= 7
    assert numbers.factor.min() >= 1
    assert numbers.factor.max() <= 9
    assert np.abs(wide.astype(int)).max() <= 63 < SEVEN_BITS
    got = wide * scale[:, None, None]
    one_level = restore(per_channel(w, FOUR_BITS), w.shape)
    assert np.square(got - w).sum() < 0.5 * np.square(one_level - w).sum()
