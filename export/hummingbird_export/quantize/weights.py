"""Weights as whole numbers: int8 per output channel, int4 and int8 in blocks, exactly reversible.

All functions work on rows (outputs, inputs, taps) of one layer, the only one in memory. Symmetric:
w ~ scale * q, no zero point. int8 has 7 bits: kernels for AVX2 add two products of uint8 x int8 in
16 bits with saturation (vpmaddubsw), and 2 * 255 * 64 fits where 2 * 255 * 127 does not.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hummingbird_export.quantize.layers import Rows

SEVEN_BITS = 64
"""Largest |q| of weights that meet uint8 activations: 2 * 255 * 64 < 2^15."""

EIGHT_BITS = 127
"""Largest |q| of weights that are widened to float32 before use."""

FOUR_BITS = 7
"""Largest |q| of int4 weights."""

_LARGEST_FACTOR = 9

TWO_LEVELS = FOUR_BITS * _LARGEST_FACTOR
"""Largest |q * factor| of int4 weights that are widened to 7-bit int8."""

BLOCK = 32
"""Weights that share a scale in blocked storage: MatMulNBits' and GGML's usual size."""

SLAB = 1 << 20
"""Elements worked on at once: a slab and its temporaries stay in the cache."""

_SHRINK = np.linspace(1.0, 0.55, 10, dtype=np.float32)
"""Fractions of the largest weight that are tried as the end of an int4 range."""


class Quantized(NamedTuple):
    """Whole numbers and their scales."""

    q: NDArray[np.int8]
    """The rows' shape; blocked storage flattens (inputs, taps) and pads the last block by zeros."""
    scale: NDArray[np.float32]
    """(outputs,) or (outputs, blocks)."""


class TwoLevel(NamedTuple):
    """int4 numbers that become 7-bit int8 numbers by a small whole factor per block."""

    q: NDArray[np.int8]
    """(outputs, blocks, BLOCK), -7..7."""
    factor: NDArray[np.int8]
    """(outputs, blocks, 1), 1..9; q * factor is within -63..63."""


def per_channel(rows: Rows, limit: int = SEVEN_BITS, scale: Rows | None = None) -> Quantized:
    """One scale per output channel, |q| <= limit.

    Args:
        rows: (outputs, inputs, taps).
        limit: largest |q|.
        scale: (outputs,), or None for the largest weight of each channel over ``limit``.
    """
    scales = channel_scales(rows, limit) if scale is None else scale
    q = np.empty(rows.shape, np.int8)
    for part in slabs(rows):
        numbers = rows[part] / scales[part, None, None]
        np.rint(numbers, out=numbers)
        np.clip(numbers, -limit, limit, out=numbers)
        q[part] = numbers
    return Quantized(q, scales)


