"""The noise is a specification: same bits everywhere, golden values from independent sources.

Philox words come from Random123's known answers and a plain-integer implementation; normal
quantiles from mpmath at 60 digits.
"""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hummingbird_runtime import noise as noise_module
from hummingbird_runtime.errors import InputError
from hummingbird_runtime.noise import noise, philox4x32, uniforms
from hummingbird_runtime.normal import logarithm, normal_quantile

DATA = Path(__file__).parents[1] / "data"
GOLDEN = json.loads((DATA / "golden.json").read_text("utf-8"))["noise"]


def column(text: str) -> np.ndarray:
    return np.array([int(text, 16)], np.uint32)


@pytest.mark.parametrize("row", GOLDEN["philox"])
def test_philox_gives_the_published_words(row: dict) -> None:
    words = philox4x32(
        tuple(column(word) for word in row["counter"]), tuple(int(k, 16) for k in row["key"])
    )
    assert [f"{int(word[0]):08x}" for word in words] == row["words"]


def test_quantiles_match_high_precision_values_and_stored_bits() -> None:
    u = np.array([(row["m"] + 0.5) * 2.0**-52 for row in GOLDEN["quantiles"]])
    got = normal_quantile(u)
    exact = np.array([float(row["exact"]) for row in GOLDEN["quantiles"]])
    # AS241 promises about 1e-16; its rounding in float64 stays below 5 units in the last place
    np.testing.assert_allclose(got, exact, rtol=1e-15, atol=0)
    assert [value.hex() for value in got.tolist()] == [r["float64"] for r in GOLDEN["quantiles"]]


def test_quantiles_reach_both_ends_of_what_52_bits_can_say() -> None:
    ends = normal_quantile(np.array([2.0**-53, 1.0 - 2.0**-53]))
    np.testing.assert_allclose(ends, [-8.209536151601387, 8.209536151601387], rtol=1e-15)


def test_logarithm_of_the_tails_is_accurate() -> None:
    x = np.concatenate([2.0 ** -np.arange(1.5, 53, 0.37), np.linspace(1e-6, 0.075, 5000)])
    exact = np.array([math.log(value) for value in x])  # libm: within one unit in the last place
    np.testing.assert_allclose(logarithm(x), exact, rtol=1e-15, atol=0)


@pytest.mark.parametrize("row", GOLDEN["clips"])
def test_a_whole_draw_has_the_stored_hash(row: dict) -> None:
    frames, channels, height, width = row["frames_channels_height_width"]
    clip = noise(int(row["seed"]), row["stream"], frames, channels, height, width)
    assert clip.dtype == np.float32
    assert clip.shape == (1, channels, frames, height, width)
    assert [float(v).hex() for v in clip.reshape(-1)[:4]] == row["first"]
    assert [float(v).hex() for v in clip.reshape(-1)[-4:]] == row["last"]
    data = np.ascontiguousarray(clip, "<f4").tobytes()
    assert hashlib.sha256(data).hexdigest() == row["sha256"]


def test_more_frames_never_change_earlier_ones() -> None:
    short, long = noise(5, 0, 3, 4, 6, 2), noise(5, 0, 9, 4, 6, 2)
    np.testing.assert_array_equal(long[:, :, :3], short)


def test_the_chunk_size_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = noise(11, 2, 4, 4, 8, 8)
    monkeypatch.setattr(noise_module, "_CHUNK", 37)
    np.testing.assert_array_equal(noise(11, 2, 4, 4, 8, 8), whole)


def test_seeds_and_streams_are_independent() -> None:
    draws = [noise(s, t, 2, 4, 16, 16).ravel() for s in (0, 1, 2**32, 2**64 - 1) for t in (0, 1, 9)]
    # 2048 independent values: correlations are normal with deviation 1/sqrt(2048) = 0.022
    correlation = np.corrcoef(draws) - np.eye(len(draws))
    assert np.abs(correlation).max() < 0.12


def test_values_are_standard_normal() -> None:
    sample = np.sort(noise(3, 0, 10, 4, 50, 50).ravel().astype(np.float64))
    exact = 0.5 * (1.0 + np.array([math.erf(x / math.sqrt(2.0)) for x in sample]))
    steps = (np.arange(sample.size) + 0.5) / sample.size
    # Kolmogorov-Smirnov: 1.95 / sqrt(n) is exceeded once in 1000 seeds; this seed is fixed
    assert np.abs(exact - steps).max() < 1.95 / math.sqrt(sample.size)


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 40))
def test_uniforms_stay_inside_the_open_interval(seed: int, stream: int, start: int) -> None:
    u = uniforms(seed, stream, start, start + 33)
    assert ((u > 0.0) & (u < 1.0)).all()
    assert ((u * 2.0**53) % 2 == 1).all()  # odd multiples of 2^-53, so 1 - u is exact too
    np.testing.assert_array_equal(uniforms(seed, stream, start + 5, start + 8), u[5:8])


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_a_seed_beyond_64_bits_is_refused(seed: int) -> None:
    with pytest.raises(InputError, match=r"seed, got .* expected 0\.\.2\^64-1") as caught:
        noise(seed, 0, 1, 4, 2, 2)
    assert caught.value.code == "request.seed"
