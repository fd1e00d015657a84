"""One line on a terminal that says how far a generation is; nothing when stderr is no terminal."""

from __future__ import annotations

import sys
from typing import TextIO

_WIDTH = 24


class Progress:
    """Redraws one stderr line; ``close`` wipes it before anything else is printed."""

    def __init__(self, *, quiet: bool = False, stream: TextIO | None = None) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._quiet = quiet
        self._shown = not quiet and self._stream is not None and self._stream.isatty()
        self._length = 0

    def step(self, done: int, total: int, seconds: float) -> None:
        """Show ``done`` of ``total`` steps, the last of which took ``seconds``."""
        filled = _WIDTH * done // total
        bar = "#" * filled + "." * (_WIDTH - filled)
        self._draw(f"drawing [{bar}] {done}/{total}  {seconds:.1f} s a step")

    def note(self, text: str) -> None:
        """Show a stage that has no steps."""
        self._draw(text)

    def warn(self, code: str, text: str) -> None:
        """Print one line that stays, on any kind of stderr."""
        self.keep(f"warning[{code}]: {text}")

    def keep(self, line: str) -> None:
        """Print a line that stays."""
        self.close()
        if not self._quiet and self._stream is not None:
            print(line, file=self._stream, flush=True)

    def close(self) -> None:
        """Wipe the line."""
        self._draw("")
        if self._shown:
            self._stream.write("\r")
            self._stream.flush()

    def _draw(self, text: str) -> None:
        if self._shown:
            self._stream.write("\r" + text.ljust(self._length))
            self._stream.flush()
            self._length = len(text)
