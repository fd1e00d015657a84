"""What a bundle lets the user choose: sizes, frames, steps, styles, decoders, from its own facts.

Nothing here is a list of ours: every value is within what the bundle allows, and the first one
marked as trained is the default.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hummingbird_runtime.bundle import Bundle
    from hummingbird_runtime.manifest import Manifest

_SCALES = (0.5, 1.0, 1.5, 2.0)
SEED_LIMIT = 10_000
"""Seeds drawn by the app; short enough to read out, any seed may be typed."""


@dataclass(frozen=True)
class Choices:
    """Values for each part of a request; one value alone is no choice and is not shown."""

    sizes: tuple[tuple[int, int], ...]
    """(height, width), pixels, from small to large."""
    frames: tuple[int, ...]
    steps: tuple[int, ...]
    styles: tuple[str, ...]
    decoders: tuple[str, ...]
    """``full``, ``tiny``, those the bundle has."""
    upscaler: bool
    precision: str
    """Of the network, as the manifest says it."""
    examples: tuple[str, ...]
    grammar: str
    fps: float
    """At which a clip plays, frames per second."""
    trained: Request
    """What the bundle was trained for, or its default where only that is allowed."""


@dataclass(frozen=True)
class Request:
    """What a clip is asked with, besides its prompt and seed."""

    height: int
    width: int
    num_frames: int
    num_inference_steps: int
    decoder: str
    style: str = ""
    """Name of a style of the bundle; empty for none."""
    upscale: bool = False

    def options(self) -> dict[str, Any]:
        """As keyword arguments of ``pipe.stream``; the style belongs to opening a pipeline."""
        values = dataclasses.asdict(self)
        del values["style"]
        return values

    def smaller(self, choices: Choices) -> Request | None:
        """One notch less memory: fewer frames, else smaller sides; None at the smallest."""
        fewer = [n for n in choices.frames if n < self.num_frames]
        if fewer:
            return dataclasses.replace(self, num_frames=fewer[-1])
        less = [s for s in choices.sizes if s[0] * s[1] < self.height * self.width]
        if less:
            return dataclasses.replace(self, height=less[-1][0], width=less[-1][1])
        return None


def choices_of(bundle: Bundle) -> Choices:
    """The choices of a verified bundle."""
    return choices_from(bundle.manifest)


def choices_from(manifest: Manifest) -> Choices:
    """The choices that a manifest states."""
    facts = manifest.model
    high, wide, frames = facts.height, facts.width, facts.frames
    sizes = {(high.default, wide.default)}
    for scale in _SCALES:
        side = (round(high.trained * scale), round(wide.trained * scale))
        if _legal(side[0], high.allowed, high.multiple_of) and _legal(
            side[1], wide.allowed, wide.multiple_of
        ):
            sizes.add(side)
    counts = {frames.default}
    counts |= {
        n
        for n in (round(frames.trained * scale) for scale in _SCALES)
        if _legal(n, frames.allowed, 1)
    }
    steps = facts.num_inference_steps
    listed = {steps.default, *steps.trained}
    decoders = tuple(
        name
        for name, role in (("full", "vae_decoder"), ("tiny", "vae_decoder_tiny"))
        if role in manifest.graphs
    )
    upscaler = "upscaler" in manifest.graphs
    return Choices(
        sizes=tuple(sorted(sizes, key=lambda side: side[0] * side[1])),
        frames=tuple(sorted(counts)),
        steps=tuple(sorted(listed)),
        styles=tuple(sorted(manifest.adapters)),
        decoders=decoders,
        upscaler=upscaler,
        precision=manifest.graphs["unet"].precision,
        examples=facts.vocabulary_examples,
        grammar=facts.grammar,
        fps=facts.playback_fps,
        trained=Request(
            height=high.default,
            width=wide.default,
            num_frames=frames.default,
            num_inference_steps=steps.default,
            decoder=decoders[0],
            upscale=upscaler,
        ),
    )


def _legal(value: int, allowed: tuple[int, int], multiple: int) -> bool:
    return allowed[0] <= value <= allowed[1] and value % multiple == 0
