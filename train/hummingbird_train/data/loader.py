"""Clips as pixels: a random window at a random stride, resized and cropped, with its caption.

Sample number n is a function of the seed and n alone, and numbers are dealt to steps and ranks
without overlap: a resumed run goes on where it stopped and no clip comes twice or never in an
epoch, with no cursor to store. A stride s makes the fps condition round(fps / s), as in training
of VideoCrafter2 and Hummingbird (16 frames, stride 1 to 6).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hummingbird_runtime.errors import HummingbirdError, InputError, UsageError
from hummingbird_train.data.entries import Entry, read_entries
from hummingbird_train.data.media import Media, probe, read_frames, resize_and_crop

LARGEST_FPS = 999
"""Last row of the U-Net's table of frame rates."""

_ORDER, _SAMPLE, _CHECK = range(3)  # streams of random numbers


@dataclass(frozen=True)
class Sample:
    """One training clip."""

    frames: NDArray[np.uint8]
    """[F, H, W, 3], RGB."""
    caption: str
    fps_condition: int
    """Frames per second that the clip would have if it were played without its stride."""
    key: str
    """Of the entry it comes from."""
    indices: tuple[int, ...] = ()
    """Frame numbers in that entry."""


@dataclass(frozen=True)
class Window:
    """How samples are cut from clips."""

    frames: int
    """Frames of a sample; 1 takes single frames of clips, and images."""
    size: tuple[int, int]
    """Height and width, pixels."""
    stride: tuple[int, int] = (1, 6)
    """Smallest and largest step between frames; a short clip takes the largest that fits."""
    default_fps: float = 8.0
    """Of clips that do not say."""

    def __post_init__(self) -> None:
        low, high = self.stride
        if self.frames < 1 or min(self.size) < 1 or not 1 <= low <= high or self.default_fps <= 0:
            raise UsageError(
                "data.options",
                f"window, got frames {self.frames}, size {self.size}, stride {self.stride}, "
                f"default_fps {self.default_fps}, expected positive numbers, low <= high",
                hint="a window of 16 frames at stride 1 to 6 is the published one",
            )


def cut(
    media: Media, window: Window, rng: np.random.Generator, *, key: str = ""
) -> tuple[list[int], int]:
    """Frame numbers of a random sample of a clip, and its fps condition.

    Args:
        media: length and rate of the clip.
        window: what is wanted.
        rng: draws the stride, then the start.
        key: names the clip in the error.

    Raises:
        InputError: ``data.short`` when the clip has too few frames at the smallest stride.
    """
    steps = window.frames - 1
    fits = (media.frames - 1) // steps if steps else window.stride[1]
    if fits < window.stride[0]:
        raise InputError(
            "data.short",
            f"clip {key[:120]}: got {media.frames} frames, expected {window.frames} at stride "
            f"{window.stride[0]}",
            hint="ask for fewer frames or a smaller stride, or skip what is too short",
        )
    stride = min(int(rng.integers(window.stride[0], window.stride[1] + 1)), fits)
    start = int(rng.integers(media.frames - steps * stride))
    fps = round((media.fps or window.default_fps) / stride)
    indices = [start + i * stride for i in range(window.frames)]
    return indices, min(max(fps, 1), LARGEST_FPS)


def numbers(step: int, rank: int, world_size: int, batch: int, *, before: int = 0) -> range:
    """Sample numbers of one step on one rank.

    Args:
        step: optimiser step, from 0.
        rank: of this process.
        world_size: number of processes.
        batch: samples per rank and step.
        before: samples that earlier phases with other batch sizes have used, over all ranks.
    """
    first = before + (step * world_size + rank) * batch
    return range(first, first + batch)


