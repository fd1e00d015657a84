"""How far a clip is and how long the rest will take, from what its own steps took.

The first clip of a model knows nothing about decoding; then the rest of the steps alone is told,
and the bar keeps the last fifth for it. From the second clip on both parts are weighed by time.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field

_DECODE_SHARE = 0.2
"""Share of the bar for decoding while nobody knows how long it takes."""


@dataclass(frozen=True)
class Progress:
    """What a bar shows."""

    fraction: float
    """0..1, never falling within a clip."""
    seconds_left: float | None
    """None before the first step is done."""


@dataclass
class Estimator:
    """Times of one clip's steps and frames; ``decode_s`` is what decoding took last time."""

    steps: int
    frames: int
    decode_s: float | None = None
    _steps: list[float] = field(default_factory=list)
    _decoded: int = 0
    _decoding_s: float = 0.0
    _shown: float = 0.0

    def step(self, seconds: float) -> None:
        """One more step is done."""
        self._steps.append(seconds)

    def decoded(self, frames: int, seconds: float) -> None:
        """So many more frames came, ``seconds`` after what came before."""
        self._decoded += frames
        self._decoding_s += seconds

    def progress(self) -> Progress:
        """Where the clip is now."""
        if not self._steps:
            return Progress(self._shown, None)
        step_s = statistics.median(self._steps)
        decode_s = self.decode_s
        if self._decoded:
            decode_s = self._decoding_s * self.frames / self._decoded
        steps_left = max(self.steps - len(self._steps), 0) * step_s
        decode_left = (decode_s or 0.0) * (1 - self._decoded / self.frames)
        if decode_s is None:
            fraction = (1 - _DECODE_SHARE) * len(self._steps) / self.steps
        else:
            total = self.steps * step_s + decode_s
            fraction = 1 - (steps_left + decode_left) / total if total > 0 else 1.0
        self._shown = max(self._shown, min(fraction, 1.0))
        return Progress(self._shown, steps_left + decode_left)
