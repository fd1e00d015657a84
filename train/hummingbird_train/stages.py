"""The stages of the tiny world's recipe, each one a resumable worker over a run folder.

run/tokenizer/, run/latents/     the world's vocabulary; encoded clips, made on first use
run/vae/vae.safetensors          stage vae
run/base/                        unet.safetensors, text.safetensors: the small network alone
run/teacher/unet.safetensors     grown from it to the teacher's blocks, trained further (optional)
run/distill/unet.safetensors     pruned again; the guided teacher in one pass (stage 1)
run/consistency/                 few steps (stage 2)
run/feedback/                    few steps with rewards beside (stage 2)
run/decoder/, run/tiny-decoder/, run/upscaler/   what makes pixels of latents
"""

from __future__ import annotations

import copy
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import nn

from hummingbird_runtime.errors import UsageError
from hummingbird_runtime.scheduler_config import SchedulerConfig
from hummingbird_runtime.tokenizer import Tokenizer
from hummingbird_train import parallel
from hummingbird_train.autoencoder import AutoencoderLoss, AutoencoderObjective
from hummingbird_train.base import BaseConfig, BaseObjective, world_schedule
from hummingbird_train.consistency import (
    ConsistencyConfig,
    ConsistencyObjective,
    student_schedule,
)
from hummingbird_train.distillation import DistillationConfig, DistillationObjective
from hummingbird_train.feedback.decode import FrameDecoder
from hummingbird_train.feedback.guard import Guard, GuardConfig, GuardedSamples, Probe
from hummingbird_train.feedback.judge import load_judge
from hummingbird_train.feedback.objective import FeedbackConfig, FeedbackObjective
from hummingbird_train.feedback.reward_table import (
    JUDGE_A,
    JUDGE_B,
    feedback_objective,
    world_clips,
)
from hummingbird_train.feedback.rewards.judge_net import JudgeReward
from hummingbird_train.feedback.student_clips import StudentClips
from hummingbird_train.guided_teacher import TowerContexts
from hummingbird_train.latents import LatentCache, build_cache
from hummingbird_train.loop import Objective, train
from hummingbird_train.models.autoencoder import AutoencoderConfig, AutoencoderKL
from hummingbird_train.models.text_encoder import TextConfig, TextEncoder
from hummingbird_train.models.tiny_decoder import TinyDecoder, TinyDecoderConfig
from hummingbird_train.models.unet import UNetConfig, VideoUNet
from hummingbird_train.models.upscaler import UpscalerConfig
from hummingbird_train.models.weights import load_model, save_model
from hummingbird_train.progress import TerminalBar
from hummingbird_train.pruning.growth import grow
from hummingbird_train.pruning.plan import plan
from hummingbird_train.pruning.surgery import pruned_unet
from hummingbird_train.recipe import load_recipe, phases, section
from hummingbird_train.run_config import RunConfig
from hummingbird_train.tiny_decoder_distillation import (
    TinyDecoderLoss,
    TinyDecoderObjective,
    world_pixels,
)
from hummingbird_train.upscaler import Degradation, UpscalerLoss, UpscalerObjective, WorldPairs
from hummingbird_train.world.grammar import judging_prompts
from hummingbird_train.world.scene import FRAMES, SIZE
from hummingbird_train.world.tokenizer_files import VOCABULARY, write_tokenizer

PROBE_PROMPTS, PROBE_SEED = 12, 7
"""Judging prompts that the guard of stage `feedback` looks at; tables use other seeds."""

Recipe = dict[str, Any]
N = TypeVar("N", bound=nn.Module)


