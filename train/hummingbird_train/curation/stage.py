"""What a curation stage is: a pure function of one clip and of the frames that it asked for.

A stage names itself, carries a version (raised when its scores change meaning) and its parameters;
(clip, stage, version, parameters) is computed once, ever. Thresholds are rules, not stages: a stage
only measures. The one exception is a cheap reject, which spares a hopeless clip the full decode.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from hummingbird_runtime.errors import UsageError
from hummingbird_train.curation.clip import Clip

if TYPE_CHECKING:
    from hummingbird_train.curation.decode import Frames

Score = float | int | bool | str
Scores = Mapping[str, Score]

# Every stage by the name that a `[stages.NAME]` table of the configuration gives it.
STAGES = MappingProxyType(
    {
        "probe": "probe:Probe",
        "black": "black:Black",
        "fingerprint": "fingerprint:Fingerprint",
        "shots": "shots:Shots",
        "transnet": "transnet:TransNet",
        "freeze": "freeze:Freeze",
        "flicker": "flicker:Flicker",
        "sharpness": "sharpness:Sharpness",
        "blockiness": "blockiness:Blockiness",
        "noise": "noise:Noise",
        "exposure": "exposure:Exposure",
        "colour": "colour:Colour",
        "nss": "nss:NaturalSceneStatistics",
        "motion": "motion:Motion",
        "smoothness": "smoothness:Smoothness",
        "camera": "camera:Camera",
        "text": "text:TextOverlay",
        "dover": "dover:Dover",
        "clip_match": "clip_match:ClipMatch",
        "caption_match": "caption_match:CaptionMatch",
    }
)
# What a run measures when its configuration has no [stages] table: needs no weights and no network.
DEFAULT_STAGES = (
    "probe", "black", "fingerprint", "shots", "freeze", "flicker", "sharpness", "blockiness",
    "noise", "exposure", "colour", "nss", "motion", "smoothness", "camera", "text",
)  # fmt: skip


@dataclass(frozen=True)
class FramePlan:
    """Which frames of a clip a stage wants to see, and how large."""

    fps: float | None = None
    """frames per second to step by, by time stamps; None: every frame of the file."""
    max_frames: int | None = None
    """at most this many, spread evenly over the clip; None: no limit of the stage's own."""
    height: int | None = None
    """pixels to scale to, width in proportion and never upwards; None: as stored."""
    key_frames: bool = False
    """only frames that decode alone: nearly free, seen before the rest is decoded."""
    rough: bool = False
    """only halve, to ``height`` rows or up to twice as many: a quarter of exact rows' cost."""
    run: int = 1
    """neighbours (in steps of fps) that stay together when max_frames thins: 2 = pairs."""

    def __post_init__(self) -> None:
        """Refuse a plan that no decoder could follow."""
        low = {"fps": self.fps, "max_frames": self.max_frames, "height": self.height}
        bad = [name for name, value in low.items() if value is not None and not value > 0]
        if self.rough and self.height is None:
            bad.append("rough")
        if self.run < 1 or (self.max_frames is not None and self.max_frames < self.run):
            bad.append("run")
        if bad or (self.key_frames and (self.fps is not None or self.run > 1)):
            raise UsageError(
                "stage.plan",
                f"frame plan not possible, got {self}, expected positive numbers, "
                "max_frames >= run, a height with rough, neither fps nor run with key_frames",
                hint="see hummingbird_train.curation.stage.FramePlan",
            )

    def select(
        self, times: NDArray[np.float64], keys: NDArray[np.bool_], clip_id: str = ""
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Choose frames by their time stamps.

        Args:
            times: [n] seconds, increasing, n >= 1.
            keys: [n] which frames decode alone; the first always counts.
            clip_id: seeds plans that draw frames at random; this one does not.

        Returns:
            The chosen frame numbers [m], increasing, and the run that each belongs to [m]: two
            neighbours of one run are one step of the plan apart.
        """
        if self.key_frames:
            steps = np.flatnonzero(keys)
            steps = steps if steps.size else np.zeros(1, np.int64)
        elif self.fps is None:
            steps = np.arange(times.size)
        else:  # the frame nearest to each tick; a slower file gives every frame once
            ticks = np.arange(times[0], times[-1] + 1e-6, 1 / self.fps)
            middles = (times[1:] + times[:-1]) / 2
            steps = np.unique(np.searchsorted(middles, ticks))
        if self.max_frames is None or steps.size <= self.max_frames:
            return steps, np.zeros(steps.size, np.int64)
        count = self.max_frames // self.run
        share = steps.size / count  # every run sits in the middle of its share of the clip
        starts = np.floor(np.arange(count) * share + (share - self.run) / 2).astype(np.int64)
        chosen = (starts[:, None] + np.arange(self.run)).reshape(-1)
        return steps[chosen], np.repeat(np.arange(count), self.run)


class SkipRest(Exception):
    """Raised by a stage: this clip is rejected already, measure nothing more of it.

    Args:
        reason: one line that the ledger keeps for the stages that were not run.
        scores: what the rejecting stage measured; kept.
    """

    def __init__(self, reason: str, scores: Scores = MappingProxyType({})) -> None:
        super().__init__(reason)
        self.reason = reason
        self.scores = dict(scores)

    def __reduce__(self) -> tuple[type[SkipRest], tuple[str, dict[str, Score]]]:
        return type(self), (self.reason, self.scores)


@runtime_checkable
class Stage(Protocol):
    """One measurement. Implementations are frozen dataclasses: picklable, no state, no I/O."""

    name: str
    """its key in STAGES."""
    version: int
    """raised whenever the same frames would give other scores."""
    needs: FramePlan
    """the frames that ``score`` gets."""
    after: tuple[str, ...]
    """stages whose scores ``score`` reads; they run first."""

    def parameters(self) -> Mapping[str, object]:
        """Everything that changes the scores, as JSON values: by default the dataclass's fields."""
        return asdict(self) if is_dataclass(self) else {}

    def score(
        self, clip: Clip, frames: Frames, earlier: Mapping[str, Mapping[str, Score]]
    ) -> Mapping[str, Score]:
        """Measure one clip.

        Args:
            clip: what the file is said to hold.
            frames: ``frames.of(plan)`` is uint8 [n, h, w, 3] RGB.
            earlier: scores of the stages named in ``after``, by stage and key.

        Returns:
            Scores by key, finite.

        Raises:
            SkipRest: the clip is rejected already.
            HummingbirdError: it cannot be measured.
        """
        ...


@dataclass(frozen=True)
class Outcome:
    """What one stage gave for one clip: a ledger row without the clip."""

    stage: str
    status: str
    """"ok", "failed" or "skipped"."""
    scores: Scores = field(default_factory=dict)
    error_code: str = ""
    error: str = ""
    seconds: float = 0.0
    """wall time of the stage itself."""
    decode_seconds: float = 0.0
    """wall time of a decode that this stage was the first to need; later stages share it."""


def build_stages(table: Mapping[str, Mapping[str, object]]) -> list[Stage]:
    """Make stages from the ``[stages.NAME]`` tables of a configuration.

    Args:
        table: parameters by stage name; an empty mapping means the stage's defaults. An empty
            ``table`` means DEFAULT_STAGES.

    Returns:
        Stages in an order in which each follows what it reads.

    Raises:
        UsageError: ``stage.unknown``, ``stage.parameter``, ``stage.order``.
    """
    if not table:
        table = {name: {} for name in DEFAULT_STAGES}
    return order_stages([_build(name, values) for name, values in table.items()])


def order_stages(stages: Sequence[Stage], known: Sequence[str] = ()) -> list[Stage]:
    """Sort stages: key-frame stages first, every stage after those it reads, otherwise as given.

    Args:
        stages: any order.
        known: stages whose scores are there already (from a ledger).

    Raises:
        UsageError: ``stage.order``: a stage reads one that is neither given nor known, or a cycle.
    """
    waiting = sorted(stages, key=lambda stage: not stage.needs.key_frames)
    done, ordered = set(known), list[Stage]()
    while waiting:
        ready = next((stage for stage in waiting if done.issuperset(stage.after)), None)
        if ready is None:
            lacking = {stage.name: sorted(set(stage.after) - done) for stage in waiting}
            raise UsageError(
                "stage.order",
                f"stages wait for others, got {lacking}, expected those to be configured too",
                hint="add the missing [stages.NAME] tables",
            )
        waiting.remove(ready)
        ordered.append(ready)
        done.add(ready.name)
    return ordered


def _build(name: str, values: Mapping[str, object]) -> Stage:
    if name not in STAGES:
        raise UsageError(
            "stage.unknown",
            f"unknown stage, got {name!r}, expected one of {', '.join(STAGES)}",
            hint="see docs/curation-stages.md",
        )
    module, _, kind = STAGES[name].partition(":")
    maker = getattr(importlib.import_module(f"hummingbird_train.curation.stages.{module}"), kind)
    known = {entry.name: entry for entry in fields(maker)}
    required = {
        key
        for key, entry in known.items()
        if entry.default is MISSING and entry.default_factory is MISSING
    }
    unknown, missing = sorted(values.keys() - known.keys()), sorted(required - values.keys())
    if unknown or missing:
        raise UsageError(
            "stage.parameter",
            f"[stages.{name}]: got unknown keys {unknown} and lacks {missing}, "
            f"expected some of {', '.join(known) or 'none'}",
            hint="see docs/curation-stages.md",
        )
    for key, value in values.items():
        if not _fits(value, str(known[key].type)):
            raise UsageError(
                "stage.parameter",
                f"[stages.{name}] {key}: got {value!r}, expected {known[key].type}",
                hint="see docs/curation-stages.md",
            )
    stage: Stage = maker(**values)
    return stage


def _fits(value: object, annotation: str) -> bool:
    """Tell whether a TOML value has the type that a field's annotation names."""
    allowed = {part.strip() for part in annotation.split("|")}
    if isinstance(value, bool):
        return "bool" in allowed
    if isinstance(value, int):
        return bool(allowed & {"int", "float"})
    return type(value).__name__ in allowed
