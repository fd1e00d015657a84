"""What a planned clip will take, stage by stage, and which smaller one would fit instead.

The figures are made in planner.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from hummingbird_runtime.facts import ModelFacts
from hummingbird_runtime.request import Request


@dataclass(frozen=True)
class StageMemory:
    """One stage of a run."""

    name: str
    """``text``, ``denoise`` or ``decode``."""
    bytes: int
    """Most that the process holds in it."""


@dataclass(frozen=True)
class Plan:
    """What a clip will take, and what there is."""

    stages: tuple[StageMemory, ...]
    peak_bytes: int
    """Of the worst stage."""
    available_bytes: int | None
    """What the process may hold in all; None where the system does not tell."""
    decode_chunk: int
    """Frames decoded at once: as many as fit, at most the bundle's own number."""

    @property
    def fits(self) -> bool:
        """Whether the clip can be drawn; True where nothing is known of the memory there is."""
        return self.available_bytes is None or self.peak_bytes <= self.available_bytes

    @property
    def worst(self) -> StageMemory:
        """The stage of the peak."""
        return max(self.stages, key=lambda stage: stage.bytes)


def what_fits(plan_of: Callable[[Request], Plan], request: Request, facts: ModelFacts) -> str:
    """The largest clip of this kind that fits, in words: fewer frames first, then smaller ones."""
    low = facts.frames.allowed[0]
    for height, width in _smaller_sizes(request, facts):
        sized = replace(request, height=height, width=width, latents=None)
        if not plan_of(replace(sized, num_frames=low)).fits:
            continue
        most = request.num_frames
        while low < most:  # the largest number of frames in low..most that fits
            middle = (low + most + 1) // 2
            if plan_of(replace(sized, num_frames=middle)).fits:
                low = middle
            else:
                most = middle - 1
        needed = plan_of(replace(sized, num_frames=low)).peak_bytes
        return f"num_frames {low} of {height} x {width} fits ({shown(needed)})"
    return ""


def _smaller_sizes(request: Request, facts: ModelFacts) -> Iterator[tuple[int, int]]:
    yield request.height, request.width
    sides = ((request.height, facts.height), (request.width, facts.width))
    for parts in (3, 2, 1):
        height, width = (
            max(-(-side.allowed[0] // step), asked * parts // 4 // step) * step
            for asked, side in sides
            for step in (side.multiple_of,)
        )
        yield height, width


def shown(count: int) -> str:
    """Bytes for people: ``1.73 GB``, ``139 MB``."""
    return f"{count / 1e9:.2f} GB" if count >= 10**9 else f"{count / 1e6:.0f} MB"
