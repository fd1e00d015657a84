"""What the layers of a graph see while it samples: per-channel statistics, mergeable, on disk.

Keyed by layer, not by tensor: clones of a layer that work on pieces of a clip share one entry, so
ranges observed on small clips hold for large ones. Stored as one ``.npz`` without pickles.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from hummingbird_runtime.errors import InputError

Channels = NDArray[np.float32]


@dataclass(frozen=True)
class Spread:
    """Statistics of one tensor per channel, each float32 [channels]."""

    low: Channels
    """Smallest value."""
    high: Channels
    """Largest value."""
    mean: Channels
    """Mean value."""
    square: Channels
    """Mean square."""

    def merged(self, other: Spread, weight: float, other_weight: float) -> Spread:
        """The statistics of both samples together; weights are numbers of values."""
        share = np.float32(other_weight / (weight + other_weight))
        return Spread(
            np.minimum(self.low, other.low),
            np.maximum(self.high, other.high),
            self.mean + share * (other.mean - self.mean),
            self.square + share * (other.square - self.square),
        )

    def scaled(self, factor: Channels) -> Spread:
        """The statistics of the tensor times a positive factor per channel."""
        return Spread(
            self.low * factor, self.high * factor, self.mean * factor, self.square * factor**2
        )


@dataclass(frozen=True)
class Observation:
    """What one layer saw."""

    source: Spread
    """Of the activation that it reads."""
    result: Spread
    """Of what it gives, its bias included where the node adds it."""
    values: float
    """Values per input channel that were seen."""
    rank: int
    """Number of dimensions of the activation."""

    def merged(self, other: Observation) -> Observation:
        """Both observations of one layer together."""
        return Observation(
            self.source.merged(other.source, self.values, other.values),
            self.result.merged(other.result, self.values, other.values),
            self.values + other.values,
            max(self.rank, other.rank),
        )


Ranges = dict[str, Observation]
"""Layer name -> what it saw."""


def merge(samples: Iterable[Mapping[str, Observation]]) -> Ranges:
    """Ranges over several samples."""
    merged: Ranges = {}
    for sample in samples:
        for name, seen in sample.items():
            merged[name] = merged[name].merged(seen) if name in merged else seen
    return merged


def save_ranges(ranges: Mapping[str, Observation], path: Path) -> None:
    """Write ranges as ``.npz``: a row of four statistics per layer and side."""
    arrays: dict[str, Any] = {}
    for name, seen in ranges.items():
        arrays[f"{name}:source"] = _stack(seen.source)
        arrays[f"{name}:result"] = _stack(seen.result)
        arrays[f"{name}:facts"] = np.array([seen.values, seen.rank], np.float32)
    with path.open("wb") as file:
        np.savez(file, **arrays)


def load_ranges(path: Path) -> Ranges:
    """Read what ``save_ranges`` wrote.

    Raises:
        InputError: ``export.ranges`` when the file is something else.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            names = [key.removesuffix(":facts") for key in stored if key.endswith(":facts")]
            ranges: Ranges = {}
            for name in names:
                source, result = (Spread(*stored[f"{name}:{side}"]) for side in _SIDES)
                values, rank = stored[f"{name}:facts"].tolist()
                ranges[name] = Observation(source, result, values, int(rank))
            return ranges
    except (OSError, ValueError, KeyError, TypeError, BadZipFile) as error:
        raise InputError(
            "export.ranges",
            f"ranges {path.name}: got a file that cannot be read ({error}), "
            "expected one written by a calibration",
            hint="calibrate again",
        ) from error


_SIDES = ("source", "result")


def _stack(spread: Spread) -> NDArray[np.float32]:
    return np.stack([getattr(spread, field.name) for field in fields(Spread)])
