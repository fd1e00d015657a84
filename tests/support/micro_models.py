"""Networks of the published layout at toy widths, with every layer random: seconds to export."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from hummingbird_export.facts import complete_facts
from hummingbird_export.package import WeightsLicence, export_bundle
from hummingbird_export.random_models import preset, random_networks
from hummingbird_runtime.manifest import ModelFacts
from hummingbird_runtime.schedule import SchedulerConfig
from hummingbird_train.models.autoencoder import AutoencoderKL
from hummingbird_train.models.text_encoder import TextEncoder
from hummingbird_train.models.unet import VideoUNet

Networks = tuple[VideoUNet, AutoencoderKL, TextEncoder]

LICENCE = WeightsLicence("CC0-1.0", "Random numbers, dedicated to the public domain.")


def networks(*, guided: bool = True, seed: int = 0) -> Networks:
    """U-Net of two levels, patch autoencoder of 8 x 8 pixels, text tower of one running layer."""
    tiny = preset("tiny")
    shapes = replace(
        tiny,
        unet=replace(
            tiny.unet,
            model_channels=4,
            num_head_channels=2,
            norm_num_groups=2,
            # two-pass guidance needs no second look at the transformers: half the time to export
            attention_resolutions=(2,) if guided else (),
            context_dim=8,
            time_cond_proj_dim=8 if guided else None,
        ),
        vae=replace(
            tiny.vae,
            encoder_channels=8,
            encoder_res_blocks=1,
            decoder_channels=4,
            decoder_res_blocks=1,
            scaling_factor=0.5,
        ),
        text=replace(tiny.text, width=8, heads=2, layers=2),
    )
    return random_networks(shapes, seed=seed)


def facts(unet: VideoUNet, vae: AutoencoderKL, **changes: Any) -> ModelFacts:
    """Clips of 4 frames of 32 x 32 pixels in 4 steps."""
    guided = unet.config.time_cond_proj_dim is not None
    table = {
        "frames": {"trained": 4, "default": 4, "allowed": [1, 26]},
        "height": {"trained": 32, "default": 32, "allowed": [16, 64]},
        "width": {"trained": 32, "default": 32, "allowed": [16, 64]},
        "fps_condition": {"default": 8, "trained": [8], "allowed": [1, 60]},
        "playback_fps": 8,
        "guidance": {
            "kind": "embedded" if guided else "cfg",
            "default": 3.0,
            "trained": [1.0, 5.0],
            "allowed": [0.0, 15.0],
        },
        "num_inference_steps": {"default": 4, "trained": [4], "allowed": [1, 50]},
        "vocabulary_examples": ["a small red circle on a black background"],
        "grammar": "Random weights: every prompt draws noise.",
        "decode_chunk": 3,
    }
    return complete_facts({**table, **changes}, unet=unet, vae=vae)


def export(
    out: Path, parts: Networks, tokenizer_folder: Path, scheduler: SchedulerConfig, **options: Any
) -> Path:
    """A bundle of micro networks under a fixed id."""
    unet, vae, text_encoder = parts
    arguments: dict[str, Any] = {
        "facts": facts(unet, vae),
        "name": "micro",
        "licence": LICENCE,
        "bundle_id": "00000000-0000-4000-8000-000000000001",
        **options,
    }
    return export_bundle(
        out,
        unet=unet,
        vae=vae,
        text_encoder=text_encoder,
        tokenizer_folder=tokenizer_folder,
        scheduler=scheduler,
        **arguments,
    )
