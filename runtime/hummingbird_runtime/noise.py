"""The noise of the sampler: specified bit for bit, not inherited from a library.

Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3") is counter-based:
an element's noise depends on (seed, stream, element) alone. So chunks, resumed runs and longer
clips never change earlier noise, and any language can reproduce it.

1. key words: (seed mod 2^32, seed div 2^32); counter words: (element, stream, 0, 0).
   Elements are numbered row-major over (F, C, h, w). Stream 0 is the initial latent, stream 1 + i
   the noise on leaving step i.
2. The four output words are w0..w3; w2 and w3 are not used. m = w0 2^20 + floor(w1 / 2^12) is an
   integer below 2^52, and u = (m + 1/2) 2^-52 lies in [2^-53, 1 - 2^-53], exact in float64.
3. The normal is ``normal.normal_quantile(u)`` in float64, then rounded to float32.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hummingbird_runtime.errors import InputError
from hummingbird_runtime.normal import normal_quantile

Words = NDArray[np.uint32]

SEED_LIMIT = 1 << 64
_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10
# elements computed at once, so that the working arrays stay in cache
_CHUNK = 1 << 14


def philox4x32(counter: tuple[Words, Words, Words, Words], key: tuple[int, int]) -> list[Words]:
    """Philox4x32-10: four uint32 arrays of counter words and two key words to four arrays.

    Args:
        counter: arrays of one common length, word 0 first.
        key: two integers in 0..2^32-1.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    m0, m1 = _MULTIPLIERS
    shift = np.uint64(32)
    for _ in range(_ROUNDS):
        p0 = np.multiply(c0, m0, dtype=np.uint64)
        p1 = np.multiply(c2, m1, dtype=np.uint64)
        c0, c2 = (
            (p1 >> shift).astype(np.uint32) ^ c1 ^ np.uint32(k0),
            (p0 >> shift).astype(np.uint32) ^ c3 ^ np.uint32(k1),
        )
        c1, c3 = p1.astype(np.uint32), p0.astype(np.uint32)  # the low words
        k0, k1 = (k0 + _WEYL[0]) & 0xFFFFFFFF, (k1 + _WEYL[1]) & 0xFFFFFFFF
    return [c0, c1, c2, c3]


def uniforms(seed: int, stream: int, start: int, stop: int) -> NDArray[np.float64]:
    """The u of step 2 for elements start..stop-1: float64 [stop - start] inside (0, 1)."""
    element = np.arange(start, stop, dtype=np.uint32)
    zero = np.zeros_like(element)
    key = (seed & 0xFFFFFFFF, seed >> 32)
    w0, w1, _, _ = philox4x32((element, np.full_like(element, stream), zero, zero), key)
    m = (w0.astype(np.uint64) << np.uint64(20)) | (w1 >> np.uint32(12))
    return (m.astype(np.float64) + 0.5) * 2.0**-52


def noise(
    seed: int, stream: int, frames: int, channels: int, height: int, width: int
) -> NDArray[np.float32]:
    """Standard normal noise of a latent clip: float32 [1, C, F, h, w].

    Args:
        seed: 0..2^64-1.
        stream: 0 for the initial latent, 1 + i for the noise on leaving step i; below 2^32.
        frames: F, latent frames, at least 1; the product of the four sizes is at most 2^32.
        channels: C, latent channels.
        height: h, latent rows.
        width: w, latent columns.

    Raises:
        InputError: ``request.seed`` when the seed is outside 64 bits.
    """
    if not 0 <= seed < SEED_LIMIT:
        raise InputError(
            "request.seed",
            f"seed, got {seed}, expected 0..2^64-1 ({SEED_LIMIT - 1})",
            hint="give a whole number inside the range",
        )
    count = frames * channels * height * width
    assert 0 < count <= 1 << 32, "request validation caps the latent"
    assert 0 <= stream < 1 << 32, "streams are numbered by steps"
    values = np.empty(count, np.float32)
    for start in range(0, count, _CHUNK):
        stop = min(start + _CHUNK, count)
        values[start:stop] = normal_quantile(uniforms(seed, stream, start, stop))
    by_frame = values.reshape(frames, channels, height, width)  # (f, c, h, w)
    return np.ascontiguousarray(by_frame.transpose(1, 0, 2, 3)[np.newaxis])  # (1, c, f, h, w)
