"""Decoding by chunks equals decoding at once; 8-bit rounding is the written formula."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps

from hummingbird_runtime.decode import decode_chunks, to_uint8, to_unit
from hummingbird_runtime.preview import latent_preview


@pytest.mark.parametrize("chunk", [1, 2, 3, 5, 7])
def test_chunks_cover_every_frame_in_order(chunk: int) -> None:
    latents = np.arange(1 * 4 * 5 * 2 * 3, dtype=np.float32).reshape(1, 4, 5, 2, 3)
    calls: list[tuple[int, ...]] = []

    def decode(part: np.ndarray) -> np.ndarray:
        calls.append(part.shape)
        assert part.flags.c_contiguous
        assert part.dtype == np.float32
        return part[:, :3]

    chunks = list(decode_chunks(decode, latents, scaling_factor=0.5, chunk=chunk))
    assert [start for start, _ in chunks] == list(range(0, 5, chunk))
    assert sum(shape[0] for shape in calls) == 5
    whole = np.concatenate([pixels for _, pixels in chunks])
    np.testing.assert_array_equal(whole, latents[0, :3].transpose(1, 2, 3, 0) / 0.5)


@pytest.mark.parametrize("chunk", [2, 3, 5, 7])
def test_a_decoder_of_one_size_always_gets_it(chunk: int) -> None:
    latents = np.random.default_rng(0).normal(size=(1, 4, 5, 2, 3)).astype(np.float32)

    def decode(part: np.ndarray) -> np.ndarray:
        assert len(part) == chunk
        return part[:, :3]

    arguments = {"scaling_factor": 0.5, "chunk": chunk}
    filled = list(decode_chunks(decode, latents, whole=True, **arguments))
    plain = list(decode_chunks(lambda part: part[:, :3], latents, **arguments))
    assert [start for start, _ in filled] == [start for start, _ in plain]
    for (_, a), (_, b) in zip(filled, plain, strict=True):
        np.testing.assert_array_equal(a, b)


def test_decoding_leaves_the_latents_alone() -> None:
    latents = np.ones((1, 4, 1, 2, 2), np.float32)
    list(decode_chunks(lambda part: part[:, :3], latents, scaling_factor=0.1, chunk=1))
    assert (latents == 1).all()


@given(nps.arrays(np.float32, 20, elements=st.floats(-3, 3, width=32)))
def test_rounding_is_the_written_formula(x: np.ndarray) -> None:
    before = x.copy()
    unit = np.clip((x.astype(np.float64) + 1) / 2, 0, 1)
    got = to_uint8(x)
    assert got.dtype == np.uint8
    exact = unit * 255 + 0.5
    # equal except where float32 rounding of the argument crosses a level's edge
    edge = np.abs(exact - np.round(exact)) < 1e-4
    np.testing.assert_array_equal(got[~edge], np.floor(exact)[~edge])
    np.testing.assert_allclose(to_unit(x), unit, atol=1e-7)
    np.testing.assert_array_equal(x, before)


def test_the_ends_and_the_middle() -> None:
    x = np.array([-9, -1, 0, 1, 9], np.float32)
    assert to_uint8(x).tolist() == [0, 0, 128, 255, 255]


def test_every_level_survives() -> None:
    levels = np.arange(256)
    assert to_uint8((levels / 127.5 - 1).astype(np.float32)).tolist() == levels.tolist()


def test_a_preview_is_the_linear_map() -> None:
    rng = np.random.default_rng(0)
    latents = rng.normal(size=(1, 4, 2, 3, 5)).astype(np.float32)
    rows = rng.normal(size=(3, 5)) * 0.2
    got = latent_preview(latents, rows.tolist())
    assert got.shape == (2, 3, 5, 3)
    rgb = np.einsum("rc,cfhw->fhwr", rows[:, :4], latents[0]) + rows[:, 4]
    expected = np.floor(np.clip((rgb + 1) / 2, 0, 1) * 255 + 0.5)
    assert np.abs(got - expected).max() <= 1
    assert (got == expected).mean() > 0.9
