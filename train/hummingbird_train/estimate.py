"""What a training stage needs: parameters, work, memory per GPU, seconds per step.

Counted, not guessed, where that is possible: parameters, FLOPs (torch's counter) and the bytes that
autograd keeps come from running the networks on the meta device. Assumed: memory-efficient
attention on the GPU, the useful speeds of `GPUS`, frozen networks held in the compute format,
activations linear in the batch. `hummingbird train estimate` prints it.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import nn

from hummingbird_runtime.cli.parser import Parser, number_in
from hummingbird_runtime.errors import InputError, UsageError
from hummingbird_train.accelerator import HALF, Precision
from hummingbird_train.lora import TARGETS
from hummingbird_train.meta_trace import Trace, trace_encoder, trace_unet
from hummingbird_train.models.autoencoder import AutoencoderConfig
from hummingbird_train.models.text_encoder import TextConfig
from hummingbird_train.models.unet import UNetConfig
from hummingbird_train.models.weights import count_parameters, skeleton
from hummingbird_train.recipe import load_recipe, phases, section

Stage = Literal["distill", "consistency", "style"]
Sharding = Literal["none", "fsdp2"]

RANKS = 4
"""GPUs of the claim."""

RUNTIME_GB = 2.0
"""CUDA context, library workspaces and fragmentation, per GPU."""


@dataclass(frozen=True)
class Gpu:
    """One card, or one of the two dies that a MI250 shows as devices."""

    memory: float
    """GB of 10^9 bytes."""
    useful: float
    """TFLOP/s that training of this kind reaches in bf16; a third to a half of the data sheet."""


GPUS = {
    "A100 40GB": Gpu(42.9, 125.0),
    "A100 80GB": Gpu(85.9, 125.0),
    "H100 80GB": Gpu(85.9, 350.0),
    "MI250 die 64GB": Gpu(68.7, 50.0),
}

FP32_SPEED = 0.25
"""Useful speed in fp32 (TF32 matrices) over bf16's."""


@dataclass(frozen=True)
class Estimate:
    """One stage on four GPUs."""

    parameters: int
    """Of the student."""
    trainable: int
    """Of them, or of the LoRA factors beside them."""
    teacher_parameters: int
    """0 without a teacher."""
    work: Mapping[str, float]
    """TFLOP per sample by item."""
    memory: Mapping[str, float]
    """GB (10^9 bytes) per GPU by item."""
    batch: int
    """Samples per GPU and step."""
    seconds_per_step: Mapping[str, float]
    """By name of GPU; communication left out."""
    fits: Mapping[str, bool]
    """Whether four of them hold it."""

    @property
    def tflop_per_sample(self) -> float:
        """All work of one sample."""
        return sum(self.work.values())

    @property
    def memory_per_gpu(self) -> float:
        """GB of all items."""
        return sum(self.memory.values())


def lora_parameters(config: UNetConfig, rank: int, targets: str = "all") -> int:
    """Factors of rank ``rank`` for every matrix that `lora.TARGETS` names so."""
    pattern = re.compile(TARGETS[targets])
    count = 0
    for name, module in skeleton("unet", config).named_modules():
        if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
            rows, columns = module.weight.shape[0], module.weight[0].numel()
            if pattern.search(name):
                count += min(rank, rows, columns) * (rows + columns)
    return count