@dataclass
class ClipDataset:
    """A source as samples by number; torch's DataLoader takes it, with ``numbers`` as sampler.

    Args:
        entries: what the source holds.
        window: how samples are cut.
        seed: of the order and of every draw.
        on_failure: ``raise`` stops at a clip that is damaged or too short; ``skip`` takes the next
            of the epoch in its place and counts it in ``failures``.
    """

    entries: Sequence[Entry]
    window: Window
    seed: int = 0
    on_failure: Literal["raise", "skip"] = "raise"
    failures: dict[str, HummingbirdError] = field(default_factory=dict, init=False)
    """Key -> why it was skipped; filled by ``skip`` and by ``validate``."""
    _media: dict[int, Media] = field(default_factory=dict, init=False, repr=False)
    _epoch: tuple[int, NDArray[np.int64]] | None = field(default=None, init=False, repr=False)

    def __len__(self) -> int:
        """Clips of one epoch."""
        return len(self.entries)

    def __getitem__(self, number: int) -> Sample:
        """Sample ``number`` of an endless sequence; epoch e holds numbers e n to (e + 1) n - 1.

        Raises:
            InputError: ``data.corrupt`` or ``data.short``; with ``skip``, ``data.empty`` when no
                clip is left.
        """
        epoch, position = divmod(number, len(self))
        order = self._order(epoch)
        for turn in range(len(self)):
            index = int(order[(position + turn) % len(self)])
            if self.entries[index].key in self.failures:
                continue
            try:
                return self._sample(
                    index, np.random.default_rng([self.seed, _SAMPLE, number, turn])
                )
            except InputError as error:
                if self.on_failure == "raise":
                    raise
                self.failures[self.entries[index].key] = error
        raise InputError(
            "data.empty",
            f"got {len(self)} clips, none of them readable and long enough, expected one",
            hint="check the source with `hummingbird train data`",
        )

    def batch(self, step: int, rank: int, world_size: int, count: int) -> list[Sample]:
        """The samples of one step on one rank, see ``numbers``."""
        return [self[n] for n in numbers(step, rank, world_size, count)]

    def validate(
        self, progress: Callable[[int, int], None] = lambda done, total: None
    ) -> list[Media]:
        """Open every clip and decode one sample of it; what fails goes into ``failures``.

        Args:
            progress: told how many of how many are done.

        Returns:
            What the readable files say of themselves.
        """
        found = []
        for index, entry in enumerate(self.entries):
            try:
                self._sample(index, np.random.default_rng([self.seed, _CHECK, index]))
                found.append(self._media[index])
            except InputError as error:
                self.failures[entry.key] = error
            progress(index + 1, len(self))
        return found

    def _order(self, epoch: int) -> NDArray[np.int64]:
        if self._epoch is None or self._epoch[0] != epoch:
            order = np.random.default_rng([self.seed, _ORDER, epoch]).permutation(len(self))
            self._epoch = epoch, order
        return self._epoch[1]

    def _sample(self, index: int, rng: np.random.Generator) -> Sample:
        entry = self.entries[index]
        if index not in self._media:
            self._media[index] = probe(entry)
        indices, fps = cut(self._media[index], self.window, rng, key=entry.key)
        frames = [
            resize_and_crop(frame[None], self.window.size)[0]
            for frame in read_frames(entry, indices)
        ]
        return Sample(np.stack(frames), entry.caption, fps, entry.key, tuple(indices))


def open_dataset(
    source: str | os.PathLike[str],
    *,
    frames: int,
    size: tuple[int, int],
    stride: tuple[int, int] = (1, 6),
    seed: int = 0,
    default_fps: float = 8.0,
    on_failure: Literal["raise", "skip"] = "raise",
) -> ClipDataset:
    """List a source and say how samples are cut; arguments as ``Window`` and ``ClipDataset``.

    Raises:
        InputError: ``data.source``, ``data.empty``, ``data.row``.
        UsageError: ``data.options``.
    """
    window = Window(frames, size, stride, default_fps)
    if on_failure not in ("raise", "skip"):
        raise UsageError(
            "data.options",
            f"on_failure, got {on_failure!r}, expected 'raise' or 'skip'",
            hint="skip counts what it leaves out in .failures",
        )
    return ClipDataset(read_entries(source), window, seed, on_failure)
