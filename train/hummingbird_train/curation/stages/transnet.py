"""Shot transitions by TransNetV2 (Soucek and Lokoc 2020), as an ONNX file that the user exports.

Finds fades and dissolves, which the rules of ``shots`` do not. Input [1, 100, 27, 48, 3] RGB
0..255, first output logits [1, 100, 1] of "this frame is in a transition"; windows step by 50.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from hummingbird_train.curation.clip import Clip
from hummingbird_train.curation.decode import Frames
from hummingbird_train.curation.stage import FramePlan, Scores, Stage
from hummingbird_train.curation.stages.model_file import file_sha256
from hummingbird_train.curation.stages.onnx_model import open_checked, refuse_interface, run_model
from hummingbird_train.curation.stages.opencv import opencv
from hummingbird_train.curation.stages.plans import ALL

HEIGHT, WIDTH = 27, 48  # pixels
WINDOW, STEP = 100, 50  # frames seen at once; frames whose answer counts, those in the middle


@dataclass(frozen=True)
class TransNet(Stage):
    """Number and places of transitions."""

    name: ClassVar[str] = "transnet"
    version: ClassVar[int] = 2
    needs: ClassVar[FramePlan] = ALL
    after: ClassVar[tuple[str, ...]] = ()

    model: str
    """ONNX file."""
    threshold: float = 0.5
    """probability of a transition."""

    def parameters(self) -> Mapping[str, object]:
        """The threshold, and the digest of the model."""
        return {"threshold": self.threshold, "model": file_sha256(self.model)}

    def score(self, clip: Clip, frames: Frames, earlier: Mapping[str, Scores]) -> Scores:
        """Keys ``cuts``, ``times`` (s, text: first frames of new shots), ``peak``."""
        chance = transition_chance(frames.of(ALL), self.model)
        over = chance >= self.threshold
        starts = np.flatnonzero(~over[1:] & over[:-1]) + 1  # the first frame after a transition
        times = frames.times(ALL)[starts]
        return {
            "cuts": len(starts),
            "times": " ".join(f"{moment:.3f}" for moment in times),
            "peak": float(chance.max()),
        }


def transition_chance(frames: NDArray[np.uint8], path: str) -> NDArray[np.float64]:
    """Probability that each frame belongs to a transition: uint8 [n, h, w, 3] to [n].

    Raises:
        InputError: ``stage.interface``.
    """
    cv2 = opencv()
    size = (WIDTH, HEIGHT)
    small = np.stack([cv2.resize(f, size, interpolation=cv2.INTER_AREA) for f in frames])
    margin = (WINDOW - STEP) // 2
    short = -len(small) % STEP
    padded = np.concatenate(
        [small[:1].repeat(margin, 0), small, small[-1:].repeat(margin + short, 0)]
    )
    session = open_checked(path)
    feed = session.get_inputs()[0]
    kind = np.float32 if "float" in feed.type else np.uint8
    chances = []
    for start in range(0, len(small), STEP):
        window = padded[None, start : start + WINDOW].astype(kind)  # (1, 100, 27, 48, 3)
        logits = next(iter(run_model(session, {feed.name: window}).values()))
        if logits.size != WINDOW:
            raise refuse_interface(path, f"logits {list(logits.shape)}", f"{WINDOW} logits")
        chances.append(
            1 / (1 + np.exp(-np.clip(logits.reshape(-1)[margin : margin + STEP], -60, 60)))
        )
    return np.concatenate(chances).astype(np.float64)[: len(small)]