def slabs(rows: Rows) -> list[slice]:
    """Cuts along the outputs, each of about ``SLAB`` elements."""
    step = max(1, SLAB // max(1, rows[0].size))
    return [slice(start, start + step) for start in range(0, len(rows), step)]


def channel_scales(rows: Rows, limit: int = SEVEN_BITS) -> NDArray[np.float32]:
    """Largest weight of each output channel over ``limit``; 1 for channels that are all zero."""
    flat = rows.reshape(len(rows), -1)
    largest = np.maximum(flat.max(axis=1), -flat.min(axis=1))
    return np.where(largest > 0, largest / np.float32(limit), np.float32(1)).astype(np.float32)


def best_clipping(rows: Rows, limit: int) -> NDArray[np.float32]:
    """Scales (outputs,) with the smallest squared error among ten clippings.

    Worth it below 6 bits: there a few clipped weights cost less than a coarse step for all.
    """
    scale = channel_scales(rows, limit)
    parts = [_search(rows[p].reshape(-1, rows[0].size), scale[p], limit) for p in slabs(rows)]
    return np.concatenate(parts)


def blocked(rows: Rows, limit: int, *, clip: bool = False, block: int = BLOCK) -> Quantized:
    """One scale per block of ``block`` neighbouring weights of an output channel.

    Args:
        rows: (outputs, inputs, taps), flattened over (inputs, taps).
        limit: ``FOUR_BITS`` or ``EIGHT_BITS``.
        clip: search for the clipping with the smallest squared error.
        block: weights per block.

    Returns:
        q (outputs, blocks * block), scale (outputs, blocks), exactly float16 numbers.
    """
    parts = [_blocked(rows[part], limit, clip, block) for part in slabs(rows)]
    return Quantized(*(np.concatenate(fields) for fields in zip(*parts, strict=True)))


def _blocked(rows: Rows, limit: int, clip: bool, block: int) -> Quantized:
    flat = _blocks(rows, block)
    largest = np.abs(flat).max(axis=2)
    scale = np.where(largest > 0, largest / np.float32(limit), np.float32(1)).astype(np.float32)
    if clip:
        scale = _search(flat.reshape(-1, block), scale.reshape(-1), limit).reshape(scale.shape)
    scale = half_scales(scale)
    q = np.rint(flat / scale[:, :, None])
    np.clip(q, -limit, limit, out=q)
    return Quantized(q.astype(np.int8).reshape(len(rows), -1), scale)


def two_level(rows: Rows, scale: NDArray[np.float32]) -> TwoLevel:
    """int4 storage of int8 weights: w ~ scale[o] * factor[o, block] * q.

    Arithmetic stays that of 7-bit int8 weights; the file has 4.25 bits a weight. The factor is the
    best of three near the one that fits the largest weight of the block.

    Args:
        rows: (outputs, inputs, taps).
        scale: ``channel_scales(rows, TWO_LEVELS)``.
    """
    parts = [_two_level(rows[part], scale[part]) for part in slabs(rows)]
    return TwoLevel(*(np.concatenate(fields) for fields in zip(*parts, strict=True)))


def _two_level(rows: Rows, scale: NDArray[np.float32]) -> TwoLevel:
    flat = _blocks(rows, BLOCK)
    fitting = np.abs(flat).max(axis=2) / (scale[:, None] * FOUR_BITS)
    best_q = np.zeros(flat.shape, np.int8)
    best_factor = np.ones(fitting.shape, np.int8)
    least = np.full(fitting.shape, np.inf, np.float32)
    for shrink in (1.0, 0.85, 0.7):
        factor = np.clip(np.rint(fitting * np.float32(shrink)), 1, _LARGEST_FACTOR)
        step = (scale[:, None] * factor)[:, :, None]
        q = np.clip(np.rint(flat / step), -FOUR_BITS, FOUR_BITS)
        error = np.square(q * step - flat).sum(axis=2)
        better = error < least
        least[better], best_factor[better] = error[better], factor[better].astype(np.int8)
        best_q[better] = q[better].astype(np.int8)
    return TwoLevel(best_q, best_factor[:, :, None])


def restore(quantized: Quantized, shape: tuple[int, ...]) -> Rows:
    """The float32 rows that the numbers stand for, cut to ``shape`` (outputs, inputs, taps)."""
    q, scale = quantized.q, quantized.scale
    if scale.ndim == 1:
        values = q.reshape(len(q), -1).astype(np.float32) * scale[:, None]
    else:
        blocks = q.reshape(len(q), scale.shape[1], -1).astype(np.float32)
        values = (blocks * scale[:, :, None]).reshape(len(q), -1)
    return np.ascontiguousarray(values[:, : int(np.prod(shape[1:]))]).reshape(shape)


def widen(numbers: TwoLevel, shape: tuple[int, ...]) -> NDArray[np.int8]:
    """The int8 numbers that are computed with, cut to ``shape`` (outputs, inputs, taps)."""
    flat = (numbers.q * numbers.factor).reshape(len(numbers.q), -1)
    return np.ascontiguousarray(flat[:, : int(np.prod(shape[1:]))]).reshape(shape)


def half_scales(scale: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scales rounded to float16, in which they are stored; none becomes zero."""
    smallest = np.float32(np.finfo(np.float16).tiny)
    return np.maximum(scale, smallest).astype(np.float16).astype(np.float32)


def _blocks(rows: Rows, block: int) -> NDArray[np.float32]:
    flat = rows.reshape(len(rows), -1)
    missing = -flat.shape[1] % block
    if missing:
        flat = np.pad(flat, ((0, 0), (0, missing)))
    return flat.reshape(len(rows), -1, block)


def _search(
    flat: NDArray[np.float32], scale: NDArray[np.float32], limit: int
) -> NDArray[np.float32]:
    best, best_error = scale.copy(), np.full(len(flat), np.inf, np.float32)
    for shrink in _SHRINK:
        trial = scale * shrink
        q = flat / trial[:, None]
        np.rint(q, out=q)
        np.clip(q, -limit, limit, out=q)
        q *= trial[:, None]
        q -= flat
        error = np.einsum("ij,ij->i", q, q)
        better = error < best_error
        best[better], best_error[better] = trial[better], error[better]
    return best
