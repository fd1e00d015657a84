"""A finished run to `train/checkpoints/NAME/`: float16 weights, tokenizer, and the build recipe.

That folder is all that `hummingbird export build NAME/build.json` needs, small enough to commit.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from hummingbird_runtime.atomic import atomic_folder
from hummingbird_runtime.facts import Choice, Frames, Guidance, ModelFacts, Side
from hummingbird_train.autoencoder import frames_to_tensor
from hummingbird_train.base import world_schedule
from hummingbird_train.consistency import student_schedule
from hummingbird_train.distillation import DistillationConfig
from hummingbird_train.latents import LatentCache
from hummingbird_train.models.autoencoder import AutoencoderKL
from hummingbird_train.models.text_encoder import TextEncoder
from hummingbird_train.models.unet import VideoUNet
from hummingbird_train.models.weights import load_model, save_model
from hummingbird_train.recipe import load_recipe, section
from hummingbird_train.stages import consistency_config, load_stage
from hummingbird_train.world.grammar import EXAMPLES, GRAMMAR
from hummingbird_train.world.render import render
from hummingbird_train.world.scene import FPS, FRAMES, SIZE, WORLD_VERSION
from hummingbird_train.world.tokenizer_files import write_tokenizer

STUDENTS = ("distill", "consistency", "feedback")
"""Stages whose U-Net can be published, in the order in which they refine it."""
FEW_STEPS = ("consistency", "feedback")
"""Those that change how the U-Net is sampled."""
OPTIONAL = (
    ("tiny_decoder", "tiny-decoder", "tiny_decoder.safetensors"),
    ("upscaler", "upscaler", "upscaler.safetensors"),
)
"""Key of build.json, stage and file of what is published if the run has it."""


def publish(
    run: Path,
    out: Path,
    *,
    recipe: Path,
    licence: Path,
    steps: int,
    w: float,
    stage: str | None = None,
    sampler: Literal["ddim", "lcm"] | None = None,
    overwrite: bool = False,
) -> None:
    """Write the published checkpoint of a run.

    Args:
        run: folder with the finished stages.
        out: new folder, whose name becomes the model's; replaced as a whole when ``overwrite``.
        recipe: the training recipe: says the schedule, and is named in the provenance.
        licence: text of the weights' licence, copied along.
        steps: default number of inference steps.
        w: default guidance scale.
        stage: whose U-Net is published; None is the last of ``STUDENTS`` that the run has.
        sampler: what it is drawn with; None is LCM for a network trained for few steps, else DDIM.
        overwrite: replace an existing folder.

    Raises:
        UsageError: ``train.order`` when a model is missing.
    """
    vae = load_stage(run, "decoder", "vae.safetensors", AutoencoderKL)
    text = load_stage(run, "base", "text.safetensors", TextEncoder)
    done = [s for s in STUDENTS if (run / s / "unet.safetensors").exists()]
    stage = stage or (done[-1] if done else STUDENTS[0])
    unet = load_stage(run, stage, "unet.safetensors", VideoUNet)
    tables = load_recipe(recipe)
    schedule = world_schedule()
    if sampler == "lcm" or (sampler is None and stage in FEW_STEPS):
        schedule = student_schedule(schedule, consistency_config(tables))
    cache = LatentCache(run / "latents")
    vae_config = dataclasses.replace(vae.config, scaling_factor=cache.scaling_factor)
    facts = world_facts(
        cache,
        latent_channels=vae_config.latent_channels,
        size_multiple=vae_config.downscale * unet.config.size_multiple,
        timestep_cond_dim=unet.config.time_cond_proj_dim,
        steps=steps,
        w=w,
        trained_w=guidance_range(tables, stage),
    )
    half = torch.float16
    with atomic_folder(out, overwrite=overwrite) as folder:
        save_model(folder / "unet.safetensors", unet, unet.config, dtype=half)
        save_model(folder / "text_encoder.safetensors", text, text.config, dtype=half)
        save_model(folder / "vae.safetensors", vae, vae_config, dtype=half)
        write_tokenizer(folder / "tokenizer")
        optional = {
            role: _copied(run / place / file, folder)
            for role, place, file in OPTIONAL
            if (run / place / file).exists()
        }
        shutil.copyfile(licence, folder / "LICENSE")
        build = {
            "name": out.name,
            "precision": "fp16-storage",
            "precisions": dict.fromkeys(("text_encoder", "vae_decoder"), "int8-storage"),
            "unet": "unet.safetensors",
            "vae": "vae.safetensors",
            "text": "text_encoder.safetensors",
            "tokenizer": "tokenizer",
            "licence": {"name": "Apache-2.0", "file": "LICENSE"},
            "scheduler": schedule.to_json(),
            **optional,
            "facts": dataclasses.asdict(facts),
            "provenance": {
                "recipe": recipe.as_posix(),
                "stage": stage,
                "data": f"rendered clips of the tiny world, version {WORLD_VERSION}",
                "base_weights": "none: trained from scratch",
            },
        }
        (folder / "build.json").write_text(json.dumps(build, indent=1) + "\n", "utf-8")


def _copied(path: Path, folder: Path) -> str:
    """A small network's file in float16 beside the others; its name."""
    model = load_model(path)
    save_model(folder / path.name, model, model.config, dtype=torch.float16)
    return path.name


