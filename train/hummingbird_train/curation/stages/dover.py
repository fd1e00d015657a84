"""DOVER and DOVER-Mobile as an ONNX stage: the user's file, both views, the published fusion.

Weights and code of DOVER are for non-commercial use and are not part of this project. Outputs are
taken by name, or in an order that the user states: guessing could swap the two scores.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from hummingbird_runtime.errors import InputError
from hummingbird_train.curation.clip import Clip
from hummingbird_train.curation.decode import Frames
from hummingbird_train.curation.stage import FramePlan, Scores, Stage
from hummingbird_train.curation.stages.dover_views import (
    DoverPlan,
    aesthetic_view,
    frame_numbers,
    technical_view,
)
from hummingbird_train.curation.stages.model_file import file_sha256
from hummingbird_train.curation.stages.onnx_model import open_checked, refuse_interface, run_model

INPUTS = {"aesthetic": "aes", "technical": "tech"}  # how an input or output of a branch begins
TECHNICAL = (0.1107, 0.07355, 0.6104)  # mean, deviation, weight of the branch
AESTHETIC = (-0.08285, 0.03774, 0.3896)


@dataclass(frozen=True)
class Dover(Stage):
    """Aesthetic, technical and overall quality, 0..1."""

    name: ClassVar[str] = "dover"
    version: ClassVar[int] = 1
    needs: ClassVar[FramePlan] = DoverPlan()
    after: ClassVar[tuple[str, ...]] = ()

    model: str
    """ONNX file with inputs ``aes_view`` [n, 3, 32, 224, 224] and ``tech_view`` of that shape."""
    output_order: str = ""
    """"aesthetic,technical" or the reverse, for outputs without such names; empty: by name."""

    def parameters(self) -> Mapping[str, object]:
        """The digest of the file and the order of its outputs."""
        return {"model": file_sha256(self.model), "output_order": self.output_order}

    def score(self, clip: Clip, frames: Frames, earlier: Mapping[str, Scores]) -> Scores:
        """Keys ``overall aesthetic technical`` (0..1), ``aesthetic_raw``, ``technical_raw``."""
        technical, aesthetic = frame_numbers(frames.info.frames, clip.id)
        there = np.unique(np.concatenate([technical, aesthetic]))
        seen = frames.of(self.needs)
        if len(seen) != len(there):
            raise InputError(
                "clip.corrupt",
                f"{clip.uri}: got {len(seen)} of {len(there)} frames, expected all of the views'",
                hint="play it with another program; download it again",
            )
        a, t = run_dover(
            self.model,
            aesthetic_view(seen[np.searchsorted(there, aesthetic)]),
            technical_view(seen[np.searchsorted(there, technical)], clip.id),
            self.output_order,
        )
        overall, aesthetic_score, technical_score = fuse(a, t)
        return {
            "overall": overall,
            "aesthetic": aesthetic_score,
            "technical": technical_score,
            "aesthetic_raw": a,
            "technical_raw": t,
        }


def fuse(aesthetic: float, technical: float) -> tuple[float, float, float]:
    """Raw branch scores to overall, aesthetic, technical in 0..1, by DOVER's constants."""
    t = (technical - TECHNICAL[0]) / TECHNICAL[1]
    a = (aesthetic - AESTHETIC[0]) / AESTHETIC[1]
    return _sigmoid(TECHNICAL[2] * t + AESTHETIC[2] * a), _sigmoid(a), _sigmoid(t)


def run_dover(
    path: str,
    aesthetic: NDArray[np.float32],
    technical: NDArray[np.float32],
    output_order: str = "",
) -> tuple[float, float]:
    """Run a two-branch model on both views: raw (aesthetic, technical) scores.

    Args:
        path: ONNX file.
        aesthetic: float32 [1, 3, 32, 224, 224].
        technical: float32 [3, 3, 32, 224, 224]; fed in portions where the model's batch is fixed,
            the last portion filled up with repeats that do not count.
        output_order: see ``Dover``.

    Raises:
        InputError: ``stage.interface`` when inputs or outputs cannot be told apart.
    """
    session = open_checked(path)
    inputs = {entry.name: entry for entry in session.get_inputs()}
    names = {branch: _find(path, branch, list(inputs), "input") for branch in INPUTS}
    outputs = [entry.name for entry in session.get_outputs()]
    if output_order:
        order = [part.strip() for part in output_order.split(",")]
        if sorted(order) != sorted(INPUTS) or len(outputs) != 2:
            raise refuse_interface(
                path,
                f"output_order {output_order!r} for {len(outputs)} outputs",
                '"aesthetic,technical" or "technical,aesthetic" for two outputs',
            )
        answers = dict(zip(order, outputs, strict=True))
    else:
        answers = {branch: _find(path, branch, outputs, "output") for branch in INPUTS}
    batch = _batch(inputs[names["technical"]])
    if _batch(inputs[names["aesthetic"]]) not in (0, 1):
        raise refuse_interface(path, "a fixed batch of aesthetic views", "one view")
    step = batch or len(technical)
    sums = {"aesthetic": 0.0, "technical": 0.0}
    for start in range(0, len(technical), step):
        part = technical[start : start + step]
        full = np.concatenate([part, part[-1:].repeat(step - len(part), axis=0)])
        got = run_model(session, {names["aesthetic"]: aesthetic, names["technical"]: full})
        for branch, rows in (("aesthetic", 1), ("technical", len(part))):
            value = np.asarray(got[answers[branch]], np.float64)
            count = {"aesthetic": 1, "technical": step}[branch]
            if value.size % count:
                raise refuse_interface(path, f"{branch} {list(value.shape)}", f"{count} maps")
            means = value.reshape(count, -1).mean(axis=1)[:rows]  # score maps are averaged
            sums[branch] += float(means.sum()) * (len(part) if branch == "aesthetic" else 1)
    return sums["aesthetic"] / len(technical), sums["technical"] / len(technical)


def _find(path: str, branch: str, names: list[str], what: str) -> str:
    found = [name for name in names if name.lower().startswith(INPUTS[branch])]
    if len(found) != 1:
        raise refuse_interface(
            path,
            f"{what}s {names}",
            f"one {what} whose name begins with {INPUTS[branch]!r} (outputs: or set output_order)",
        )
    return found[0]


def _batch(entry: Any) -> int:
    """The fixed batch of an input, or 0 when it takes any."""
    first = entry.shape[0]
    return first if isinstance(first, int) else 0


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))
