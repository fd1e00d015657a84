"""One decode of a clip's file for all stages: which frames, at which sizes, within bounds.

The file is scanned once without decoding, so that every plan is resolved to exact frames before the
first is decoded; then key frames alone serve the cheap stages, and one pass serves all others.
Files are opened and bounded in ``video_file.py``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from hummingbird_runtime.errors import ExecutionError, HummingbirdError, InputError
from hummingbird_train.curation.clip import Clip
from hummingbird_train.curation.scaler import Scaler, Size, exact_size, rough_size
from hummingbird_train.curation.stage import (
    FramePlan,
    Outcome,
    Score,
    Scores,
    SkipRest,
    Stage,
    order_stages,
)
from hummingbird_train.curation.video_file import (
    LIMITS,
    DecodeLimits,
    OpenFile,
    ProbeInfo,
    Scan,
    decoded,
    scan_file,
)

T = TypeVar("T")


class Frames:
    """The frames of one clip, as the plans loaded so far want them."""

    def __init__(self, clip: Clip, limits: DecodeLimits = LIMITS) -> None:
        self.clip = clip
        self.limits = limits
        self.seconds = 0.0
        """wall time of scanning and decoding so far."""
        self._file = OpenFile(clip)
        self._scan: Scan | None = None
        self._selected: dict[FramePlan, tuple[NDArray[np.int64], NDArray[np.int64]]] = {}
        self._pixels: dict[tuple[int, Size], NDArray[np.uint8]] = {}  # by (frame, size)
        self._derived: dict[object, Any] = {}

    @property
    def info(self) -> ProbeInfo:
        """What the scan found; scans the file when nothing has yet."""
        return self._scanned().info

    def load(self, plans: Sequence[FramePlan]) -> None:
        """Decode what the plans want and is not there yet, in one pass over the file.

        Raises:
            InputError: ``clip.missing``, ``clip.not_video``, ``clip.no_video``, ``clip.corrupt``,
                ``clip.too_long``, ``clip.too_large``, ``clip.span``.
            ResourceError: ``clip.unreadable``.
            TimeLimitError: ``clip.timeout``.
        """
        begin = time.perf_counter()
        scan = self._scanned()
        deadline = begin + self.limits.max_seconds
        wanted: dict[int, set[Size]] = {}  # by frame
        for plan in plans:
            if plan not in self._selected:
                local, runs = plan.select(scan.times[scan.span], scan.keys[scan.span], self.clip.id)
                self._selected[plan] = scan.span[local], runs
            size = self._size(plan)
            for index in self._selected[plan][0].tolist():
                if (index, size) not in self._pixels:
                    wanted.setdefault(index, set()).add(size)
        if wanted:
            self._check_bytes(wanted)
            keys_only = all(scan.keys[index] for index in wanted)
            scaler = Scaler()
            for index, picture in decoded(self.clip, scan, wanted, keys_only, deadline, self._file):
                for size in wanted[index]:
                    self._pixels[index, size] = scaler.scale(picture, size)
            self._drop_undecoded(plans)
        self.seconds += time.perf_counter() - begin

    def of(self, plan: FramePlan) -> NDArray[np.uint8]:
        """The frames of a plan: uint8 [n, h, w, 3] RGB, n >= 1."""
        return np.stack(self.each(plan))

    def each(self, plan: FramePlan) -> list[NDArray[np.uint8]]:
        """The same frames one by one, not copied: uint8 [h, w, 3] each."""
        size = self._size(plan)
        return [self._pixels[index, size] for index in self._selected[plan][0].tolist()]

    def times(self, plan: FramePlan) -> NDArray[np.float64]:
        """Their times: float64 [n] seconds from the first frame of the file, increasing."""
        times: NDArray[np.float64] = self._scanned().times[self._selected[plan][0]]
        return times

    def pairs(self, plan: FramePlan) -> NDArray[np.int64]:
        """Positions k such that frames k and k + 1 of the plan are neighbours: int64 [p]."""
        runs = self._selected[plan][1]
        return np.flatnonzero(runs[1:] == runs[:-1])

    def derived(self, key: object, make: Callable[[], T]) -> T:
        """What several stages compute from the same frames, computed once (luma, optical flow)."""
        if key not in self._derived:
            self._derived[key] = make()
        value: T = self._derived[key]
        return value

    def close(self) -> None:
        """Close the file; frames that are loaded stay, and ``load`` opens it again."""
        self._file.close()

    def forget(self, plan: FramePlan, still: Sequence[FramePlan]) -> None:
        """Free the frames of a plan that no plan of ``still`` shares."""
        kept = {
            (index, size)
            for other in still
            if other in self._selected
            for size in [self._size(other)]
            for index in self._selected[other][0].tolist()
        }
        size = self._size(plan)
        for index in self._selected[plan][0].tolist():
            if (index, size) not in kept:
                self._pixels.pop((index, size), None)

    def _scanned(self) -> Scan:
        if self._scan is None:
            begin = time.perf_counter()
            self._scan = scan_file(self.clip, self.limits, self._file)
            self.seconds += time.perf_counter() - begin
        return self._scan

    def _size(self, plan: FramePlan) -> Size:
        height, width = self.info.height, self.info.width
        if plan.rough and plan.height is not None:
            return rough_size(height, width, plan.height)
        return exact_size(height, width, plan.height)

    def _check_bytes(self, wanted: Mapping[int, set[Size]]) -> None:
        need = sum(3 * size.height * size.width for sizes in wanted.values() for size in sizes)
        if need > self.limits.max_bytes:
            raise InputError(
                "clip.too_large",
                f"{self.clip.uri}: got {need / 2**20:.0f} MiB of frames to keep, expected at most "
                f"{self.limits.max_bytes / 2**20:.0f}",
                hint="split the video into shorter clips, or ask for fewer or smaller frames",
            )

    def _drop_undecoded(self, plans: Sequence[FramePlan]) -> None:
        """Take frames that did not decode out of the plans; too many of them and the clip fails."""
        for plan in plans:
            indices, runs = self._selected[plan]
            size = self._size(plan)
            there = np.array([(index, size) in self._pixels for index in indices.tolist()], bool)
            if not there.any() or (~there).sum() > self.limits.missing * there.size:
                raise InputError(
                    "clip.corrupt",
                    f"{self.clip.uri}: got {int((~there).sum())} of {there.size} frames that do "
                    "not decode, expected a whole video",
                    hint="play it with another program; download it again",
                )
            if not there.all():
                gaps = np.cumsum(~there)  # a run that lost a frame falls apart there
                runs = (runs + gaps * (int(runs.max(initial=0)) + 1))[there]
                self._selected[plan] = indices[there], runs


def decode(clip: Clip, plans: Sequence[FramePlan], *, limits: DecodeLimits = LIMITS) -> Frames:
    """Decode a clip once for all plans; see ``Frames.load`` for the errors."""
    frames = Frames(clip, limits)
    with closing(frames):
        frames.load(plans)
    return frames


def run_stages(
    clip: Clip,
    stages: Sequence[Stage],
    earlier: Mapping[str, Scores] | None = None,
    *,
    limits: DecodeLimits = LIMITS,
    strict: bool = False,
) -> Iterator[Outcome]:
    """Score a clip stage by stage: key-frame stages first, then one decode for all others.

    Args:
        clip: what to score.
        stages: those still to be computed.
        earlier: scores of stages computed before, which others may read.
        limits: bounds of the decode.
        strict: raise the first failure instead of yielding it.

    Yields:
        One Outcome a stage. A failure is an outcome; a stage whose forerunner failed, or that comes
        after a reject, is skipped.

    Raises:
        UsageError: ``stage.order``.
    """
    known: dict[str, Scores] = dict(earlier or {})
    ordered = order_stages(stages, tuple(known))
    with closing(Frames(clip, limits)) as frames:
        yield from _outcomes(frames, ordered, known, strict)


def _outcomes(
    frames: Frames, ordered: Sequence[Stage], known: dict[str, Scores], strict: bool
) -> Iterator[Outcome]:
    rejected = ""
    broken: Exception | None = None  # a file that does not decode is not tried again
    for position, stage in enumerate(ordered):
        lacking = [name for name in stage.after if name not in known]
        if rejected or lacking:
            reason = rejected or f"needs {', '.join(lacking)}"
            code = "clip.rejected" if rejected else "stage.unscored"
            yield Outcome(stage.name, "skipped", {}, code, reason)
            continue
        rest = ordered[position:]
        seconds, decoded = 0.0, frames.seconds
        try:
            if broken is not None:
                raise broken
            cheap = stage.needs.key_frames
            try:
                frames.load([other.needs for other in rest if other.needs.key_frames == cheap])
            except Exception as error:
                broken = error
                raise
            begin = time.perf_counter()
            scores: Scores = {}
            try:
                scores = _checked(stage, stage.score(frames.clip, frames, known))
            except SkipRest as skip:
                scores, rejected = _checked(stage, skip.scores), f"{stage.name}: {skip.reason}"
            seconds = time.perf_counter() - begin
            known[stage.name] = scores
            frames.forget(stage.needs, [other.needs for other in rest[1:]])
        except Exception as error:
            if strict:
                raise
            typed = error if isinstance(error, HummingbirdError) else _unforeseen(stage, error)
            outcome = Outcome(stage.name, "failed", {}, typed.code, str(typed)[:500], seconds)
        else:
            outcome = Outcome(stage.name, "ok", scores, seconds=seconds)
        spent = frames.seconds - decoded
        yield Outcome(**{**vars(outcome), "decode_seconds": spent})


def score_clip(
    clip: Clip, stages: Sequence[Stage], earlier: Mapping[str, Scores] | None = None
) -> dict[str, dict[str, Score]]:
    """Score a clip, by stage and key; the first failure is raised, a reject ends it early."""
    done = run_stages(clip, stages, earlier, strict=True)
    return {outcome.stage: dict(outcome.scores) for outcome in done if outcome.status == "ok"}


def _unforeseen(stage: Stage, error: Exception) -> ExecutionError:
    return ExecutionError(
        "stage.failed",
        f"{error!r} in stage {stage.name}, expected scores",
        hint="report the clip",
    )


def _checked(stage: Stage, scores: Mapping[str, Score]) -> Scores:
    """Refuse scores that no rule could judge."""
    out: dict[str, Score] = {}
    for key, value in scores.items():
        value = value.item() if isinstance(value, np.generic) else value
        if (
            not isinstance(value, (bool, int, float, str))
            or value in (np.inf, -np.inf)
            or (value != value)
        ):
            raise ExecutionError(
                "stage.not_finite",
                f"{stage.name}.{key}: got {value!r}, expected a finite number, a bool or text",
                hint="report the clip",
            )
        out[key] = value
    return out
