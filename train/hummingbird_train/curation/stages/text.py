"""Text laid over the picture: the share of it that a text detector's boxes cover, on one frame.

The detector is the one inside the ``rapidocr`` package (PP-OCR, differentiable binarisation, Liao
et al. 2020) or another of its kind. Text of the scene itself counts too; nothing is read. Only
boxes shaped like a line of text count: a lone round thing on a plain ground looks like a letter.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from hummingbird_runtime.cli.verbs import missing_extra
from hummingbird_train.curation.clip import Clip
from hummingbird_train.curation.decode import Frames
from hummingbird_train.curation.stage import FramePlan, Scores, Stage
from hummingbird_train.curation.stages.model_file import file_sha256
from hummingbird_train.curation.stages.onnx_model import open_checked, run_model
from hummingbird_train.curation.stages.opencv import opencv
from hummingbird_train.curation.stages.plans import MIDDLE

PIXEL, BOX = 0.3, 0.5  # probability of a text pixel; mean probability of a box that counts
UNCLIP = 1.6  # the detector marks shrunken text: area x UNCLIP / perimeter is added around it
LEAST = 3  # pixels, shorter side of a box
LONG, LOW = 1.8, 0.25  # least length over height of a line; its greatest height, of the frame's
MULTIPLE = 32  # of the detector's sides


@dataclass(frozen=True)
class TextOverlay(Stage):
    """Area and number of text boxes on the middle frame."""

    name: ClassVar[str] = "text"
    version: ClassVar[int] = 1
    needs: ClassVar[FramePlan] = MIDDLE
    after: ClassVar[tuple[str, ...]] = ()

    side: int = 256
    """pixels of the shorter side that the detector sees; more finds smaller text and costs more."""
    model: str = ""
    """ONNX file of a detector; empty: the one of the installed ``rapidocr``."""

    def parameters(self) -> Mapping[str, object]:
        """The side, and the digest of the detector."""
        return {"side": self.side, "model": file_sha256(self._path())}

    def score(self, clip: Clip, frames: Frames, earlier: Mapping[str, Scores]) -> Scores:
        """Keys ``area`` (share of the frame inside boxes), ``boxes``."""
        frame = frames.of(MIDDLE)[0]
        area, boxes = text_area(text_map(frame, self._path(), self.side))
        return {"area": area, "boxes": boxes}

    def _path(self) -> str:
        return self.model or bundled_detector()


@lru_cache(maxsize=1)
def bundled_detector() -> str:
    """Path of the detector inside the ``rapidocr`` package, which is not imported.

    Raises:
        ResourceError: ``extra.missing``.
    """
    found = importlib.util.find_spec("rapidocr")
    folder = Path(found.origin).parent / "models" if found and found.origin else None
    files = sorted(folder.glob("*det*.onnx")) if folder else []
    if not files:
        raise missing_extra("stage text", "rapidocr", "curate")
    return str(files[0])


def text_map(frame: NDArray[np.uint8], path: str, side: int) -> NDArray[np.float32]:
    """Probability of text: RGB uint8 [h, w, 3] to float32 [h', w'], its sides multiples of 32."""
    cv2 = opencv()
    scale = side / min(frame.shape[:2])
    height, width = (max(1, round(n * scale / MULTIPLE)) * MULTIPLE for n in frame.shape[:2])
    scaled = cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA)
    bgr = scaled[:, :, ::-1].astype(np.float32).transpose(2, 0, 1)[None]  # (1, 3, h', w')
    session = open_checked(path)
    (only,) = run_model(session, {session.get_inputs()[0].name: bgr / 127.5 - 1}).values()
    return np.asarray(only, np.float32).reshape(height, width)


def text_area(chance: NDArray[np.float32]) -> tuple[float, int]:
    """Share of the picture inside text boxes and their number, from a probability map [h, w]."""
    cv2 = opencv()
    marked = (chance > PIXEL).astype(np.uint8)
    contours, _ = cv2.findContours(marked, cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
    covered = np.zeros_like(marked)
    boxes = 0
    for contour in contours:
        middle, (width, height), angle = cv2.minAreaRect(contour)
        low, long = min(width, height), max(width, height)
        if low < LEAST or long < LONG * low or low > LOW * min(chance.shape):
            continue
        inside = np.zeros_like(marked)
        cv2.drawContours(inside, [contour], -1, 1, cv2.FILLED)
        if float(chance[inside == 1].mean()) < BOX:
            continue
        grow = width * height * UNCLIP / (2 * (width + height))
        grown = cv2.boxPoints((middle, (width + 2 * grow, height + 2 * grow), angle))
        cv2.fillPoly(covered, [np.rint(grown).astype(np.int32)], 1)
        boxes += 1
    return float(covered.mean()), boxes