def run_stages(
    stages: Sequence[str], recipe_path: Path, run: Path, minutes: float | None, quiet: bool
) -> None:
    """Run stages in this rank, one after the other, until one is not finished in the budget.

    Raises:
        UsageError: ``train.order`` when stage `feedback` is to come and its judges are missing.
        HummingbirdError: as ``run_stage``.
    """
    if "feedback" in stages:
        check_judges(load_recipe(recipe_path).get("feedback", {}), run / "judges")
    end = None if minutes is None else time.monotonic() + 60 * minutes
    for stage in stages:
        left = None if end is None else max(0.0, end - time.monotonic()) / 60
        if not run_stage(stage, recipe_path, run, left, quiet):
            break
        if dist.is_initialized():
            dist.barrier()  # the next stage reads what rank 0 has just written


def run_stage(stage: str, recipe_path: Path, run: Path, minutes: float | None, quiet: bool) -> bool:
    """Run one stage in this rank until it is finished (True) or the budget is gone.

    Raises:
        UsageError: ``train.order`` when an earlier stage's model is missing.
        HummingbirdError: as ``loop.train``.
    """
    recipe = load_recipe(recipe_path)
    objective = BUILDERS[stage](recipe, run)
    bar = TerminalBar(sys.stderr)
    finished = train(
        objective,
        phases(recipe.get(stage, {}), stage),
        _folder(run / stage),
        config=RunConfig.from_recipe(recipe, stage),
        minutes=minutes,
        log=(lambda _: None) if quiet else bar.print,
        progress=(lambda _: None) if quiet else bar,
    )
    bar.close()
    if parallel.rank() == 0:
        print(f"{stage}: {'finished' if finished else 'paused; run again to go on'}, {run / stage}")
    return finished


def check_judges(table: Recipe, judges: Path) -> None:
    """Say what stage `feedback` will miss, hours before it would.

    Raises:
        UsageError: ``train.order`` without the judge of a reward, or the held-out one of the guard.
    """
    rewards = table.get("rewards", ())
    needed = []
    if any(one.get("name") == "judge" and not one.get("weights") for one in rewards):
        needed.append(JUDGE_A)
    if table.get("run", {}).get("samples_every"):
        needed.append(JUDGE_B)
    missing = [path for path in needed if not (judges / path).is_file()]
    if missing:
        verbs = " and ".join(
            f"`hummingbird train judge {path.parent} --run {judges}`" for path in missing
        )
        raise UsageError(
            "train.order",
            f"{judges / missing[0]} does not exist, expected the judge that stage feedback needs",
            hint=f"run {verbs} first",
        )


