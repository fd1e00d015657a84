"""How far a run is: means between two lines, log.jsonl, TensorBoard, and a bar for terminals.

The loop makes a `StepReport` every few seconds; where it goes is the caller's choice. Nothing here
prints: `TerminalBar` writes to the stream that a verb gives it.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from hummingbird_runtime.atomic import atomic_file
from hummingbird_runtime.errors import ResourceError
from hummingbird_runtime.output import output_error

LOG = "log.jsonl"
TENSORBOARD = "tensorboard"


@dataclass(frozen=True)
class StepReport:
    """A moment of a run, with means since the last one."""

    step: int
    """Steps done."""
    total: int
    """Steps of all phases."""
    phase: str
    learning_rate: float
    numbers: Mapping[str, float]
    """``loss``, ``grad`` (norm before clipping) and what the objective reports."""
    steps_per_second: float
    seconds_left: float
    skipped: int = 0
    """Steps left out so far because they were not finite."""

    def line(self) -> str:
        """One line for people."""
        means = " ".join(f"{k} {v:.4f}" for k, v in self.numbers.items())
        skipped = f", {self.skipped} skipped" if self.skipped else ""
        return (
            f"{self.phase} {self.step}/{self.total} {means} lr {self.learning_rate:.2e} "
            f"{self.steps_per_second:.2f} step/s, {duration(self.seconds_left)} left{skipped}"
        )

    def row(self) -> dict[str, Any]:
        """One line of ``log.jsonl``."""
        return {
            "step": self.step,
            "phase": self.phase,
            "learning_rate": self.learning_rate,
            "steps_per_second": round(self.steps_per_second, 4),
            "skipped": self.skipped,
            **self.numbers,
        }


def duration(seconds: float) -> str:
    """Seconds as ``12 s``, ``3.5 min`` or ``2.1 h``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


class Meter:
    """Running means, and the pace since this process began.

    Args:
        total: steps of all phases.
        step: steps done before this process.
    """

    def __init__(self, total: int, step: int) -> None:
        self.total, self.first = total, step
        self.started = time.monotonic()
        self._sums: dict[str, tuple[float, int]] = {}

    def add(self, numbers: Mapping[str, float]) -> None:
        """Take one step's numbers in."""
        for name, value in numbers.items():
            total, count = self._sums.get(name, (0.0, 0))
            self._sums[name] = total + value, count + 1

    def report(
        self, step: int, phase: str, learning_rate: float, skipped: int, *, clear: bool
    ) -> StepReport:
        """Means so far; ``clear`` begins new ones."""
        pace = (step - self.first) / max(1e-9, time.monotonic() - self.started)
        numbers = {name: total / count for name, (total, count) in self._sums.items()}
        if clear:
            self._sums.clear()
        left = (self.total - step) / max(1e-9, pace)
        return StepReport(step, self.total, phase, learning_rate, numbers, pace, left, skipped)


class RunLog:
    """``log.jsonl``: one line a report, each step at most once, however often the run was killed.

    Args:
        folder: of the run.
        step: steps done: later lines are from steps that will be done again and go.
    """

    def __init__(self, folder: Path, step: int) -> None:
        self.path = folder / LOG
        self.rows = [row for row in read_log(folder) if row["step"] <= step]
        with atomic_file(self.path, overwrite=True) as partial:
            partial.write_text("".join(json.dumps(r) + "\n" for r in self.rows), encoding="utf-8")

    def add(self, report: StepReport) -> None:
        """Append a line.

        Raises:
            ResourceError: an ``output.*`` code for what the system refuses.
        """
        self.rows.append(report.row())
        try:
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(json.dumps(self.rows[-1]) + "\n")
        except OSError as error:
            raise output_error(error, self.path) from error


def read_log(folder: Path) -> list[dict[str, Any]]:
    """Rows of a run's log, oldest first; a torn last line, and a missing file, are no error."""
    try:
        lines = (folder / LOG).read_text(encoding="utf-8", errors="replace").split("\n")
    except FileNotFoundError:
        return []
    rows = []
    for line in lines[:-1]:  # what follows the last line feed is torn, or nothing
        with contextlib.suppress(ValueError):
            row = json.loads(line)
            if isinstance(row, dict) and isinstance(row.get("step"), int):
                rows.append(row)
    return rows


class TensorBoardLog:
    """Scalars for TensorBoard.

    Args:
        folder: of the run; events go to its ``tensorboard``.

    Raises:
        ResourceError: ``extra.missing`` without the package.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ModuleNotFoundError as error:
            raise ResourceError(
                "extra.missing",
                f"tensorboard = true: got no module {error.name!r}, expected it to be installed",
                hint="pip install 'hummingbird-edge[tensorboard]'",
            ) from error
        self._writer = SummaryWriter(str(folder / TENSORBOARD))

    def add(self, report: StepReport) -> None:
        """Write every number of a report."""
        for name, value in {"learning_rate": report.learning_rate, **report.numbers}.items():
            self._writer.add_scalar(name, value, report.step)

    def close(self) -> None:
        """Flush and close the event file."""
        self._writer.close()


class TerminalBar:
    """Redraws one line on a terminal; elsewhere it shows nothing.

    Args:
        stream: usually stderr.
        every: seconds between two redraws.
    """

    WIDTH = 24

    def __init__(self, stream: TextIO, *, every: float = 0.2) -> None:
        self._stream, self._every = stream, every
        self._shown = stream.isatty()
        self._last = 0.0
        self._length = 0

    def __call__(self, report: StepReport) -> None:
        """Show a moment; called at every step."""
        now = time.monotonic()
        if not self._shown or (now - self._last < self._every and report.step < report.total):
            return
        self._last = now
        filled = self.WIDTH * report.step // max(1, report.total)
        bar = "#" * filled + "." * (self.WIDTH - filled)
        self._draw(f"[{bar}] {report.line()}"[:120])

    def print(self, line: str) -> None:
        """A line that stays, above the bar; for the loop's ``log``."""
        self.close()
        self._stream.write(line + "\n")
        self._stream.flush()

    def close(self) -> None:
        """Wipe the bar."""
        if self._length:
            self._draw("")
            self._stream.write("\r")

    def _draw(self, text: str) -> None:
        self._stream.write("\r" + text.ljust(self._length))
        self._stream.flush()
        self._length = len(text)


Sink = Callable[[StepReport], None]
"""Takes a report."""
