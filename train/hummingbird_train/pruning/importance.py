"""What each block of a U-Net is worth: the loss on validation clips with one block bypassed.

A bypassed block passes its features on; where it changes their width its own 1x1 skip connection
does, without the residual branch and the transformers. Resampling stays. Every block is measured on
the same clips, noise and timesteps, so the differences are paired.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hummingbird_runtime.atomic import atomic_file, atomic_folder
from hummingbird_runtime.cli.parser import Parser, number_in
from hummingbird_runtime.errors import InputError, UsageError
from hummingbird_runtime.schedule import SchedulerConfig
from hummingbird_runtime.tokenizer import Tokenizer
from hummingbird_train.base import torch_generator, world_schedule
from hummingbird_train.data.clip_source import ClipSource
from hummingbird_train.diffusion import ForwardProcess, stratified_timesteps
from hummingbird_train.guided_teacher import TowerContexts, draw, embed
from hummingbird_train.latents import LatentCache, build_cache
from hummingbird_train.models.blocks import Conditioning, Stage, Upsample
from hummingbird_train.models.text_encoder import TextEncoder
from hummingbird_train.models.unet import VideoUNet
from hummingbird_train.models.weights import count_parameters, load_model
from hummingbird_train.pruning.plan import levels
from hummingbird_train.recipe import Phase
from hummingbird_train.sampling import Contexts
from hummingbird_train.world.scene import FRAMES

VALIDATION_SEED = 0x76616C
"""Of validation clips and noise; training caches are seeded by recipes."""


@dataclass(frozen=True)
class ValidationBatch:
    """One batch with its noise and timesteps fixed."""

    arguments: dict[str, Any]
    """Of the U-Net."""
    target: Tensor
    """What it is to predict, [b, c, f, h, w]."""


@dataclass(frozen=True)
class BlockDamage:
    """What one block is worth."""

    path: str
    """Of the block."""
    bypass: str
    """``identity``, or ``1x1`` where only the block's skip connection can take its place."""
    parameters: int
    """Of the whole block."""
    increase: float
    """Mean loss without the block minus mean loss with it."""
    error: float
    """Standard error of ``increase`` over the batches; NaN for one batch."""


@dataclass(frozen=True)
class Importance:
    """Damage of every block."""

    loss: float
    """Of the whole network."""
    blocks: tuple[BlockDamage, ...]
    """In the order of the forward pass."""

    def markdown(self) -> str:
        """A table, the least needed block first."""
        lines = [
            f"Loss of the whole network: {self.loss:.5f}",
            "",
            "| block | bypassed by | parameters | loss increase | standard error | of the loss |",
            "|---|---|---|---|---|---|",
        ]
        lines += [
            f"| {b.path} | {b.bypass} | {b.parameters:,} | {b.increase:+.5f} | {b.error:.5f} "
            f"| {b.increase / self.loss:+.1%} |"
            for b in sorted(self.blocks, key=lambda b: b.increase)
        ]
        return "\n".join(lines)


def measured_blocks(unet: VideoUNet) -> list[str]:
    """Paths of the blocks that can be bypassed, in the order of the forward pass."""
    found = levels(unet.config)
    middle = ["middle_block"] if unet.config.middle_block else []
    down = [path for level in found.down for path in level]
    return down + middle + [path for level in reversed(found.up) for path in level]


class _Bypass(nn.Module):
    """Stands in for a stage: first channels, or the 1x1 skip connection; then its upsampling."""

    def __init__(self, stage: Stage, channels: int | None) -> None:
        super().__init__()
        self.channels = channels
        self.connection = None if channels else stage[0].skip_connection
        self.resample = next((part for part in stage if isinstance(part, Upsample)), None)

    def forward(self, x: Tensor, cond: Conditioning) -> Tensor:
        x = x[:, : self.channels] if self.connection is None else self.connection(x)
        return x if self.resample is None else self.resample(x, cond)


def _passed_on(unet: VideoUNet, path: str) -> int | None:
    """Channels that a block could pass on unchanged; None when it changes the width."""
    config = unet.config
    found = levels(config)
    if path == "middle_block":
        return config.model_channels * config.channel_mult[-1]
    for blocks, step in ((found.down, -1), (found.up, 1)):
        for k, level in enumerate(blocks):
            if path not in level:
                continue
            here = config.channel_mult[k]
            if path != level[0]:
                before = here
            elif step == -1:
                before = config.channel_mult[k - 1] if k else 1
            else:
                before = config.channel_mult[min(k + 1, len(config.channel_mult) - 1)]
            return config.model_channels * here if before == here else None
    raise UsageError(
        "pruning.block",
        f"block to bypass, got {path!r}, expected one of {', '.join(measured_blocks(unet))}",
        hint="name a residual block of a level, or middle_block",
    )


