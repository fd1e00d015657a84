"""The ladder as a page: Markdown tables, paired differences of rungs, strips of clips."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hummingbird_runtime.atomic import atomic_file
from hummingbird_runtime.errors import UsageError
from hummingbird_train.ladder import Row, slug
from hummingbird_train.world.accuracy import ALL, markdown
from hummingbird_train.world.judge import ATTRIBUTES

RESAMPLES = 4000
COLUMNS = 6
"""Frames of a clip in its strip."""


def tables(rows: Sequence[Row], tier: int) -> str:
    """Accuracies, then everything else, as two Markdown tables."""
    lines = [markdown({row.name: row.accuracies for row in rows}, tier), ""]
    lines += [
        "Parameters and work are those of the U-Net; work counts every pass of one clip. Diversity",
        "is the root-mean-square difference of two seeds' clips of a prompt, motion that of",
        "neighbouring frames, both in levels of 255. Times are medians of a clip.",
        "",
        "| clips | parameters | GFLOP a clip | ms a clip | Frechet distance | diversity | motion |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = [
            row.name,
            "" if row.parameters is None else f"{row.parameters:,}",
            _number(row.gflop, ".1f"),
            _number(row.milliseconds, ".0f"),
            _number(row.frechet, ".3g"),
            _number(row.diversity, ".1f"),
            _number(row.motion, ".2f"),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def difference(a: Row, b: Row, name: str) -> tuple[float, float, float]:
    """Share right in ``a`` less that in ``b``, with its 95 % interval: prompts resampled in pairs.

    Raises:
        UsageError: ``ladder.pairs`` for rows over other prompts or seeds.
    """
    if a.seeds != b.seeds or len(a.right[name]) != len(b.right[name]):
        raise UsageError(
            "ladder.pairs",
            f"rows {a.name!r} and {b.name!r}, got {len(a.right[name])} and {len(b.right[name])} "
            f"clips of {a.seeds} and {b.seeds} seeds, expected the same prompts and seeds",
            hint="give both rungs the same `prompts`",
        )
    gain = np.subtract(a.right[name], b.right[name], dtype=np.float64)
    by_prompt = gain.reshape(-1, a.seeds).mean(axis=1)
    drawn = np.random.default_rng(0).integers(0, len(by_prompt), (RESAMPLES, len(by_prompt)))
    low, high = np.percentile(by_prompt[drawn].mean(axis=1), [2.5, 97.5])
    return float(by_prompt.mean()), float(low), float(high)


def differences(rows: Mapping[str, Row], pairs: Sequence[tuple[str, str]]) -> str:
    """One line a pair of rungs: points gained by the first, with bootstrap intervals.

    Raises:
        UsageError: ``ladder.pairs``, also for a name that no rung has.
    """
    columns = (*ATTRIBUTES, ALL)
    lines = [
        "Points of 100 that the first has more than the second, same prompts and seeds, with the",
        f"95 % interval of a bootstrap over prompts ({RESAMPLES} resamples).",
        "",
        f"| rungs | {' | '.join(columns)} |",
        "|---" * (len(columns) + 1) + "|",
    ]
    for first, second in pairs:
        for name in (first, second):
            if name not in rows:
                raise UsageError(
                    "ladder.pairs",
                    f"compare, got {name!r}, expected one of {', '.join(rows)}",
                    hint="write the rung's name as in its table",
                )
        cells = []
        for name in columns:
            middle, low, high = (100 * x for x in difference(rows[first], rows[second], name))
            cells.append(f"{middle:+.1f} ({low:+.1f} to {high:+.1f})")
        lines.append(f"| {first}, against {second} | {' | '.join(cells)} |")
    return "\n".join(lines)


def pictures(rows: Sequence[Row], kept: Path, folder: Path) -> list[str]:
    """Write an animation and a strip of every rung's first clips; give Markdown lines.

    Args:
        rows: in order.
        kept: folder of the finished rungs.
        folder: of the pictures, ``ladder-NAME.webp`` and ``ladder-NAME.png``.
    """
    from PIL import Image

    lines: list[str] = []
    for row in rows:
        with np.load(kept / f"{slug(row.name)}.npz", allow_pickle=False) as file:
            clips: NDArray[np.uint8] = file["frames"]  # (n, f, h, w, 3)
        beside = np.concatenate(list(clips), axis=2)  # (f, h, n * w, 3)
        frames = [Image.fromarray(frame) for frame in beside]
        frames = [f.resize((f.width * 2, f.height * 2), Image.Resampling.BICUBIC) for f in frames]
        moving, still = (folder / f"ladder-{slug(row.name)}{end}" for end in (".webp", ".png"))
        with atomic_file(moving, overwrite=True) as partial:
            frames[0].save(
                partial, save_all=True, append_images=frames[1:], duration=125, loop=0, quality=80
            )
        columns = np.linspace(0, clips.shape[1] - 1, COLUMNS).round().astype(int)
        strip = np.concatenate([np.concatenate(list(clip[columns]), axis=1) for clip in clips])
        with atomic_file(still, overwrite=True) as partial:
            Image.fromarray(strip).save(partial)
        lines += [f"**{row.name}**", "", f"![{row.name}](images/{moving.name})", ""]
    return lines


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)
