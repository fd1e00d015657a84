"""The whole path, torch against the runtime: the same noise, the same clip."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import micro_models
import numpy as np
import pytest

from hummingbird_export.precision import round_to_half
from hummingbird_export.random_models import LCM, TINY_DDIM, VIDEOCRAFTER2_DDIM
from hummingbird_export.torch_pipeline import TorchPipeline
from hummingbird_runtime.bundle import Bundle
from hummingbird_runtime.integrity import file_entries, seal
from hummingbird_runtime.pipeline import TextToVideoPipeline
from hummingbird_runtime.schedule import SchedulerConfig

PROMPT = "a small red circle moving to the left on a black background"
V_LCM = SchedulerConfig(prediction_type="v_prediction")


def under(bundle: Path, scheduler: SchedulerConfig, out: Path) -> Path:
    """A copy of a bundle with another schedule: graphs do not know schedules."""
    shutil.copytree(bundle, out)
    path = out / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps(scheduler.to_json()))
    manifest = Bundle.open(bundle).manifest
    seal(out, replace(manifest, files=file_entries(out)))
    return out


def oracle(bundle: Path, *, guided: bool) -> TorchPipeline:
    networks = micro_models.networks(guided=guided)
    if guided:  # that bundle stores float16
        networks = tuple(map(round_to_half, networks))
    opened = Bundle.open(bundle)
    return TorchPipeline(*networks, opened.scheduler, opened.manifest.model)


def compare(bundle: Path, *, guided: bool, steps: int, **options) -> None:
    torch_side = oracle(bundle, guided=guided)
    with TextToVideoPipeline.from_pretrained(bundle, threads=2) as pipe:
        ids = pipe.tokenizer.encode(PROMPT).ids
        negative = pipe.tokenizer.encode(options.get("negative_prompt") or "").ids
        seen: list[np.ndarray] = []
        video = pipe(
            PROMPT,
            num_inference_steps=steps,
            callback_on_step_end=lambda step: seen.append(step.denoised),
            **options,
        )
    options.pop("negative_prompt", None)
    clip = torch_side(ids, num_inference_steps=steps, negative_ids=negative, **options)
    assert len(clip.trajectory) == len(seen) == steps
    for mine, theirs in zip(clip.trajectory, seen, strict=True):
        error = np.linalg.norm(mine - theirs) / np.linalg.norm(mine)
        assert error <= 1e-3, error
    assert np.isfinite(clip.latents).all()
    difference = np.abs(clip.frames.astype(int) - video.frames.astype(int))
    assert difference.max() <= 1
    assert len(np.unique(clip.frames)) > 20  # not a blank clip


@pytest.mark.parametrize("steps", [1, 4, 8])
@pytest.mark.parametrize(
    "scheduler",
    [LCM, V_LCM, TINY_DDIM, VIDEOCRAFTER2_DDIM],
    ids=["lcm", "lcm-v", "ddim-v-zero-snr", "ddim-eps-eta1-rescale"],
)
def test_embedded_guidance(
    scheduler: SchedulerConfig, steps: int, guided_bundle: Path, tmp_path: Path
):
    bundle = under(guided_bundle, scheduler, tmp_path / "bundle")
    compare(bundle, guided=True, steps=steps, seed=7, guidance_scale=2.5)


@pytest.mark.parametrize("scheduler", [TINY_DDIM, VIDEOCRAFTER2_DDIM], ids=["v", "eps"])
def test_two_pass_guidance(scheduler: SchedulerConfig, plain_bundle: Path, tmp_path: Path):
    bundle = under(plain_bundle, scheduler, tmp_path / "bundle")
    compare(
        bundle, guided=False, steps=4, seed=1, guidance_scale=3.0, negative_prompt="a blue ring"
    )


def test_other_sizes_frame_counts_and_rates(guided_bundle: Path, tmp_path: Path):
    bundle = under(guided_bundle, LCM, tmp_path / "bundle")
    compare(
        bundle, guided=True, steps=2, seed=3, num_frames=7, height=48, width=16, fps_condition=24
    )


def test_the_comparison_notices_another_guidance_scale(guided_bundle: Path, tmp_path: Path):
    bundle = under(guided_bundle, LCM, tmp_path / "bundle")
    pipeline = oracle(bundle, guided=True)
    with TextToVideoPipeline.from_pretrained(bundle) as pipe:
        ids = pipe.tokenizer.encode(PROMPT).ids
        latents = pipe(PROMPT, guidance_scale=2.0, output_type="latent")
    other = pipeline(ids, guidance_scale=3.0).latents
    assert np.linalg.norm(other - latents) > 1e-3 * np.linalg.norm(other)
