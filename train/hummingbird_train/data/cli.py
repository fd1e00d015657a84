"""`hummingbird train data SOURCE`: what a source holds, and which of its clips cannot be used."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hummingbird_runtime.cli.parser import Parser, number_in

SHOWN = 20


def main(argv: list[str]) -> int:
    """Print counts, sizes, rates, captions and failures of a source; 3 when a clip fails.

    Raises:
        InputError: ``data.source``, ``data.empty``, ``data.row``.
    """
    parser = Parser(
        prog="hummingbird train data",
        description="Check the clips of a folder, of WebDataset shards or of a table: every clip "
        "is opened and a sample of it decoded.",
    )
    add = parser.add_argument
    add("source", type=Path, metavar="SOURCE")
    add("--num-frames", type=number_in(1, 104), default=16, help="of a sample (%(default)s)")
    add("--height", type=number_in(8, 4096), default=320, help="of a sample (%(default)s)")
    add("--width", type=number_in(8, 4096), default=512, help="of a sample (%(default)s)")
    add("--stride", type=number_in(1, 100), nargs=2, default=(1, 6), metavar=("LOW", "HIGH"),
        help="range of steps between frames (1 6)")  # fmt: skip
    add("--seed", type=number_in(0, 2**62), default=0, help="of the samples (%(default)s)")
    add("--json", action="store_true", help="one JSON object")
    parsed = parser.parse(argv)
    from hummingbird_train.data.loader import open_dataset

    dataset = open_dataset(
        parsed.source,
        frames=parsed.num_frames,
        size=(parsed.height, parsed.width),
        stride=tuple(parsed.stride),
        seed=parsed.seed,
        on_failure="skip",
    )
    shows = sys.stderr.isatty() and not parsed.json

    def progress(done: int, total: int) -> None:
        if shows:
            print(f"\r{done} of {total} clips", end="\n" if done == total else "", file=sys.stderr)

    media = dataset.validate(progress)
    captions = [entry.caption for entry in dataset.entries]
    report: dict[str, Any] = {
        "clips": len(dataset),
        "readable": len(media),
        "images": sum(m.frames == 1 for m in media),
        "frames": _spread(m.frames for m in media),
        "sizes": dict(Counter(f"{m.width}x{m.height}" for m in media).most_common(8)),
        "fps": dict(Counter(_rate(m.fps) for m in media).most_common(8)),
        "suffixes": dict(Counter(entry.suffix for entry in dataset.entries)),
        "without_caption": sum(not text for text in captions),
        "words": _spread(len(text.split()) for text in captions),
        "captions": [text[:120] for text in dict.fromkeys(captions) if text][:5],
        "failures": {key: f"[{e.code}] {e.message}" for key, e in dataset.failures.items()},
    }
    print(json.dumps(report, indent=1, ensure_ascii=False) if parsed.json else _text(report))
    return 3 if dataset.failures else 0


def _rate(fps: float | None) -> str:
    return "unknown" if fps is None else f"{fps:.4g}"


def _spread(values: Iterable[int]) -> list[int]:
    """Smallest, middle and largest."""
    ordered = sorted(values)
    return [ordered[0], ordered[len(ordered) // 2], ordered[-1]] if ordered else []


def _text(report: dict[str, Any]) -> str:
    counts = ("clips", "readable", "images", "without_caption")
    lines = [f"{name.replace('_', ' '):16}{report[name]}" for name in counts]
    for name in ("frames", "words"):
        low, middle, high = report[name] or ("-",) * 3
        lines.append(f"{name:16}{low} to {high}, median {middle}")
    for name in ("sizes", "fps", "suffixes"):
        found = ", ".join(f"{value} ({count})" for value, count in report[name].items())
        lines.append(f"{name:16}{found}")
    lines += [f"{'caption':16}{text}" for text in report["captions"]]
    failures = list(report["failures"].items())
    lines.append(f"{'failures':16}{len(failures)}")
    lines += [f"  {key}: {why}" for key, why in failures[:SHOWN]]
    if len(failures) > SHOWN:
        lines.append(f"  and {len(failures) - SHOWN} more; --json prints all")
    return "\n".join(lines)
