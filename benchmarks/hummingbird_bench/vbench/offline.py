"""A folder of clips judged without weights: temporal flickering, and proxies by their own names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hummingbird_bench.vbench.flicker import read_frames, temporal_flickering
from hummingbird_bench.vbench.proxies import motion_smoothness_dis, moves_dis
from hummingbird_runtime.errors import HummingbirdError, InputError

_FPS = 8.0  # VBench thins clips to this rate; suite clips play at about it


def judge_offline(
    folder: Path,
) -> tuple[dict[str, float], dict[str, HummingbirdError]]:
    """Judge every ``.mp4`` of a folder.

    Returns:
        (means by name, and ``clips``, how many were judged; failures by file name).

    Raises:
        ResourceError: ``extra.missing``.
    """
    rows: list[Mapping[str, float | None]] = []
    failures: dict[str, HummingbirdError] = {}
    for path in sorted(folder.glob("*.mp4")):
        try:
            frames = read_frames(path)
            moves = moves_dis(frames, _FPS)
            rows.append(
                {
                    "temporal_flickering": temporal_flickering(frames),
                    "motion_smoothness_dis": motion_smoothness_dis(frames),
                    "dynamic_degree_dis": None if moves is None else float(moves),
                }
            )
        except InputError as error:
            failures[path.name] = error
    means: dict[str, float] = {"clips": float(len(rows))}
    for name in rows[0] if rows else ():
        values = [row[name] for row in rows]
        present = [value for value in values if value is not None]
        if present:
            means[name] = float(np.mean(present))
    return means, failures


def offline_table(means: Mapping[str, Any]) -> str:
    """The means as Markdown, the exact dimension apart from the proxies."""
    lines = [f"{int(means['clips'])} clips, all of them (no static filter)", ""]
    sections: Sequence[tuple[str, tuple[str, ...]]] = (
        ("exact", ("temporal_flickering",)),
        ("weights-free proxies", ("motion_smoothness_dis", "dynamic_degree_dis")),
    )
    for title, wanted in sections:
        found = [name for name in wanted if name in means]
        if found:
            lines += [f"| {title} | mean, % |", "|---|---:|"]
            lines += [f"| {name} | {100 * means[name]:.2f} |" for name in found]
            lines.append("")
    return "\n".join([*lines, "Proxies are not VBench's dimensions; no Total follows from them."])