def guidance_range(recipe: Mapping[str, Any], stage: str) -> tuple[float, float]:
    """Scales that a student was trained on."""
    if stage in FEW_STEPS:
        return consistency_config(dict(recipe)).guidance
    table = recipe.get("distill", {}).get("loss", {})
    return section(DistillationConfig, table, "distill.loss").guidance


def world_facts(
    cache: LatentCache,
    *,
    latent_channels: int,
    size_multiple: int,
    timestep_cond_dim: int | None,
    steps: int,
    w: float,
    trained_w: tuple[float, float],
) -> ModelFacts:
    """What the tiny world's model may be asked for."""
    side = Side(trained=SIZE, default=SIZE, multiple_of=size_multiple,
                allowed=(32, 128))  # fmt: skip
    return ModelFacts(
        latent_channels=latent_channels,
        vae_scale_factor=8,
        frames=Frames(trained=FRAMES, default=FRAMES, allowed=(1, 104)),
        height=side,
        width=side,
        fps_condition=Choice(default=FPS, trained=(2, FPS), allowed=(1, 60)),
        playback_fps=FPS,
        guidance=Guidance(kind="embedded", default=w, trained=trained_w, allowed=(1.0, 8.0)),
        timestep_cond_dim=timestep_cond_dim,
        num_inference_steps=Choice(default=steps, trained=(steps,), allowed=(1, 50)),
        scaling_factor=cache.scaling_factor,
        latent_rgb=latent_rgb(cache),
        vocabulary_examples=EXAMPLES,
        grammar=GRAMMAR,
        decode_chunk=FRAMES,
    )


def latent_rgb(cache: LatentCache, clips: int = 60) -> tuple[tuple[float, ...], ...]:
    """Least-squares map from a scaled latent cell to its patch's mean colour: 3 rows of C + 1."""
    latents, colours = [], []
    for i in range(min(clips, len(cache))):
        frames = render([cache.scenes[i]], range(0, FRAMES, 5))[0]
        patches = torch.nn.functional.avg_pool2d(frames_to_tensor(frames), 8)
        colours.append(patches.permute(0, 2, 3, 1).reshape(-1, 3).numpy())
        z = cache.latents[i, ::5].astype(np.float32) * cache.scaling_factor
        latents.append(z.transpose(0, 2, 3, 1).reshape(-1, z.shape[1]))
    z = np.concatenate(latents)
    design = np.concatenate([z, np.ones((len(z), 1), np.float32)], axis=1)
    solution, *_ = np.linalg.lstsq(design, np.concatenate(colours), rcond=None)
    return tuple(tuple(round(float(v), 5) for v in row) for row in solution.T)
