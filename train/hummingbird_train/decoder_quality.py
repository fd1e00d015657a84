"""`hummingbird train decoder-quality`: a small decoder and an upscaler against what they replace.

Latents of fresh rendered clips are decoded by both decoders. Quality is measured against the full
decoder's frames and against the rendered ones, cost by counted work, the clock, and the most bytes
that live tensors took at once. Prints Markdown.
"""

from __future__ import annotations

import sys
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from hummingbird_runtime.cli.parser import Parser, number_in
from hummingbird_runtime.errors import InputError
from hummingbird_train.autoencoder import frames_to_tensor
from hummingbird_train.image_quality import flicker, psnr, ssim, to_unit
from hummingbird_train.models.autoencoder import AutoencoderKL
from hummingbird_train.models.tiny_decoder import TinyDecoder
from hummingbird_train.models.upscaler import Upscaler, bilinear
from hummingbird_train.models.weights import count_parameters, load_model
from hummingbird_train.world.render import render
from hummingbird_train.world.scene import FRAMES, SIZE, sample_scene

DESCRIPTION = "Quality, work, time and memory of a small decoder and of an upscaler; Markdown."
RUNS = 5

K = TypeVar("K", bound=nn.Module)
Frames = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Cost:
    """What one frame costs."""

    parameters: int
    gflop: float
    """Two per multiply-add, convolutions and matrix products."""
    milliseconds: float
    """Of a frame in a batch like the given one: the median of ``RUNS`` after a warm-up."""
    mebibytes: float
    """Most bytes of live activations at once, the output included, for one frame alone."""


@dataclass(frozen=True)
class Quality:
    """How close frames are to others, means over frames."""

    psnr: float
    """dB."""
    ssim: float
    flicker: float
    """Levels of 255."""


