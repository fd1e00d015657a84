"""The ladder: what each stage keeps of the world, from rendered clips down to a bundle.

A rung makes clips for the same fresh prompts and seeds as every other rung; an exact judge reads
their pixels, and a learned judge's features give a Frechet distance to other rendered clips. A
finished rung is a file, so a long ladder goes on where it stopped.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from hummingbird_runtime import TextToVideoPipeline
from hummingbird_runtime.atomic import atomic_file
from hummingbird_runtime.bundle import builtin_bundle
from hummingbird_runtime.errors import InputError
from hummingbird_runtime.tokenizer import Tokenizer
from hummingbird_train.autoencoder import frames_to_tensor
from hummingbird_train.base import world_schedule
from hummingbird_train.consistency import ConsistencyConfig, student_schedule
from hummingbird_train.feedback.decode import FrameDecoder
from hummingbird_train.feedback.judge import Judge
from hummingbird_train.frechet import frechet_distance, judge_features
from hummingbird_train.guided_teacher import TowerContexts
from hummingbird_train.latents import LatentCache
from hummingbird_train.meta_trace import trace
from hummingbird_train.models.autoencoder import AutoencoderKL
from hummingbird_train.models.text_encoder import TextEncoder
from hummingbird_train.models.unet import UNetConfig, VideoUNet
from hummingbird_train.models.weights import count_parameters, load_model, skeleton
from hummingbird_train.sampling import sample_latents
from hummingbird_train.world.accuracy import ALL, Accuracy, correct
from hummingbird_train.world.grammar import judging_prompts
from hummingbird_train.world.judge import ATTRIBUTES, JUDGE_VERSION, judge
from hummingbird_train.world.render import render
from hummingbird_train.world.scene import FPS, FRAMES, SIZE, Scene

Clips = Callable[[str, Scene, int], NDArray[np.uint8]]
"""(prompt, scene, seed) to frames uint8 (26, 64, 64, 3)."""
SHOWN = 4
"""Clips of a rung that its picture shows: the first prompts with the first seed."""
LATENT = SIZE // 8


@dataclass(frozen=True)
class Rung:
    """Where the clips of one row come from."""

    name: str
    source: Literal["rendered", "autoencoder", "network", "bundle"]
    """``network``: a torch U-Net of a run, decoded by the run's decoder."""
    path: str = ""
    """Autoencoder file, run folder, or bundle folder; empty: the built-in bundle."""
    stage: str = ""
    """Of a run, whose U-Net it is."""
    steps: int | None = None
    """Inference steps; None: the bundle's."""
    guidance_scale: float | None = None
    """None: the bundle's; 1 for a network."""
    passes: int = 1
    """Of a network a step: 2 mixes a prompted and an unprompted one."""
    sampler: Literal["ddim", "lcm"] = "ddim"
    """Of a network; ``lcm`` is what few-step students of stage 2 ship with."""
    decoder: str | None = None
    """``full`` or ``tiny``; None: the bundle's."""
    frames: int = FRAMES
    """Of a clip; fewer are the first ones of the world's 26."""
    prompts: int | None = None
    """Fewer prompts than the others', for a rung that takes long."""
    held_out: bool = False
    """Asked for (shape, colour, motion) triples that were never trained on, whatever the others."""
    tier: int | None = None
    """Of the world that its prompts come from; another than the others' has no Frechet distance."""


@dataclass(frozen=True)
class Row:
    """What a rung reached."""

    name: str
    seeds: int
    right: dict[str, list[bool]]
    """By attribute and under ``all``, clip by clip: prompt after prompt, seed after seed."""
    frechet: float | None
    diversity: float | None
    """Root-mean-square difference of a prompt's clips of two seeds, in 8-bit levels."""
    motion: float
    """Root-mean-square difference of neighbouring frames, in 8-bit levels."""
    parameters: int | None
    """Of the U-Net."""
    gflop: float | None
    """Of the U-Net's passes for one clip, a multiply-add being two."""
    milliseconds: float | None
    """Median time of a clip."""

    @property
    def accuracies(self) -> dict[str, Accuracy]:
        """Counted, by attribute and under ``all``."""
        return {name: Accuracy(sum(hits), len(hits)) for name, hits in self.right.items()}


