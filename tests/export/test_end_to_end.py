"""Torch and the runtime draw the same clip: a bundle per kind of guidance, many schedules."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hummingbird_export.facts import complete_facts
from hummingbird_export.package import WeightsLicence, export_bundle
from hummingbird_export.random_models import TINY_FACTS, Preset, preset, random_networks
from hummingbird_export.torch_pipeline import TorchPipeline
from hummingbird_runtime import TextToVideoPipeline
from hummingbird_runtime.scheduler_config import DynamicRescale, SchedulerConfig
from hummingbird_runtime.tokenizer import Tokenizer

PROMPT = "a small red circle moving to the left on a black background"
ZERO_SNR: dict[str, Any] = {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True}
SCHEDULES = {
    "trailing ddim, v, zero SNR": SchedulerConfig(
        sampler="ddim", timestep_spacing="trailing", **ZERO_SNR
    ),
    "lcm, eps": SchedulerConfig(),
    "lcm, v, zero SNR": SchedulerConfig(**ZERO_SNR),
    "ddim eta 1, eps, dynamic rescale": SchedulerConfig(
        sampler="ddim",
        timestep_spacing="leading+1",
        eta=1.0,
        dynamic_rescale=DynamicRescale(),
    ),
}


def small(kind: str) -> Preset:
    """The tiny preset at a quarter of its width; guidance embedded or by two passes."""
    tiny = preset("tiny")
    unet = replace(
        tiny.unet,
        model_channels=16,
        num_head_channels=8,
        context_dim=32,
        time_cond_proj_dim=16 if kind == "embedded" else None,
    )
    return replace(
        tiny,
        unet=unet,
        vae=replace(tiny.vae, encoder_channels=8, decoder_channels=16, scaling_factor=0.7),
        text=replace(tiny.text, width=32),
        facts={**TINY_FACTS, "guidance": {**TINY_FACTS["guidance"], "kind": kind}},
    )


class Exported:
    """A bundle and the torch networks that it came from."""

    def __init__(self, kind: str, folder: Path) -> None:
        shapes = small(kind)
        self.unet, self.vae, self.text = random_networks(shapes, seed=3)
        self.facts = complete_facts(shapes.facts, unet=self.unet, vae=self.vae)
        tokens = shapes.write_tokenizer(folder / "tokens")
        self.tokenizer = Tokenizer.from_files(tokens)
        self.path = export_bundle(
            folder / "bundle",
            unet=self.unet,
            vae=self.vae,
            text_encoder=self.text,
            tokenizer_folder=tokens,
            scheduler=shapes.scheduler,
            facts=self.facts,
            name="test",
            licence=WeightsLicence("CC0-1.0", "public domain"),
        )

    def oracle(self, scheduler: SchedulerConfig) -> TorchPipeline:
        return TorchPipeline(self.unet, self.vae, self.text, scheduler, self.facts)


@pytest.fixture(scope="module", params=["embedded", "cfg"])
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return Exported(request.param, tmp_path_factory.mktemp(request.param))


@pytest.mark.parametrize("steps", [1, 4, 8])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_runtime_and_torch_agree_given_the_same_noise(
    exported: Exported, schedule: str, steps: int
) -> None:
    scheduler = SCHEDULES[schedule]
    asked = {"seed": 11, "num_frames": 5, "num_inference_steps": steps, "guidance_scale": 2.5}
    cfg = exported.facts.guidance.kind == "cfg"
    truth = exported.oracle(scheduler)(
        exported.tokenizer.encode(PROMPT).ids,
        negative_ids=exported.tokenizer.encode("").ids if cfg else None,
        **asked,
    )
    with TextToVideoPipeline.from_pretrained(exported.path, threads=1) as pipe:
        pipe.bundle = replace(pipe.bundle, scheduler=scheduler)
        latents = pipe(PROMPT, output_type="latent", **asked)
        frames = pipe(PROMPT, **asked).frames
    assert np.linalg.norm(latents - truth.latents) <= 1e-3 * np.linalg.norm(truth.latents)
    assert np.abs(frames.astype(int) - truth.frames.astype(int)).max() <= 1


def test_the_prompt_reaches_the_latents(exported: Exported) -> None:
    with TextToVideoPipeline.from_pretrained(exported.path, threads=1) as pipe:
        asked = {"num_frames": 3, "num_inference_steps": 2, "output_type": "latent"}
        one, other = pipe(PROMPT, **asked), pipe("a large blue ring", **asked)
    assert np.abs(one - other).max() > 1e-3


def test_other_sizes_and_lengths_than_the_traced_ones_run(exported: Exported) -> None:
    with TextToVideoPipeline.from_pretrained(exported.path, threads=1) as pipe:
        video = pipe(PROMPT, num_frames=7, height=32, width=96, num_inference_steps=1)
    assert video.frames.shape == (7, 32, 96, 3)