def _folder(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return path


def load_stage(run: Path, stage: str, file: str, kind: type[N]) -> N:
    """The model that a stage wrote.

    Raises:
        UsageError: ``train.order`` when the stage has not been run.
    """
    path = run / stage / file
    if not path.exists():
        raise UsageError(
            "train.order",
            f"{path} does not exist, expected the result of stage {stage}",
            hint=f"run `hummingbird train {stage}` to its end first",
        )
    model = load_model(path)
    assert isinstance(model, kind)
    return model


def _seed(recipe: Recipe) -> int:
    return int(recipe.get("seed", 0))


def _tier(recipe: Recipe) -> int:
    return int(recipe.get("tier", 1))


def _vae(recipe: Recipe, run: Path) -> AutoencoderObjective:
    table = recipe["vae"]
    return AutoencoderObjective(
        section(AutoencoderConfig, table.get("model", {}), "vae.model"),
        section(AutoencoderLoss, table.get("loss", {}), "vae.loss"),
        tier=_tier(recipe),
        seed=_seed(recipe),
    )


def _decoder(recipe: Recipe, run: Path) -> AutoencoderObjective:
    """Latents stay as they are, so this may run at any time after stage vae."""
    vae = load_stage(run, "vae", "vae.safetensors", AutoencoderKL)
    vae.encoder.requires_grad_(False)
    vae.quant_conv.requires_grad_(False)
    return AutoencoderObjective(
        vae.config,
        section(AutoencoderLoss, recipe["decoder"].get("loss", {}), "decoder.loss"),
        tier=_tier(recipe),
        seed=_seed(recipe),
        model=vae.train(),
    )


def _tiny_decoder(recipe: Recipe, run: Path) -> TinyDecoderObjective:
    table = recipe["tiny-decoder"]
    cache = _shared(recipe, run)[2]
    return TinyDecoderObjective(
        TinyDecoderConfig.tiny(cache.scaling_factor),
        load_stage(run, "decoder", "vae.safetensors", AutoencoderKL),
        cache,
        section(TinyDecoderLoss, table.get("loss", {}), "tiny-decoder.loss"),
        seed=_seed(recipe),
        pixels=world_pixels,
    )


def _upscaler(recipe: Recipe, run: Path) -> UpscalerObjective:
    table = recipe["upscaler"]
    config = section(UpscalerConfig, table.get("model", {}), "upscaler.model")
    tiny = run / "tiny-decoder" / "tiny_decoder.safetensors"
    return UpscalerObjective(
        config,
        WorldPairs(tier=_tier(recipe), scale=config.scale),
        section(UpscalerLoss, table.get("loss", {}), "upscaler.loss"),
        section(Degradation, table.get("degradation", {}), "upscaler.degradation"),
        seed=_seed(recipe),
        vae=load_stage(run, "decoder", "vae.safetensors", AutoencoderKL),
        decoders=[load_stage(run, "tiny-decoder", tiny.name, TinyDecoder)] if tiny.exists() else (),
    )


def _shared(recipe: Recipe, run: Path) -> tuple[BaseConfig, Tokenizer, LatentCache]:
    """Configuration, tokenizer and the latent cache, made on first use by all ranks together."""
    config = section(BaseConfig, recipe["base"].get("data", {}), "base.data")
    load_stage(run, "vae", "vae.safetensors", AutoencoderKL)
    if parallel.rank() == 0 and not (run / "tokenizer").exists():
        write_tokenizer(run / "tokenizer")
    build_cache(
        run / "vae" / "vae.safetensors",
        run / "latents",
        clips=config.cache_clips,
        seed=_seed(recipe) + 1,
        tier=config.tier,
    )
    if dist.is_initialized():
        dist.barrier()
    return config, Tokenizer.from_files(run / "tokenizer"), LatentCache(run / "latents")


def _base(recipe: Recipe, run: Path) -> BaseObjective:
    config, tokenizer, cache = _shared(recipe, run)
    table = recipe["base"]
    torch.manual_seed(_seed(recipe))
    unet = VideoUNet(section(UNetConfig, table["unet"], "base.unet"))
    text = TextEncoder(TextConfig(**{**table["text"], "vocab_size": len(VOCABULARY)}))
    return BaseObjective(unet, text, cache, tokenizer, config)


def _teacher(recipe: Recipe, run: Path) -> BaseObjective:
    """The base network with identities between its blocks: it starts as the same function."""
    config, tokenizer, cache = _shared(recipe, run)
    small = load_stage(run, "base", "unet.safetensors", VideoUNet)
    larger = {**small.config.to_json(), **recipe["teacher"]["unet"]}
    unet = grow(small, section(UNetConfig, larger, "teacher.unet"), seed=_seed(recipe))
    text = load_stage(run, "base", "text.safetensors", TextEncoder)
    return BaseObjective(unet, text, cache, tokenizer, config, train_text=False)


def _teacher_of(recipe: Recipe, run: Path) -> VideoUNet:
    """What students learn from: the grown teacher, or without one the base network itself."""
    return load_stage(
        run, "teacher" if "teacher" in recipe else "base", "unet.safetensors", VideoUNet
    )


def _distill(recipe: Recipe, run: Path) -> DistillationObjective:
    _, tokenizer, cache = _shared(recipe, run)
    teacher = _teacher_of(recipe, run)
    student = copy.deepcopy(teacher)
    if "teacher" in recipe:
        shape = section(UNetConfig, recipe["base"]["unet"], "base.unet")
        student = pruned_unet(teacher, plan(teacher.config, shape))
    return DistillationObjective(
        student.requires_grad_(True),
        student.config,
        teacher,
        teacher.config,
        _contexts(run, tokenizer),
        cache,
        world_schedule(),
        section(DistillationConfig, recipe["distill"].get("loss", {}), "distill.loss"),
    )


def _contexts(run: Path, tokenizer: Tokenizer) -> TowerContexts:
    return TowerContexts(load_stage(run, "base", "text.safetensors", TextEncoder), tokenizer)


def consistency_config(recipe: Recipe) -> ConsistencyConfig:
    """Grid, guidance and loss that stages `consistency` and `feedback` share."""
    table = recipe.get("consistency", {})
    return section(ConsistencyConfig, table.get("loss", {}), "consistency.loss")


def _few_steps(recipe: Recipe, run: Path, start: str) -> ConsistencyObjective:
    _, tokenizer, cache = _shared(recipe, run)
    student = load_stage(run, start, "unet.safetensors", VideoUNet)
    teacher = _teacher_of(recipe, run)
    return ConsistencyObjective(
        student,
        student.config,
        teacher,
        teacher.config,
        _contexts(run, tokenizer),
        cache,
        world_schedule(),
        consistency_config(recipe),
    )


def _consistency(recipe: Recipe, run: Path) -> ConsistencyObjective:
    return _few_steps(recipe, run, "distill")


def _feedback(recipe: Recipe, run: Path) -> FeedbackObjective:
    """From the few-step student, or from stage 1's where the recipe has no stage between."""
    table, judges = recipe["feedback"], run / "judges"
    between = "consistency" if recipe.get("consistency", {}).get("phases") else "distill"
    anchor = _few_steps(recipe, run, between)
    vae = load_stage(run, "decoder", "vae.safetensors", AutoencoderKL)
    scale = anchor.clips.scaling_factor
    schedule = student_schedule(world_schedule(), anchor.config)
    steps = sum(phase.steps for phase in phases(table, "feedback"))
    return feedback_objective(
        anchor,
        table,
        decoder=vae,
        scaling_factor=scale,
        scheduler=schedule,
        calls=steps * RunConfig.from_recipe(recipe, "feedback").accumulate,
        real=world_clips(_tier(recipe)),
        judges=judges,
        samples=_guard(table, anchor, FrameDecoder(vae, scale), schedule, judges, _tier(recipe)),
    )


def _guard(
    table: Recipe,
    anchor: ConsistencyObjective,
    decode: FrameDecoder,
    schedule: SchedulerConfig,
    judges: Path,
    tier: int,
) -> GuardedSamples | None:
    """Checks by the held-out judge every `run.samples_every` steps; None without one."""
    if not table.get("run", {}).get("samples_every"):
        return None
    asked = judging_prompts(PROBE_PROMPTS, seed=PROBE_SEED, tier=tier, split="train")
    clips = StudentClips(
        anchor.unet,
        anchor.contexts,
        decode,
        schedule,
        steps=int(table.get("config", {}).get("steps", FeedbackConfig.steps)),
        w=sum(anchor.config.guidance) / 2,
        frames=FRAMES,
        size=(SIZE // 8, SIZE // 8),
    )
    judge = JudgeReward(load_judge(judges / JUDGE_B), "held-out")
    probe = Probe(clips, [prompt for prompt, _ in asked], (0, 1), judge)
    config = section(GuardConfig, table.get("guard", {}), "feedback.guard")

    def keep(folder: Path) -> None:
        save_model(folder / "unet.safetensors", anchor.unet, anchor.unet_config)

    return GuardedSamples(probe, Guard(probe(), config), keep)


BUILDERS: dict[str, Callable[[Recipe, Path], Objective]] = {
    "vae": _vae,
    "decoder": _decoder,
    "base": _base,
    "teacher": _teacher,
    "distill": _distill,
    "consistency": _consistency,
    "feedback": _feedback,
    "tiny-decoder": _tiny_decoder,
    "upscaler": _upscaler,
}
"""Stage -> what it trains, in the order of a whole run."""