def estimate(
    unet_config: UNetConfig,
    teacher_config: UNetConfig | None,
    frames: int,
    height: int,
    width: int,
    batch: int,
    stage: Stage,
    precision: Precision = "bf16",
    sharding: Sharding = "none",
    lora_rank: int = 0,
    checkpointing: bool = True,
    *,
    vae_config: AutoencoderConfig | None = None,
    text_config: TextConfig | None = None,
) -> Estimate:
    """What one stage needs on four GPUs.

    Args:
        unet_config: the student.
        teacher_config: the frozen teacher, evaluated with and without the prompt; None for none.
        frames: per clip.
        height: of the pixels.
        width: of the pixels.
        batch: clips per GPU and step.
        stage: distill: the student against the teacher's guided prediction. consistency: the same
            with the student's own target as one more pass. style: the student on encoded clips.
        precision: compute format; trained weights, gradients, moments and averages are float32.
        sharding: fsdp2 splits what belongs to the student over the four.
        lora_rank: train factors of this rank beside frozen weights; 0 trains all weights.
        checkpointing: blocks are computed again in backward.
        vae_config: the autoencoder, the published one when None.
        text_config: the text tower, the published one when None.

    Returns:
        Items of work and memory, seconds per step, and on which GPUs four hold it.

    Raises:
        UsageError: ``estimate.option`` for a value out of range or stages without a teacher.
    """
    vae_config = vae_config or AutoencoderConfig.videocrafter2()
    text_config = text_config or TextConfig.videocrafter2()
    multiple = vae_config.downscale * unet_config.size_multiple
    for what, good, expected in (
        (f"stage {stage!r}", stage in get_args(Stage), ", ".join(get_args(Stage))),
        (f"precision {precision!r}", precision in ("fp32", *HALF), "fp32, bf16 or fp16"),
        (f"sharding {sharding!r}", sharding in get_args(Sharding), "none or fsdp2"),
        (f"frames {frames}", frames >= 1, "at least 1"),
        (f"batch {batch}", batch >= 1, "at least 1"),
        (f"lora_rank {lora_rank}", lora_rank >= 0, "at least 0"),
        (
            f"size {height}x{width}",
            min(height, width) > 0 and height % multiple == 0 and width % multiple == 0,
            f"multiples of {multiple}",
        ),
        (f"stage {stage} without a teacher", teacher_config or stage == "style", "a teacher"),
    ):
        if not good:
            raise UsageError(
                "estimate.option",
                f"estimate, got {what}, expected {expected}",
                hint="see `hummingbird train estimate --help`",
            )
    dtype = HALF.get(precision, torch.float32)
    shape = frames, height // vae_config.downscale, width // vae_config.downscale
    student = trace_unet(unet_config, *shape, dtype)
    encoder = trace_encoder(vae_config, height, width, dtype)
    teacher = trace_unet(teacher_config, *shape, dtype) if teacher_config else None
    text = count_parameters(skeleton("text_encoder", text_config))
    trainable = lora_parameters(unet_config, lora_rank) if lora_rank else student.parameters

    # LoRA saves no work: the change sits on the weight, whose whole gradient is made and projected.
    again = ", blocks again" if checkpointing else ""
    work = {
        f"student, forward{again}, backward": (3 + checkpointing) * student.flop,
        "encoder": frames * encoder.flop,
    }
    if teacher and stage != "style":
        work["teacher, with and without the prompt"] = 2 * teacher.flop
    if stage == "consistency":
        work["student's target"] = student.flop
    memory = _memory(
        student,
        teacher if stage != "style" else None,
        encoder,
        text,
        trainable=trainable,
        lora=lora_rank > 0,
        batch=batch,
        size=dtype.itemsize,
        ranks=RANKS if sharding == "fsdp2" else 1,
        checkpointing=checkpointing,
    )
    tera = {name: flop / 1e12 for name, flop in work.items()}
    total, per_gpu = sum(tera.values()), sum(memory.values())
    speed = 1.0 if precision in HALF else FP32_SPEED
    return Estimate(
        parameters=student.parameters,
        trainable=trainable,
        teacher_parameters=teacher.parameters if teacher and stage != "style" else 0,
        work=tera,
        memory=memory,
        batch=batch,
        seconds_per_step={n: batch * total / (g.useful * speed) for n, g in GPUS.items()},
        fits={n: per_gpu <= g.memory for n, g in GPUS.items()},
    )


def _memory(
    student: Trace,
    teacher: Trace | None,
    encoder: Trace,
    text: int,
    *,
    trainable: int,
    lora: bool,
    batch: int,
    size: int,
    ranks: int,
    checkpointing: bool,
) -> dict[str, float]:
    """GB per GPU by item; ``size`` is bytes of one number in the compute format."""
    weights = size * student.parameters + 4 * trainable if lora else 4 * trainable
    # The weights that a forward reads in the compute format: gathered a block at a time (the next
    # one is on its way) beside the root's own; or cast by autocast, or summed with LoRA's change,
    # and kept until backward.
    if ranks > 1:
        copies = 3 * size * student.largest_group
    elif lora:
        copies = 0 if checkpointing else size * student.parameters
    else:
        copies = 0 if size == 4 else size * trainable
    if checkpointing:
        activations = student.kept_outside + student.kept_inputs + student.largest_block
    else:
        activations = student.kept
    items = {
        "student's weights": weights / ranks,
        "gradients": 4 * trainable / ranks,
        "Adam's moments": 8 * trainable / ranks,
        "moving average": 4 * trainable / ranks,
        "weights in the compute format": copies,
        "autoencoder and text tower": size * (encoder.parameters + text),
        "student's activations": batch * activations,
        "passes without gradient": max(
            batch * teacher.largest_block if teacher else 0, encoder.largest_block
        ),
    }
    if teacher:
        items["teacher's weights"] = size * teacher.parameters
    return {**{n: b / 1e9 for n, b in items.items()}, "runtime": RUNTIME_GB}


