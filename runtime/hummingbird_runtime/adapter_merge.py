"""The arithmetic of styles: one stored weight and the low-rank changes of it, in NumPy.

Float weights: W + strength (alpha / r) up down. Integer weights: dequantized, changed, rounded
again on their stored scales, since another scale would need another graph.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hummingbird_runtime.adapter_map import MAP, Stored, Weight
from hummingbird_runtime.errors import InputError
from hummingbird_runtime.strict_json import fail

MAX_SATURATED = 0.005
"""Share of an initializer's values that may leave the range of its integers."""
SEVEN_BITS = 64
"""Largest integer weight that no kernel overflows with: 2 * 255 * 64 < 2^15."""
Read = Callable[[Stored], NDArray[Any]]


@dataclass(frozen=True, eq=False)
class Factors:
    """The change of one module: scale up down."""

    up: NDArray[np.float32]
    """(out, r)"""
    down: NDArray[np.float32]
    """(r, in and kernel, flat)"""
    scale: float
    """alpha / r."""


def merge_weight(
    changes: Sequence[tuple[Weight, Factors]], strength: float, read: Read
) -> NDArray[Any]:
    """The changed initializer, in its own type and layout.

    Args:
        changes: every change of the one initializer that all the weights name.
        strength: factor of each change.
        read: gives the array of a stored initializer.

    Raises:
        InputError: ``adapter.saturates`` above ``MAX_SATURATED``, for float16 above 0;
            ``bundle.manifest_invalid`` for scales or shapes that make no sense.
    """
    weight = changes[0][0]
    stored = read(weight)
    zero = _per_channel(weight, weight.zero_point, 0.0, read)
    scale = _per_channel(weight, weight.scale, 1.0, read)
    if not (np.isfinite(scale).all() and (scale > 0).all()):
        fail(MAP, f"{weight.name[:80]}: got scales of 0 or less, expected positive ones")
    levels = stored.astype(np.float32) - zero
    changed: NDArray[np.float32] = levels * scale
    for part, change in changes:
        if part.dims != weight.dims:
            fail(MAP, f"{weight.name[:80]}: got two shapes, expected one")
        changed += _change(part, change, strength, read)
    if weight.scale is None:
        with np.errstate(over="ignore"):
            result: NDArray[Any] = changed.astype(stored.dtype)
        _refuse_saturated(weight, ~np.isfinite(result), 0.0, strength)
        return result
    steps = np.rint(changed / scale)
    # a base that uses more than 7 bits was meant for kernels that take them
    limit, kind = max(SEVEN_BITS, float(np.abs(levels).max())), np.iinfo(stored.dtype)
    kept = np.clip(steps, np.maximum(-limit, kind.min - zero), np.minimum(limit, kind.max - zero))
    _refuse_saturated(weight, kept != steps, MAX_SATURATED, strength)
    result = (kept + zero).astype(stored.dtype)
    return result


def _change(weight: Weight, change: Factors, strength: float, read: Read) -> NDArray[np.float32]:
    """What is added to a weight, in its layout."""
    low, high = weight.rows or (0, weight.out_channels)
    delta: NDArray[Any] = (change.up[low:high] * np.float32(strength * change.scale)) @ change.down
    if weight.input_gain is not None:
        gain = read(weight.input_gain).astype(np.float32).ravel()
        delta = delta * np.repeat(gain, delta.shape[1] // gain.size)
    if weight.output_gain is not None:
        delta = delta * read(weight.output_gain).astype(np.float32).reshape(-1, 1)
    return delta.T if weight.out_axis else delta.reshape(weight.dims)


def _per_channel(
    weight: Weight, stored: Stored | None, default: float, read: Read
) -> NDArray[np.float32]:
    """Scales or zero points in a shape that multiplies with the weight's."""
    if stored is None:
        return np.array(default, np.float32)
    shape = [1] * len(weight.dims)
    shape[weight.out_axis] = -1
    return read(stored).astype(np.float32).reshape(shape)


def _refuse_saturated(
    weight: Weight, outside: NDArray[np.bool_], allowed: float, strength: float
) -> None:
    share = float(outside.mean())
    if share > allowed:
        raise InputError(
            "adapter.saturates",
            f"adapter at strength {strength:g}: {share:.2%} of {weight.name[:80]} leaves the range "
            f"of {weight.dtype}, expected at most {allowed:.2%}",
            hint="lower the strength, or use a bundle in float32",
        )
