"""Calibration of a large graph in a process of its own, so that its memory is given back whole."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hummingbird_export.quantize.calibrate import calibrate
from hummingbird_export.quantize.ranges import Ranges, load_ranges, save_ranges
from hummingbird_export.wrappers import Feeds
from hummingbird_runtime.errors import ExecutionError


def calibrate_apart(path: Path, feeds: Sequence[Feeds]) -> Ranges:
    """What ``calibrate(path, feeds)`` gives.

    Raises:
        ExecutionError: ``export.calibration`` with the child's last words.
    """
    with tempfile.TemporaryDirectory(prefix="hummingbird-") as name:
        folder = Path(name)
        for index, sample in enumerate(feeds):
            np.savez(folder / f"{index:04}.npz", allow_pickle=False, **sample)
        command = [sys.executable, "-m", "hummingbird_export.calibration_process"]
        done = subprocess.run(
            [*command, str(path), name], capture_output=True, text=True, check=False
        )
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no words"])[-1]
            raise ExecutionError(
                "export.calibration",
                f"calibration of {path.parent.name}: its process ended with status "
                f"{done.returncode}: {last[:300]}",
                hint="free memory, or look at the graph with a smaller clip",
            )
        return load_ranges(folder / "ranges")


def _main(path: Path, folder: Path) -> None:
    feeds: list[Feeds] = []
    for file in sorted(folder.glob("*.npz")):
        with np.load(file, allow_pickle=False) as stored:
            feeds.append(dict(stored))
    save_ranges(calibrate(path, feeds), folder / "ranges")


if __name__ == "__main__":
    _main(Path(sys.argv[1]), Path(sys.argv[2]))
