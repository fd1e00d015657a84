"""Judges: what a graph below float32 is calibrated on, and what it must still be able to do.

U-Net: final latents of the model's own trajectories (``gates.py``). Decoder: frames decoded from
those latents, by peak signal-to-noise ratio and mean colour. Text tower: embeddings of prompts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from hummingbird_export.gates import CASES, gate, snr_db
from hummingbird_export.trajectory import Case, Settings, trajectory
from hummingbird_export.wrappers import Feeds
from hummingbird_runtime.bundle import Bundle
from hummingbird_runtime.errors import ExecutionError
from hummingbird_runtime.facts import ModelFacts
from hummingbird_runtime.manifest import Precision
from hummingbird_runtime.session import OnnxRuntimeBackend, SessionOptions
from hummingbird_runtime.tokenizer import Tokenizer

Array = NDArray[np.float32]
Run = Callable[[Feeds], Array]

CALIBRATION_CASES = 4
"""Trajectories whose network inputs calibrate; the gate's other cases are not seen."""

LEAST_PSNR_DB = 30.0
"""Of decoded frames, against float32: errors of about 8 of 255 levels."""
MOST_COLOUR_SHIFT = 1.0 / 255.0
"""Mean of a frame's channel, in units of the whole range."""

MOST_NOISE_ERROR = 0.7
"""Relative L2 error of one run on random inputs; a graph that is wrong has 1 or more."""

TEXT_GATES_DB = {"int8": 20.0, "int8-dynamic": 20.0, "w8": 25.0, "w4": 10.0, "mixed": 10.0}
"""Least signal-to-noise ratio of prompt embeddings, by precision."""


PROMPTS = (
    "a drone flying over a snowy forest",
    "a cat surfing on a wave at sunset",
    "an old man reading a newspaper in a cafe, close up",
    "waves breaking on dark rocks, slow motion",
    "a red vintage car driving along a mountain road",
    "fireworks above a city at night",
    "a horse galloping through a field of flowers",
    "a robot watering plants on a balcony, animated style",
)
"""Eight subjects, for models that draw anything."""


def example_prompts(facts: ModelFacts, count: int) -> list[str]:
    """Prompts of the model's own vocabulary, repeated where it has few."""
    texts = facts.vocabulary_examples if facts.grammar else PROMPTS
    return [texts[i % len(texts)] for i in range(count)]


def embed_prompts(bundle: Bundle, count: int, *, texts: Sequence[str] = ()) -> list[Array]:
    """Embeddings [1, L, D] of example prompts, by the bundle's own text encoder.

    Args:
        bundle: verified.
        count: how many.
        texts: prompts to take instead.
    """
    tokenizer = Tokenizer.from_files(bundle.folder("tokenizer"))
    entry = bundle.graph("text_encoder")
    options = SessionOptions().for_graph(entry.session)
    session = OnnxRuntimeBackend().open(bundle.path("text_encoder"), options)
    try:
        return [
            session.run({"input_ids": tokenizer.encode(text).ids})["last_hidden_state"]
            for text in texts or example_prompts(bundle.manifest.model, count)
        ]
    finally:
        session.close()


class Judge(Protocol):
    """Prepares references with the float32 graph, then judges another."""

    def prepare(self, run: Run) -> list[Feeds]:
        """Run the float32 graph; gives back inputs that calibrate."""

    def judge(self, run: Run, precision: Precision) -> dict[str, float]:
        """Figures of quality; raises ExecutionError ``export.quality`` below the gate."""

    def tolerance(self, precision: Precision) -> float:
        """Largest relative L2 error of one run."""