def climb(
    rungs: Sequence[Rung],
    *,
    prompts: int,
    seeds: int,
    tier: int,
    split: str,
    reader: Judge | None = None,
    folder: Path | None = None,
    log: Callable[[str], None] = lambda _: None,
) -> Iterator[Row]:
    """Yield one row a rung, in order.

    Args:
        rungs: where clips come from.
        prompts: number of fresh prompts.
        seeds: clips per prompt; rendered clips and reconstructions have one.
        tier: tier of the world.
        split: ``train``, or ``held_out`` for (shape, colour, motion) triples never trained on.
        reader: learned judge whose features the Frechet distance compares.
        folder: keeps finished rungs, and a strip of clips of each as ``.npz``; None keeps nothing.
        log: takes a progress line now and then.

    Raises:
        InputError: ``checkpoint.*``, ``bundle.*``.
    """
    real = None
    if reader is not None:
        others = judging_prompts(prompts * seeds, seed=2027, tier=tier, split=split)
        real = judge_features(reader, (_rendered(scene) for _, scene in others))
    for rung in rungs:
        own, its_tier = "held_out" if rung.held_out else split, rung.tier or tier
        mine = judging_prompts(prompts, seed=2026, tier=its_tier, split=own)[: rung.prompts]
        count = 1 if rung.source in ("rendered", "autoencoder") else seeds
        key = _key(rung, len(mine), count, its_tier, own)
        path = None if folder is None else folder / f"{slug(rung.name)}.json"
        row = None if path is None else _kept(path, key)
        if row is None:
            near = reader if its_tier == tier else None
            row, shown = _measure(rung, mine, count, its_tier, near, real, log)
            if path is not None:
                _keep(path, key, row, shown)
        yield row


def slug(name: str) -> str:
    """A rung's name as a file name: letters and digits, all else a hyphen."""
    words = "".join(c if c.isalnum() else " " for c in name.lower()).split()
    return "-".join(words)


def _measure(
    rung: Rung,
    asked: Sequence[tuple[str, Scene]],
    seeds: int,
    tier: int,
    reader: Judge | None,
    real: NDArray[np.float64] | None,
    log: Callable[[str], None],
) -> tuple[Row, NDArray[np.uint8]]:
    with _Source(rung) as source:
        right: dict[str, list[bool]] = {name: [] for name in (*ATTRIBUTES, ALL)}
        seconds, motions, spreads, features, shown = [], [], [], [], []
        for number, (prompt, scene) in enumerate(asked):
            clips = []
            for seed in range(seeds):
                start = time.perf_counter()
                clips.append(source.clip(prompt, scene, 1000 * seed + number))
                seconds.append(time.perf_counter() - start)
                for name, good in correct(judge(clips[-1], tier=tier), scene).items():
                    right[name].append(good)
                motions.append(_distance(clips[-1][1:], clips[-1][:-1]))
            if reader is not None:
                features.append(judge_features(reader, clips))
            if seeds > 1:
                spreads.append(_distance(clips[0], clips[1]))
            if number < SHOWN:
                shown.append(clips[0])
            if number % 20 == 19:
                log(f"{rung.name}: {number + 1} of {len(asked)} prompts")
    measured = reader is not None and real is not None
    frechet = frechet_distance(np.concatenate(features), real) if measured else None
    drawn = rung.source in ("network", "bundle")
    return Row(
        name=rung.name,
        seeds=seeds,
        right=right,
        frechet=frechet,
        diversity=float(np.mean(spreads)) if spreads else None,
        motion=float(np.mean(motions)),
        parameters=source.parameters,
        gflop=source.gflop,
        milliseconds=1000 * float(np.median(seconds)) if drawn else None,
    ), np.stack(shown)