class LiveBytes(TorchDispatchMode):
    """Counts bytes of tensors made inside the block; ``peak`` is the most at once.

    Storage that an operator shares with its input, as views do, counts once. Scratch memory inside
    an operator does not count.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._seen: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        before = {t.untyped_storage()._cdata for t in _tensors((args, kwargs))}
        for tensor in _tensors(out):
            storage = tensor.untyped_storage()
            if storage._cdata in before or storage._cdata in self._seen:
                continue
            self._seen.add(storage._cdata)
            self.now += storage.nbytes()
            weakref.finalize(storage, self._freed, storage._cdata, storage.nbytes())
        self.peak = max(self.peak, self.now)
        return out

    def _freed(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.now -= size


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item)
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))


@torch.inference_mode()
def cost(network: nn.Module, run: Frames, inputs: Tensor) -> Cost:
    """Measure a network that treats frames alone.

    Args:
        network: whose parameters are counted.
        run: inputs to frames.
        inputs: float [n, c, h, w] of one clip.
    """
    with FlopCounterMode(display=False) as counter:
        run(inputs[:1])
    with LiveBytes() as live:
        run(inputs[:1])
    seconds = []
    for _ in range(RUNS + 1):
        start = time.perf_counter()
        run(inputs)
        seconds.append(time.perf_counter() - start)
    return Cost(
        count_parameters(network),
        counter.get_total_flops() / 1e9,
        float(np.median(seconds[1:])) * 1e3 / len(inputs),
        live.peak / 2**20,
    )


def quality(clips: Sequence[Tensor], references: Sequence[Tensor]) -> Quality:
    """Compare clips with references: float [f, 3, H, W] in [-1, 1], clipped here."""
    pairs = [(to_unit(a), to_unit(b)) for a, b in zip(clips, references, strict=True)]
    return Quality(
        float(torch.cat([psnr(a, b).clamp(max=99.0) for a, b in pairs]).mean()),
        float(torch.cat([ssim(a, b) for a, b in pairs]).mean()),
        float(np.mean([float(flicker(a, b)) for a, b in pairs])) * 255,
    )


@torch.inference_mode()
def compare_decoders(vae: AutoencoderKL, tiny: TinyDecoder, clips: Sequence[Tensor]) -> str:
    """The table of both decoders over rendered clips, float [f, 3, H, W] in [-1, 1]."""
    latents = [vae.encode(clip)[0] for clip in clips]
    full = [vae.decode(z) for z in latents]
    small = [tiny(z) for z in latents]
    own = nn.ModuleList([vae.post_quant_conv, vae.decoder])
    costs = [cost(own, vae.decode, latents[0]), cost(tiny, tiny, latents[0])]
    lines = [_row("full", costs[0], None, quality(full, clips))]
    lines.append(_row("tiny", costs[1], quality(small, full), quality(small, clips)))
    return "\n".join(
        [
            "| decoder | parameters | GFLOP a frame | ms a frame | MiB a frame "
            "| PSNR / SSIM / flicker against full | against the source |",
            "|---|---|---|---|---|---|---|",
            *lines,
            "",
            f"The tiny decoder does {costs[0].gflop / costs[1].gflop:.1f} times less work and "
            f"takes {costs[0].milliseconds / costs[1].milliseconds:.1f} times less time. "
            f"{len(clips)} clips of {len(clips[0])} frames of {clips[0].shape[3]} x "
            f"{clips[0].shape[2]}; {torch.get_num_threads()} threads.",
        ]
    )


@torch.inference_mode()
def compare_upscaler(upscaler: Upscaler, small: Sequence[Tensor], large: Sequence[Tensor]) -> str:
    """The table of an upscaler against bilinear enlargement.

    Args:
        upscaler: the network.
        small: clips as they are decoded, float [f, 3, H, W].
        large: the same clips in full size.
    """
    scale = upscaler.config.scale
    nothing = nn.ModuleList()
    rows = {
        "bilinear": (nothing, lambda x: bilinear(x, scale)),
        "upscaler": (upscaler, upscaler),
    }
    lines = [
        _row(name, cost(net, run, small[0]), None, quality([run(x) for x in small], large), False)
        for name, (net, run) in rows.items()
    ]
    return "\n".join(
        [
            "| enlarged by | parameters | GFLOP a frame | ms a frame | MiB a frame "
            "| PSNR / SSIM / flicker against the source |",
            "|---|---|---|---|---|---|",
            *lines,
        ]
    )


def _row(
    name: str, price: Cost, imitation: Quality | None, result: Quality, both: bool = True
) -> str:
    cells = [
        name,
        f"{price.parameters:,}",
        f"{price.gflop:.4g}",
        f"{price.milliseconds:.2f}",
        f"{price.mebibytes:.2f}",
        *([_figures(imitation)] if both else []),
        _figures(result),
    ]
    return f"| {' | '.join(cells)} |"


def _figures(values: Quality | None) -> str:
    if values is None:
        return "-"
    return f"{values.psnr:.2f} dB / {values.ssim:.4f} / {values.flicker:.2f}"


def world_clips(count: int, *, seed: int, tier: int, scale: int = 1) -> list[Tensor]:
    """Whole rendered clips of fresh scenes: float [26, 3, 64 scale, 64 scale] in [-1, 1]."""
    rng = np.random.default_rng(seed)
    scenes = [sample_scene(rng, tier=tier) for _ in range(count)]
    return [frames_to_tensor(render([s], range(FRAMES), scale * SIZE)[0]) for s in scenes]


def main(argv: list[str]) -> int:
    """Print the tables; see ``hummingbird train decoder-quality --help``.

    Raises:
        InputError: ``checkpoint.*`` for files that are not what their flags say.
    """
    parser = Parser(prog="hummingbird train decoder-quality", description=DESCRIPTION)
    add = parser.add_argument
    add("--vae", type=Path, required=True, metavar="FILE", help="autoencoder, safetensors")
    add("--tiny", type=Path, metavar="FILE", help="small decoder, safetensors")
    add("--upscaler", type=Path, metavar="FILE", help="upscaler, safetensors")
    add("--clips", type=number_in(1, 1000), default=16, help="fresh clips (%(default)s)")
    add("--tier", type=int, choices=(1, 2), default=1, help="of the tiny world (%(default)s)")
    add("--seed", type=number_in(0, 2**62), default=2026, help="of the clips (%(default)s)")
    add("--threads", type=number_in(1, 1024), metavar="N", help="threads of torch")
    parsed = parser.parse(argv)
    if parsed.tiny is None and parsed.upscaler is None:
        parser.error("got neither --tiny nor --upscaler, expected one of them or both")
    if parsed.threads is not None:
        torch.set_num_threads(parsed.threads)
    vae = load_kind(parsed.vae, AutoencoderKL)
    clips = world_clips(parsed.clips, seed=parsed.seed, tier=parsed.tier)
    tables = []
    if parsed.tiny is not None:
        tables.append(compare_decoders(vae, load_kind(parsed.tiny, TinyDecoder), clips))
    if parsed.upscaler is not None:
        upscaler = load_kind(parsed.upscaler, Upscaler)
        print("drawing the clips in full size", file=sys.stderr)
        large = world_clips(
            parsed.clips, seed=parsed.seed, tier=parsed.tier, scale=upscaler.config.scale
        )
        with torch.inference_mode():
            small = [vae(clip).clamp(-1, 1) for clip in clips]
        tables.append(compare_upscaler(upscaler, small, large))
    print("\n\n".join(tables))
    return 0


def load_kind(path: Path, kind: type[K]) -> K:
    """Load a network of a kind.

    Raises:
        InputError: ``checkpoint.*``; ``checkpoint.kind`` for another network.
    """
    model = load_model(path)
    if not isinstance(model, kind):
        raise InputError(
            "checkpoint.kind",
            f"weights {path}, got a {type(model).__name__}, expected a {kind.__name__}",
            hint="check which flag the file belongs to",
        )
    return model