@dataclass
class UNetJudge:
    """Four-step clips from equal noise."""

    cases: Sequence[Case]
    """Prompts and seeds; the first ``CALIBRATION_CASES`` calibrate, all judge."""
    settings: Settings
    force: bool = False
    """Whether figures below the gate are only told."""
    latents: list[Array] = field(default_factory=list)
    """Final latents of the float32 graph, after ``prepare``."""

    def prepare(self, run: Run) -> list[Feeds]:
        """Sample every case with the float32 graph."""
        assert len(self.cases) == CASES
        runs = [trajectory(run, case, self.settings) for case in self.cases]
        self.latents = [found.latent for found in runs]
        return [feeds for found in runs[:CALIBRATION_CASES] for feeds in found.feeds]

    def judge(self, run: Run, precision: Precision) -> dict[str, float]:
        """Sample every case again and compare."""
        held = "forced" if self.force else precision
        return gate(run, self.latents, self.cases, self.settings, held).to_json()

    def tolerance(self, precision: Precision) -> float:
        """Of noise, which ranges were not calibrated for."""
        return 10.0 if self.force else MOST_NOISE_ERROR


@dataclass
class DecoderJudge:
    """Frames of the judged U-Net's clips."""

    latents: Sequence[Array]
    """[1, C, F, h, w] in the decoder's scale."""
    frames: list[Array] = field(default_factory=list)

    def prepare(self, run: Run) -> list[Feeds]:
        """Decode the first, middle and last frame of every clip."""
        feeds: list[Feeds] = [
            {"latent_sample": np.ascontiguousarray(latent[:, :, index])}
            for latent in self.latents
            for index in sorted({0, latent.shape[2] // 2, latent.shape[2] - 1})
        ]
        self._feeds = feeds
        self.frames = [run(one) for one in feeds]
        return feeds[::2]

    def judge(self, run: Run, precision: Precision) -> dict[str, float]:
        """Compare frames, clipped to what is shown."""
        psnr, shift = [], 0.0
        for feeds, want in zip(self._feeds, self.frames, strict=True):
            got, shown = (np.clip(image, -1, 1) for image in (run(feeds), want))
            error = float(np.square((got - shown) / 2, dtype=np.float64).mean())
            psnr.append(-10 * np.log10(max(error, 1e-12)))
            means = (got.mean(axis=(2, 3)) - shown.mean(axis=(2, 3))) / 2
            shift = max(shift, float(np.abs(means).max()))
        figures = {
            "psnr_db_mean": round(float(np.mean(psnr)), 2),
            "psnr_db_worst": round(float(min(psnr)), 2),
            "colour_shift": round(shift, 5),
        }
        if min(psnr) < LEAST_PSNR_DB or shift > MOST_COLOUR_SHIFT:
            raise ExecutionError(
                "export.quality",
                f"{precision} decoder: frames against float32, got {figures}, expected at least "
                f"{LEAST_PSNR_DB:g} dB and a shift of at most {MOST_COLOUR_SHIFT:.4f}",
                hint="leave the decoder in fp16-storage",
            )
        return figures

    def tolerance(self, precision: Precision) -> float:
        """Of noise images, which no gate is about."""
        return MOST_NOISE_ERROR


@dataclass
class TextJudge:
    """Embeddings of prompts."""

    prompts: Sequence[NDArray[np.int64]]
    """Token ids [1, L]."""
    embeddings: list[Array] = field(default_factory=list)

    def prepare(self, run: Run) -> list[Feeds]:
        """Embed every prompt with the float32 graph."""
        self._feeds: list[Feeds] = [{"input_ids": ids} for ids in self.prompts]
        self.embeddings = [run(feeds) for feeds in self._feeds]
        return self._feeds

    def judge(self, run: Run, precision: Precision) -> dict[str, float]:
        """Compare embeddings."""
        ratios = [
            snr_db(run(feeds), want)
            for feeds, want in zip(self._feeds, self.embeddings, strict=True)
        ]
        least = TEXT_GATES_DB[precision]
        if min(ratios) < least:
            raise ExecutionError(
                "export.quality",
                f"{precision} text encoder: embeddings against float32, got SNR "
                f"{min(ratios):.1f} dB at worst, expected at least {least:g}",
                hint="take another precision",
            )
        return {
            "snr_db_mean": round(float(np.mean(ratios)), 2),
            "snr_db_worst": round(float(min(ratios)), 2),
        }

    def tolerance(self, precision: Precision) -> float:
        """Of random tokens."""
        return MOST_NOISE_ERROR