class _Source:
    """The clips of one rung, and what its U-Net costs."""

    parameters: int | None = None
    gflop: float | None = None

    def __init__(self, rung: Rung) -> None:
        self.rung = rung
        self.pipe: TextToVideoPipeline | None = None
        makers: dict[str, Callable[[], Clips]] = {
            "rendered": lambda: lambda prompt, scene, seed: _rendered(scene, rung.frames),
            "autoencoder": self._autoencoder,
            "network": self._network,
            "bundle": self._bundle,
        }
        self.clip = makers[rung.source]()

    def __enter__(self) -> _Source:
        return self

    def __exit__(self, *_: object) -> None:
        if self.pipe is not None:
            self.pipe.close()

    def _autoencoder(self) -> Clips:
        model = load_model(Path(self.rung.path))
        assert isinstance(model, AutoencoderKL)

        @torch.no_grad()
        def clip(prompt: str, scene: Scene, seed: int) -> NDArray[np.uint8]:
            return _to_uint8(model(frames_to_tensor(_rendered(scene, self.rung.frames))))

        return clip

    def _network(self) -> Clips:
        rung, run = self.rung, Path(self.rung.path)
        unet, text = load_model(run / rung.stage / "unet.safetensors"), run / "base"
        tower = load_model(text / "text.safetensors")
        vae = load_model(run / "decoder" / "vae.safetensors")
        assert isinstance(unet, VideoUNet)
        assert isinstance(tower, TextEncoder)
        assert isinstance(vae, AutoencoderKL)
        contexts = TowerContexts(tower, Tokenizer.from_files(run / "tokenizer"))
        decode = FrameDecoder(vae, LatentCache(run / "latents").scaling_factor)
        self._count(unet.config, rung.steps or 4, rung.passes)
        schedule = world_schedule()
        if rung.sampler == "lcm":
            schedule = student_schedule(schedule, ConsistencyConfig())

        @torch.no_grad()
        def clip(prompt: str, scene: Scene, seed: int) -> NDArray[np.uint8]:
            latents = sample_latents(
                unet,
                contexts,
                schedule,
                [prompt],
                [seed],
                steps=rung.steps or 4,
                w=1.0 if rung.guidance_scale is None else rung.guidance_scale,
                passes=rung.passes,
                frames=rung.frames,
                size=(LATENT, LATENT),
                fps=FPS,
            )
            frames = decode(torch.from_numpy(latents), np.arange(rung.frames))[0]  # in [0, 1]
            return _to_uint8(frames * 2 - 1)

        return clip

    def _bundle(self) -> Clips:
        rung = self.rung
        self.pipe = pipe = TextToVideoPipeline.from_pretrained(rung.path or None)
        shape = json.loads((pipe.bundle.root / "unet" / "config.json").read_text("utf-8"))
        shape.pop("_class_name", None)
        steps = rung.steps or pipe.bundle.manifest.model.num_inference_steps.default
        self._count(UNetConfig.from_json(shape), steps, 1)

        def clip(prompt: str, scene: Scene, seed: int) -> NDArray[np.uint8]:
            video = pipe(
                prompt,
                seed=seed,
                num_frames=rung.frames,
                num_inference_steps=rung.steps,
                guidance_scale=rung.guidance_scale,
                decoder=rung.decoder,
                upscale=False,
            )
            frames: NDArray[np.uint8] = video.frames
            return frames

        return clip

    def _count(self, config: UNetConfig, steps: int, passes: int) -> None:
        network = skeleton("unet", config)
        self.parameters = count_parameters(network)
        self.gflop = unet_gflop(config, frames=self.rung.frames) * steps * passes


def unet_gflop(config: UNetConfig, tokens: int = 16, frames: int = FRAMES) -> float:
    """Counted work of one pass over a clip of the tiny world, 1e9 operations."""
    meta = {"device": "meta"}
    width = config.time_cond_proj_dim
    counted = trace(
        skeleton("unet", config),
        torch.zeros(1, config.in_channels, frames, LATENT, LATENT, **meta),
        torch.zeros(1, dtype=torch.int64, **meta),
        torch.zeros(1, tokens, config.context_dim, **meta),
        timestep_cond=None if width is None else torch.zeros(1, width, **meta),
        fps=torch.zeros(1, dtype=torch.int64, **meta),
    )
    return counted.flop / 1e9


def _rendered(scene: Scene, frames: int = FRAMES) -> NDArray[np.uint8]:
    return render([scene], range(frames))[0]


def _to_uint8(pixels: torch.Tensor) -> NDArray[np.uint8]:
    """(n, 3, h, w) in [-1, 1] to uint8 (n, h, w, 3)."""
    levels = pixels.clamp(-1, 1).add(1).mul(127.5).add(0.5)
    return levels.to(torch.uint8).permute(0, 2, 3, 1).numpy()


def _distance(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    return float(np.sqrt(np.square(a.astype(np.float32) - b).mean()))


def _key(rung: Rung, prompts: int, seeds: int, tier: int, split: str) -> str:
    """What the row depends on; weights by the time they were written."""
    files = sorted(Path(rung.path).rglob("*.safetensors")) if rung.source != "rendered" else []
    if rung.source == "bundle":
        files = [(Path(rung.path) if rung.path else builtin_bundle()) / "manifest.sha256"]
    elif rung.source == "network":
        files = [Path(rung.path) / rung.stage / "unet.safetensors"]
    written = [path.stat().st_mtime_ns for path in files if path.is_file()]
    facts: list[Any] = [dataclasses.asdict(rung), prompts, seeds, tier, split, written]
    return hashlib.sha256(json.dumps([*facts, JUDGE_VERSION]).encode()).hexdigest()


def _kept(path: Path, key: str) -> Row | None:
    if not path.is_file():
        return None
    try:
        document = json.loads(path.read_text("utf-8"))
        return Row(**document["row"]) if document["key"] == key else None
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            "ladder.damaged",
            f"row {path}, got {error}, expected a row that an earlier ladder wrote",
            hint="delete the file; its rung is then measured again",
        ) from error


def _keep(path: Path, key: str, row: Row, shown: NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path.with_suffix(".npz"), overwrite=True) as partial:
        np.savez_compressed(partial, frames=shown)
    document = {"key": key, "row": dataclasses.asdict(row)}
    with atomic_file(path, overwrite=True) as partial:
        partial.write_text(json.dumps(document) + "\n", "utf-8")
