"""What ``TextToVideoPipeline.stream`` yields, in the order in which it happens.

Started, Tokens, one Step per step of the solver, Frames as they are decoded, Done; a Warning may
come anywhere before the first Step, and once behind one when a checkpoint cannot be written.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hummingbird_runtime.preview import latent_preview
from hummingbird_runtime.tokenizer import Tokens

if TYPE_CHECKING:
    from hummingbird_runtime.request import Request
    from hummingbird_runtime.video import Video

__all__ = ["Done", "Event", "Frames", "Started", "Step", "Tokens", "Warning"]


@dataclass(frozen=True)
class Started:
    """The checked request, every default filled in."""

    request: Request
    bundle_id: str
    """Identity of the bundle that runs it."""
    steps_done: int = 0
    """Steps that a checkpoint brings: the first ``Step`` has this number."""


@dataclass(frozen=True)
class Warning:
    """Something the caller should know; the run goes on."""

    code: str
    """Stable dotted identifier, such as prompt.truncated."""
    text: str
    """One sentence for people."""


@dataclass(frozen=True)
class Step:
    """One evaluation of the network is done."""

    i: int
    """0-based number of the step."""
    n: int
    """How many steps the run has."""
    t: int
    """The training timestep that the network saw."""
    seconds: float
    """Duration of this step alone."""
    denoised: NDArray[np.float32]
    """The clean latent as the solver sees it now: float32 [1, C, F, h, w], scaled for the U-Net."""
    latent_rgb: tuple[tuple[float, ...], ...]
    """The bundle's map from latent to colour, used by ``preview``."""

    @property
    def preview(self) -> NDArray[np.uint8]:
        """A rough clip without the decoder, computed when asked for: uint8 [F, h, w, 3]."""
        return latent_preview(self.denoised, self.latent_rgb)


@dataclass(frozen=True)
class Frames:
    """Decoded frames, in order and without gaps."""

    start: int
    """Index of the first frame in ``array``."""
    array: NDArray[np.uint8]
    """uint8 [n, H, W, 3], upscaled where the clip is."""


@dataclass(frozen=True)
class Done:
    """The end of the run: a ``Video``, or an array for output_type ``np`` and ``latent``."""

    video: Video | NDArray[np.float32]


Event: TypeAlias = Started | Warning | Tokens | Step | Frames | Done
