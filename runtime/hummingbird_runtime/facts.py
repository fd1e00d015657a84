"""Model facts of a bundle: sizes, frames, steps and guidance it was trained on and allows.

Trained is what the model saw, default is what a call without the argument gets, allowed is the
range the runtime accepts; between trained and allowed a call gets a warning.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from hummingbird_runtime.strict_json import fail

MAX_SIDE = 4096
MAX_FRAMES = 104
MAX_STEPS = 1000


def _check_range(
    what: str, allowed: tuple[float, float], bounds: tuple[float, float], *values: float
) -> None:
    low, high = allowed
    if not bounds[0] <= low <= high <= bounds[1]:
        fail(f"model.{what}", f"got allowed {[low, high]}, expected within {list(bounds)}")
    for value in values:
        if not low <= value <= high:
            fail(f"model.{what}", f"got {value}, expected within allowed {[low, high]}")


@dataclass(frozen=True)
class Frames:
    """Number of frames of a clip."""

    trained: int
    """May lie outside of what is allowed: a bundle of one fixed size need not be that size."""
    default: int
    allowed: tuple[int, int]

    def __post_init__(self) -> None:
        _check_range("frames", self.allowed, (1, MAX_FRAMES), self.default)
        _check_range("frames", (1, MAX_FRAMES), (1, MAX_FRAMES), self.trained)


@dataclass(frozen=True)
class Side:
    """Height or width, pixels."""

    trained: int
    default: int
    multiple_of: int
    allowed: tuple[int, int]

    def __post_init__(self) -> None:
        _check_range("height/width", self.allowed, (1, MAX_SIDE), self.default)
        _check_range("height/width", (1, MAX_SIDE), (1, MAX_SIDE), self.trained)
        if self.multiple_of < 1 or self.default % self.multiple_of:
            fail(
                "model.height/width",
                f"got default {self.default}, expected a multiple of {self.multiple_of}",
            )


@dataclass(frozen=True)
class Choice:
    """A whole number with several trained values: inference steps, or the fps condition."""

    default: int
    trained: tuple[int, ...]
    allowed: tuple[int, int]

    def __post_init__(self) -> None:
        _check_range("choice", self.allowed, (1, MAX_STEPS), self.default, *self.trained)


@dataclass(frozen=True)
class Guidance:
    """How the prompt is followed: a scale embedded in the U-Net, two passes mixed, or neither."""

    kind: Literal["embedded", "cfg", "none"]
    default: float
    trained: tuple[float, float]
    allowed: tuple[float, float]

    def __post_init__(self) -> None:
        _check_range("guidance", self.allowed, (0.0, 100.0), self.default, *self.trained)


@dataclass(frozen=True)
class ModelFacts:
    """What a caller may ask of the model, and the constants sampling needs."""

    latent_channels: int
    vae_scale_factor: int
    """Pixels per latent cell along one side."""
    frames: Frames
    height: Side
    width: Side
    fps_condition: Choice
    """The number given to the U-Net; not the playback rate."""
    playback_fps: int
    guidance: Guidance
    timestep_cond_dim: int | None
    """Width of the guidance embedding; None unless guidance is embedded."""
    num_inference_steps: Choice
    scaling_factor: float
    """U-Net latents divided by this go into the decoder."""
    latent_rgb: tuple[tuple[float, ...], ...]
    """3 rows of latent_channels weights and one bias: (r, g, b) in [-1, 1] = W z + b."""
    vocabulary_examples: tuple[str, ...]
    """Prompts the model draws well; the first is what ``sample`` shows."""
    grammar: str
    """Text for people on what can be drawn; empty for open-vocabulary models."""
    decode_chunk: int
    """Frames decoded at once."""

    def __post_init__(self) -> None:
        for name, limit in _POSITIVE.items():
            value = getattr(self, name)
            if not 1 <= value <= limit:
                fail(f"model.{name}", f"got {value}, expected 1 to {limit}")
        if self.scaling_factor <= 0:
            fail("model.scaling_factor", f"got {self.scaling_factor}, expected more than 0")
        embedded = self.guidance.kind == "embedded"
        if embedded != (self.timestep_cond_dim is not None):
            fail(
                "model.timestep_cond_dim",
                f"got {self.timestep_cond_dim} with guidance {self.guidance.kind!r}, "
                "expected a width exactly when guidance is embedded",
            )
        if self.timestep_cond_dim is not None and not 2 <= self.timestep_cond_dim <= 4096:
            fail("model.timestep_cond_dim", f"got {self.timestep_cond_dim}, expected 2 to 4096")
        rows, columns = len(self.latent_rgb), {len(row) for row in self.latent_rgb}
        if rows != 3 or columns != {self.latent_channels + 1}:
            fail(
                "model.latent_rgb",
                f"got {rows} rows of {sorted(columns)} numbers, "
                f"expected 3 rows of {self.latent_channels + 1}",
            )
        for side in (self.height, self.width):
            if side.multiple_of % self.vae_scale_factor:
                fail(
                    "model.height/width",
                    f"got multiple_of {side.multiple_of}, "
                    f"expected a multiple of vae_scale_factor {self.vae_scale_factor}",
                )


_POSITIVE = {
    "latent_channels": 64,
    "vae_scale_factor": 64,
    "playback_fps": 240,
    "decode_chunk": MAX_FRAMES,
}