def table(result: Estimate) -> str:
    """Markdown for people."""
    teacher = result.teacher_parameters
    lines = [
        f"Student {result.parameters:,} parameters, {result.trainable:,} trained; "
        + (f"teacher {teacher:,}." if teacher else "no teacher."),
        "",
        "| work of one sample | TFLOP |",
        "| --- | ---: |",
        *(f"| {name} | {value:.3g} |" for name, value in result.work.items()),
        f"| **all** | **{result.tflop_per_sample:.3g}** |",
        "",
        f"| memory per GPU at batch {result.batch} | GB |",
        "| --- | ---: |",
        *(f"| {name} | {value:.2f} |" for name, value in result.memory.items() if value >= 0.005),
        f"| **all** | **{result.memory_per_gpu:.2f}** |",
        "",
        f"| GPU | useful TFLOP/s | seconds per step | {RANKS} of them hold it |",
        "| --- | ---: | ---: | --- |",
    ]  # fmt: skip
    lines += [
        f"| {name} | {gpu.useful:g} | {result.seconds_per_step[name]:.3g} | "
        f"{'yes' if result.fits[name] else 'no'} |"
        for name, gpu in GPUS.items()
    ]
    return "\n".join(lines)


PRESETS = {
    "vc2": UNetConfig.videocrafter2,
    "09b": UNetConfig.hummingbird_09b,
    "07b": UNetConfig.hummingbird_07b,
    "tiny": UNetConfig.tiny,
}


def main(argv: list[str]) -> int:
    """``hummingbird train estimate``: print the table of presets or of a recipe."""
    parser = Parser(
        prog="hummingbird train estimate",
        description="parameters, work, memory and seconds per step of a training stage",
    )
    add = parser.add_argument
    add("recipe", nargs="?", type=Path, metavar="RECIPE.toml",
        help="takes networks and shapes from there instead of the presets")  # fmt: skip
    add("--preset", choices=PRESETS, default="07b", help="student (%(default)s)")
    add("--teacher", choices=PRESETS, default="vc2", help="teacher (%(default)s)")
    add("--stage", choices=get_args(Stage), default="distill", help="default %(default)s")
    add("--frames", type=number_in(1, 104), help="default 16, or the recipe's")
    add("--height", type=number_in(8, 4096), help="pixels; default 320, or 64 with a recipe")
    add("--width", type=number_in(8, 4096), help="pixels; default 512, or 64 with a recipe")
    add("--batch", type=number_in(1, 4096), help="clips per GPU; default 1, or the recipe's")
    add("--precision", choices=("fp32", *HALF), default="bf16", help="default %(default)s")
    add("--sharding", choices=get_args(Sharding), default="none", help="default %(default)s")
    add("--lora-rank", type=number_in(0, 4096), default=0, help="0 trains all weights (default)")
    add("--no-checkpointing", action="store_true", help="keep every activation")
    add("--json", action="store_true", help="print JSON")
    parsed = parser.parse(argv)
    options = _recipe_options(parsed.recipe, parsed.stage) if parsed.recipe else {}
    shape = {"frames": 16, "height": 320, "width": 512, "batch": 1} | options.pop("shape", {})
    shape |= {k: getattr(parsed, k) for k in shape if getattr(parsed, k) is not None}
    networks = {
        "unet_config": PRESETS[parsed.preset](),
        "teacher_config": PRESETS[parsed.teacher](),
    } | options
    result = estimate(
        **networks,
        **shape,
        stage=parsed.stage,
        precision=parsed.precision,
        sharding=parsed.sharding,
        lora_rank=parsed.lora_rank,
        checkpointing=not parsed.no_checkpointing,
    )
    if parsed.json:
        totals = {
            "tflop_per_sample": result.tflop_per_sample,
            "memory_per_gpu": result.memory_per_gpu,
        }
        print(json.dumps(dataclasses.asdict(result) | totals, indent=1))
    else:
        print(table(result))
    return 0


def _recipe_options(path: Path, stage: str) -> dict[str, Any]:
    """Networks of a recipe for the tiny world, and the shape of its largest phase."""
    recipe = load_recipe(path)
    base = recipe.get("base", {})
    if "unet" not in base:
        raise InputError(
            "recipe.keys",
            f"recipe {path}, got no section [base.unet], expected the teacher's shape there",
            hint="give a recipe of train/recipes/, or use --preset",
        )
    teacher = section(UNetConfig, base["unet"], "base.unet")
    own = recipe.get(stage, {})
    student = section(UNetConfig, own["unet"], f"{stage}.unet") if "unet" in own else teacher
    where = stage if own.get("phases") else "base"
    found = phases(recipe[where], where)
    largest = max(found, key=lambda p: p.batch * p.frames, default=None)
    shape = {"height": 64, "width": 64}
    if largest is not None:
        shape |= {"frames": largest.frames, "batch": largest.batch}
    vae = recipe.get("vae", {}).get("model")
    text = {**base["text"], "vocab_size": 75} if "text" in base else None
    return {
        "unet_config": student,
        "teacher_config": teacher,
        "vae_config": section(AutoencoderConfig, vae, "vae.model") if vae else None,
        "text_config": TextConfig(**text) if text else None,
        "shape": shape,
    }
