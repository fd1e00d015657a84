"""Learning curve of a run as a PNG, drawn with Pillow from the rows of log.jsonl.

Loss on a logarithmic axis over steps: points as reported, a smoothed line through them, a vertical
line where a phase begins.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hummingbird_runtime.atomic import atomic_file

SIZE = (900, 480)
MARGIN = (70, 30, 20, 45)
"""Left, top, right and bottom, in pixels."""

INK, GRID, POINT, LINE = (40, 40, 40), (222, 222, 222), (160, 190, 225), (20, 80, 160)


def smoothed(values: Sequence[float], decay: float = 0.8) -> list[float]:
    """Exponential moving average without a bias to its start."""
    out, mean, weight = [], 0.0, 0.0
    for value in values:
        mean, weight = decay * mean + (1 - decay) * value, decay * weight + (1 - decay)
        out.append(mean / weight)
    return out


def plot_loss(rows: Sequence[Mapping[str, Any]], path: Path, *, key: str = "loss") -> bool:
    """Draw the curve.

    Args:
        rows: of log.jsonl, with ``step``, ``phase`` and ``key``.
        path: PNG file, replaced.
        key: the number to draw.

    Returns:
        False, and no file, when fewer than two rows have a positive finite value.

    Raises:
        ResourceError: an ``output.*`` code for what the system refuses.
    """
    from PIL import Image, ImageDraw

    kept = [r for r in rows if isinstance(r.get(key), float) and 0.0 < r[key] < math.inf]
    if len(kept) < 2:
        return False
    steps, values = [r["step"] for r in kept], [r[key] for r in kept]
    low, high = math.log10(min(values)), math.log10(max(values))
    pad = max(0.02, 0.05 * (high - low))
    low, high = low - pad, high + pad
    left, top, right, bottom = MARGIN
    width, height = SIZE[0] - left - right, SIZE[1] - top - bottom

    def x(step: float) -> float:
        return left + width * step / max(steps)

    def y(value: float) -> float:
        return top + height * (high - math.log10(value)) / (high - low)

    image = Image.new("RGB", SIZE, "white")
    draw = ImageDraw.Draw(image)
    for value in ticks(10**low, 10**high):
        draw.line([(left, y(value)), (left + width, y(value))], fill=GRID)
        draw.text((left - 8, y(value)), f"{value:.3g}", fill=INK, anchor="rm")
    for fraction in range(5):
        step = max(steps) * fraction // 4
        draw.text((x(step), top + height + 8), str(step), fill=INK, anchor="ma")
    for before, row in zip([None, *kept], kept, strict=False):
        if before is None or before["phase"] != row["phase"]:
            at = x(before["step"] if before else 0)
            draw.line([(at, top), (at, top + height)], fill=GRID, width=2)
            draw.text((at + 4, top + 3), str(row["phase"]), fill=INK)
    points = [(x(s), y(v)) for s, v in zip(steps, values, strict=True)]
    for px, py in points:
        draw.ellipse([px - 2, py - 2, px + 2, py + 2], fill=POINT)
    line = [(x(s), y(v)) for s, v in zip(steps, smoothed(values), strict=True)]
    draw.line(line, fill=LINE, width=2, joint="curve")
    draw.rectangle([left, top, left + width, top + height], outline=INK)
    draw.text((left, 8), f"{key}, {steps[-1]} steps, last {values[-1]:.4g}", fill=INK)
    with atomic_file(path, overwrite=True) as partial:
        image.save(partial, format="PNG")
    return True


def ticks(low: float, high: float) -> list[float]:
    """Round numbers between two positive bounds: 1, 2, 5 of each decade, or four even ones."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    round_ones = [m * 10.0**d for d in range(first, last + 1) for m in (1, 2, 5)]
    inside = [t for t in round_ones if low <= t <= high]
    if len(inside) >= 2:
        return inside
    return [low * (high / low) ** (i / 4) for i in range(1, 4)]
