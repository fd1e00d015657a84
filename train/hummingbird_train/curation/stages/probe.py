"""What the file is: size, rate, length, codec. Also the cheapest reject: too small or too short."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from hummingbird_train.curation.clip import Clip
from hummingbird_train.curation.decode import Frames
from hummingbird_train.curation.stage import FramePlan, Score, Scores, SkipRest, Stage
from hummingbird_train.curation.stages.plans import KEYS


@dataclass(frozen=True)
class Probe(Stage):
    """The facts of a clip that its container and its time stamps tell."""

    name: ClassVar[str] = "probe"
    version: ClassVar[int] = 1
    needs: ClassVar[FramePlan] = KEYS
    after: ClassVar[tuple[str, ...]] = ()

    reject_side: int = 0
    """pixels: a shorter side below this ends the clip here; 0: none does."""
    reject_seconds: float = 0.0
    """seconds: a shorter clip ends here; 0: none does."""

    def score(self, clip: Clip, frames: Frames, earlier: Mapping[str, Scores]) -> Scores:
        """Keys ``width height side fps frames seconds codec has_audio variable_fps bit_rate``."""
        info = frames.info
        side = min(info.width, info.height)
        scores: dict[str, Score] = {
            "width": info.width,
            "height": info.height,
            "side": side,
            "fps": info.fps,
            "frames": info.frames,
            "seconds": info.duration,
            "codec": info.codec,
            "has_audio": info.has_audio,
            "variable_fps": info.variable_fps,
            "bit_rate": info.bit_rate,
        }
        if side < self.reject_side:
            raise SkipRest(f"{side} px < {self.reject_side}", scores)
        if info.duration < self.reject_seconds:
            raise SkipRest(f"{info.duration:.2f} s < {self.reject_seconds}", scores)
        return scores