@contextlib.contextmanager
def bypassed(unet: VideoUNet, path: str) -> Iterator[str]:
    """Leave one block out of the network while the context lasts; yields what takes its place.

    Raises:
        UsageError: ``pruning.block`` for a path that names no such block.
    """
    channels = _passed_on(unet, path)
    parent, _, name = path.rpartition(".")
    owner = unet.get_submodule(parent)
    stage = unet.get_submodule(path)
    assert isinstance(stage, Stage)
    setattr(owner, name, _Bypass(stage, channels))
    try:
        yield "identity" if channels else "1x1"
    finally:
        setattr(owner, name, stage)


def validation_batches(
    clips: ClipSource[Any],
    contexts: Contexts,
    schedule: SchedulerConfig,
    guidance_width: int | None,
    *,
    batches: int,
    batch: int,
    frames: int,
    stride: int = 1,
    seed: int = VALIDATION_SEED,
) -> list[ValidationBatch]:
    """Noised clips with what a network without guidance is to predict for them.

    Args:
        clips: encoded clips that training never saw.
        contexts: encodes prompts.
        schedule: of the network.
        guidance_width: of its guidance embedding, which is given w = 1; None without one.
        batches: how many.
        batch: clips of each; timesteps are spread evenly over them.
        frames: of each clip.
        stride: frames of the source between two of them.
        seed: of clips, noise and timesteps.
    """
    process = ForwardProcess(schedule)
    phase = Phase("validation", steps=batches, batch=batch, learning_rate=0.0, frames=frames,
                  stride=stride)  # fmt: skip
    found = []
    for i in range(batches):
        rng = np.random.default_rng([seed, i])
        drawn = draw(clips, contexts, phase, False, rng)
        t = stratified_timesteps(rng, batch, schedule.num_train_timesteps)
        eps = torch.randn(drawn.x_0.shape, generator=torch_generator(rng))
        arguments = {
            "sample": process.noised(drawn.x_0, eps, t),
            "timestep": t,
            "encoder_hidden_states": drawn.context,
            "timestep_cond": embed(torch.ones(batch), guidance_width),
            "fps": drawn.fps,
            "frame_indices": drawn.frame_indices,
            "images": drawn.images,
        }
        found.append(ValidationBatch(arguments, process.target(drawn.x_0, eps, t)))
    return found


