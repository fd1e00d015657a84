"""Scales of activations: a range as uint8 scale and zero point, for a tensor or per channel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from hummingbird_export.quantize.ranges import Channels, Spread
from hummingbird_export.quantize.rewriter import Rewriter

MARGIN = 1.05
"""Observed ranges are widened by this: large clips hold values that small ones did not."""

SMALLEST = 1e-12
"""Smallest scale; what is always zero still needs one."""


@dataclass(frozen=True)
class Affine:
    """x ~ scale * (q - zero) with q uint8."""

    scale: float
    zero: int

    def constants(self, rewriter: Rewriter) -> tuple[ir.Value, ir.Value]:
        """Scale and zero point as graph constants."""
        return rewriter.shared(np.float32(self.scale)), rewriter.shared(np.uint8(self.zero))


def tensor_scale(seen: Spread, factor: Channels) -> Affine:
    """One scale for an activation whose channel k is divided by factor k; 0 is exact."""
    low = min(float((seen.low / factor).min()), 0.0) * MARGIN
    high = max(float((seen.high / factor).max()), 0.0) * MARGIN
    scale = np.float32(max((high - low) / 255.0, SMALLEST))
    return Affine(float(scale), int(np.clip(np.rint(-low / scale), 0, 255)))


def channel_scales(seen: Spread) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """A scale and a zero point per channel; 0 is exact in each."""
    low, high = np.minimum(seen.low, 0) * MARGIN, np.maximum(seen.high, 0) * MARGIN
    scale = np.maximum((high - low) / np.float32(255), np.float32(SMALLEST)).astype(np.float32)
    zero = np.clip(np.rint(-low / scale), 0, 255)
    return scale, zero.astype(np.uint8)
