"""The stages of the tiny world's recipe, each one a resumable worker over a run folder.

run/tokenizer/               the world's vocabulary
run/vae/vae.safetensors      stage vae
run/latents/                 cache of encoded clips, made by stage base
run/base/                    unet.safetensors, text.safetensors: the teacher
run/guidance/                unet.safetensors: guidance in the w embedding
run/decoder/vae.safetensors  stage decoder: the same encoder, its decoder trained further
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch.distributed as dist

from hummingbird_runtime.errors import UsageError
from hummingbird_runtime.tokenizer import Tokenizer
from hummingbird_train import parallel
from hummingbird_train.autoencoder import AutoencoderLoss, AutoencoderObjective
from hummingbird_train.base import BaseConfig, BaseObjective
from hummingbird_train.guidance import GuidanceConfig, GuidanceObjective
from hummingbird_train.latents import LatentCache, build_cache
from hummingbird_train.loop import RunConfig, train
from hummingbird_train.models.autoencoder import AutoencoderConfig, AutoencoderKL
from hummingbird_train.models.text_encoder import TextConfig, TextEncoder
from hummingbird_train.models.unet import UNetConfig, VideoUNet
from hummingbird_train.models.weights import load_model
from hummingbird_train.recipe import load_recipe, phases, section
from hummingbird_train.world.tokenizer_files import VOCABULARY, write_tokenizer

STAGES = ("vae", "base", "guidance", "decoder")


def run_stage(stage: str, recipe_path: Path, run: Path, minutes: float | None, quiet: bool) -> None:
    """Run one stage in this rank until it is finished or the budget is gone.

    Raises:
        UsageError: ``train.order`` when an earlier stage's model is missing.
    """
    recipe = load_recipe(recipe_path)
    build = {"vae": _vae, "base": _base, "guidance": _guidance, "decoder": _decoder}[stage]
    table = recipe.get(stage, {})
    objective = build(recipe, run)
    decay = float(table.get("ema_decay", 0.995))
    finished = train(
        objective,
        phases(table, stage),
        _folder(run / stage),
        config=RunConfig(seed=int(recipe.get("seed", 0)), ema_decay=decay),
        minutes=minutes,
        log=lambda line: None if quiet else print(line, file=sys.stderr, flush=True),
    )
    if parallel.rank() == 0:
        print(f"{stage}: {'finished' if finished else 'paused; run again to go on'}, {run / stage}")


def _folder(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return path


def _need(path: Path, stage: str) -> Path:
    if not path.exists():
        raise UsageError(
            "train.order",
            f"{path} does not exist, expected the result of stage {stage}",
            hint=f"run `hummingbird train {stage}` to its end first",
        )
    return path


def _vae(recipe: dict[str, Any], run: Path) -> AutoencoderObjective:
    table = recipe["vae"]
    return AutoencoderObjective(
        section(AutoencoderConfig, table.get("model", {}), "vae.model"),
        section(AutoencoderLoss, table.get("loss", {}), "vae.loss"),
        tier=int(recipe.get("tier", 1)),
        seed=int(recipe.get("seed", 0)),
    )


def _decoder(recipe: dict[str, Any], run: Path) -> AutoencoderObjective:
    """Latents stay as they are, so this may run at any time after stage vae."""
    vae = load_model(_need(run / "vae" / "vae.safetensors", "vae"))
    assert isinstance(vae, AutoencoderKL)
    vae.encoder.requires_grad_(False)
    vae.quant_conv.requires_grad_(False)
    table = recipe["decoder"]
    return AutoencoderObjective(
        vae.config,
        section(AutoencoderLoss, table.get("loss", {}), "decoder.loss"),
        tier=int(recipe.get("tier", 1)),
        seed=int(recipe.get("seed", 0)),
        model=vae.train(),
    )


def _shared(recipe: dict[str, Any], run: Path) -> tuple[BaseConfig, Tokenizer, LatentCache]:
    """Configuration, tokenizer and the latent cache, made on first use by all ranks together."""
    config = section(BaseConfig, recipe["base"].get("data", {}), "base.data")
    vae_path = _need(run / "vae" / "vae.safetensors", "vae")
    if parallel.rank() == 0 and not (run / "tokenizer").exists():
        write_tokenizer(run / "tokenizer")
    build_cache(
        vae_path,
        run / "latents",
        clips=config.cache_clips,
        seed=int(recipe.get("seed", 0)) + 1,
        tier=config.tier,
    )
    if dist.is_initialized():
        dist.barrier()
    return config, Tokenizer.from_files(run / "tokenizer"), LatentCache(run / "latents")


def _base(recipe: dict[str, Any], run: Path) -> BaseObjective:
    config, tokenizer, cache = _shared(recipe, run)
    table = recipe["base"]
    return BaseObjective(
        section(UNetConfig, table["unet"], "base.unet"),
        TextConfig(**{**table["text"], "vocab_size": len(VOCABULARY)}),
        cache,
        tokenizer,
        config,
        seed=int(recipe.get("seed", 0)),
    )


def _guidance(recipe: dict[str, Any], run: Path) -> GuidanceObjective:
    _, tokenizer, cache = _shared(recipe, run)
    unet = load_model(_need(run / "base" / "unet.safetensors", "base"))
    text = load_model(_need(run / "base" / "text.safetensors", "base"))
    assert isinstance(unet, VideoUNet)
    assert isinstance(text, TextEncoder)
    table = recipe["guidance"]
    return GuidanceObjective(
        unet,
        unet.config,
        text,
        cache,
        tokenizer,
        section(GuidanceConfig, table.get("range", {}), "guidance.range"),
    )