@torch.no_grad()
def block_importance(
    unet: VideoUNet,
    batches: Sequence[ValidationBatch],
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Importance:
    """Loss of the network without each block in turn.

    Args:
        unet: put into evaluation mode; unchanged afterwards.
        batches: from ``validation_batches``, on the network's device.
        progress: told how many of how many blocks are done.

    Raises:
        UsageError: ``pruning.no_batches`` without a batch.
    """
    if not batches:
        raise UsageError(
            "pruning.no_batches",
            "validation batches, got none, expected at least one",
            hint="two or more give a standard error as well",
        )
    unet.eval()

    def losses() -> np.ndarray:
        values = [(unet(**b.arguments) - b.target).square().mean() for b in batches]
        return torch.stack(values).double().cpu().numpy()

    whole = losses()
    paths = measured_blocks(unet)
    found = []
    for done, path in enumerate(paths, 1):
        parameters = count_parameters(unet.get_submodule(path))
        with bypassed(unet, path) as how:
            difference = losses() - whole
        error = difference.std(ddof=1) / len(difference) ** 0.5 if len(difference) > 1 else np.nan
        found.append(BlockDamage(path, how, parameters, float(difference.mean()), float(error)))
        progress(done, len(paths))
    return Importance(float(whole.mean()), tuple(found))


def plot(importance: Importance, path: Path) -> None:
    """Draw the damage as bars in the order of the forward pass, with a mark of twice the error.

    Args:
        importance: what was measured.
        path: PNG file, replaced.

    Raises:
        ResourceError: ``output.*``.
    """
    from PIL import Image, ImageDraw

    left, top, row, width = 150, 40, 22, 760
    height = top + row * len(importance.blocks) + 50
    image = Image.new("RGB", (left + width + 110, height), "white")
    pen = ImageDraw.Draw(image)
    low = min(0.0, *(b.increase for b in importance.blocks))
    high = max(1e-12, *(b.increase for b in importance.blocks))

    def x(value: float) -> int:
        return left + round(width * (min(max(value, low), high) - low) / (high - low))

    pen.text((left, 12), f"loss increase without the block (loss with all: {importance.loss:.4f})",
             fill=(40, 40, 40))  # fmt: skip
    for i, block in enumerate(importance.blocks):
        y = top + row * i
        colour = (70, 130, 190) if block.bypass == "identity" else (190, 200, 210)
        pen.text((8, y + 3), block.path, fill=(40, 40, 40))
        start, end = sorted((x(0.0), x(block.increase)))
        pen.rectangle((start, y + 2, max(end, start + 1), y + row - 5), fill=colour)
        if np.isfinite(block.error):
            middle = y + row // 2 - 2
            span = x(block.increase - 2 * block.error), x(block.increase + 2 * block.error)
            pen.line((span[0], middle, span[1], middle), fill=(40, 40, 40), width=1)
        pen.text((left + width + 10, y + 3), f"{block.increase:+.4f}", fill=(40, 40, 40))
    pen.line((x(0.0), top, x(0.0), height - 44), fill=(40, 40, 40))
    pen.text((left, height - 34), "blue: an identity in its place; grey: its 1x1 skip connection",
             fill=(90, 90, 90))  # fmt: skip
    with atomic_file(path, overwrite=True) as temporary:
        image.save(temporary, format="PNG")


def write_report(importance: Importance, folder: Path, *, overwrite: bool = False) -> None:
    """Write ``importance.md``, ``importance.json`` and ``importance.png`` into a new folder.

    Raises:
        UsageError: ``output.exists``.
        ResourceError: ``output.*``.
    """
    with atomic_folder(folder, overwrite=overwrite) as partial:
        (partial / "importance.md").write_text(importance.markdown() + "\n", "utf-8")
        text = json.dumps(dataclasses.asdict(importance), indent=1)
        (partial / "importance.json").write_text(text + "\n", "utf-8")
        plot(importance, partial / "importance.png")


def main(argv: list[str]) -> int:
    """`hummingbird train importance`: measure the blocks of a run's U-Net, print the table.

    Raises:
        UsageError: ``output.exists``.
        InputError: ``checkpoint.*``, ``cache.*``.
    """
    parser = Parser(
        prog="hummingbird train importance",
        description="Loss of a U-Net on fresh clips of the tiny world with each block left out.",
    )
    add = parser.add_argument
    add("--run", type=Path, default=Path("runs/shapes"), metavar="DIR",
        help="run folder with vae, base, latents, tokenizer (default %(default)s)")  # fmt: skip
    add("--unet", type=Path, metavar="FILE", help="default: RUN/base/unet.safetensors")
    add("-o", "--output", type=Path, metavar="DIR", help="folder for table, numbers and plot")
    add("--batches", type=number_in(1, 1000), default=8, help="default %(default)s")
    add("--batch", type=number_in(1, 256), default=8, help="clips of a batch (%(default)s)")
    add("--num-frames", type=number_in(1, 26), default=9, help="default %(default)s")
    add("--stride", type=number_in(1, 25), default=3, help="world frames apart (%(default)s)")
    add("--force", action="store_true", help="replace an existing folder")
    parsed = parser.parse(argv)
    if (parsed.num_frames - 1) * parsed.stride >= FRAMES:
        parser.error(
            f"got {parsed.num_frames} frames at stride {parsed.stride}, expected them to fit into "
            f"{FRAMES} frames"
        )
    unet, batches = _of_run(parsed)
    shows = sys.stderr.isatty()

    def progress(done: int, total: int) -> None:
        if shows:
            print(f"\r{done} of {total} blocks", end="\n" if done == total else "", file=sys.stderr)

    importance = block_importance(unet, batches, progress=progress)
    if parsed.output is not None:
        write_report(importance, parsed.output, overwrite=parsed.force)
        print(parsed.output, file=sys.stderr)
    print(importance.markdown())
    return 0


def _of_run(parsed: Any) -> tuple[VideoUNet, list[ValidationBatch]]:
    """Network and batches of a run of the tiny world; the clips are encoded on first use."""
    run: Path = parsed.run
    unet = load_model(parsed.unet or run / "base" / "unet.safetensors")
    text = load_model(run / "base" / "text.safetensors")
    if not isinstance(unet, VideoUNet) or not isinstance(text, TextEncoder):
        raise InputError(
            "checkpoint.kind",
            f"networks, got {type(unet).__name__} and {type(text).__name__}, "
            "expected a unet and a text_encoder",
            hint="give the files of one run",
        )
    trained = LatentCache(run / "latents")
    folder = run / "validation"
    build_cache(run / "vae" / "vae.safetensors", folder, clips=64, seed=VALIDATION_SEED, tier=1)
    clips = LatentCache(folder)
    clips.scaling_factor = trained.scaling_factor
    batches = validation_batches(
        clips,
        TowerContexts(text, Tokenizer.from_files(run / "tokenizer")),
        world_schedule(),
        unet.config.time_cond_proj_dim,
        batches=parsed.batches,
        batch=parsed.batch,
        frames=parsed.num_frames,
        stride=parsed.stride,
    )
    return unet, batches
