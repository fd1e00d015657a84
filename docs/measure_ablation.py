"""Does curation help? The same training on raw and on curated clips, judged by the exact judge.

    python docs/measure_ablation.py RUN [--clips 1000] [--steps 400] [--seeds 2] [--prompts 200]

Clips of the tiny world, three in five of them with a labelled fault, go through `hummingbird curate
score | cut | pack` with train/recipes/curation.toml. Then one text-to-image network is trained from
nothing on all of them and one on those that were kept: same steps, same batch, same draws. Both
draw the same prompts from the same noise. Time is left out: a still is judged on what it can show.
What is finished in RUN is used again.
"""

from __future__ import annotations

import argparse
import json
import tomllib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from hummingbird_runtime.cli import main as hummingbird
from hummingbird_runtime.tokenizer import Tokenizer
from hummingbird_train.base import BaseConfig, BaseObjective, world_schedule
from hummingbird_train.curation.defects import make_specimen, plan_corpus, write_h264
from hummingbird_train.data.entries import read_entries
from hummingbird_train.data.latent_cache import CacheConfig, ClipLatents, encode_clips
from hummingbird_train.feedback.decode import FrameDecoder
from hummingbird_train.feedback.statistics import paired_difference
from hummingbird_train.guided_teacher import TowerContexts
from hummingbird_train.loop import RunConfig, train
from hummingbird_train.models.text_encoder import TextConfig, TextEncoder
from hummingbird_train.models.unet import UNetConfig, VideoUNet
from hummingbird_train.models.weights import load_model
from hummingbird_train.recipe import Phase, section
from hummingbird_train.sampling import sample_latents
from hummingbird_train.world.grammar import judging_prompts
from hummingbird_train.world.judge import judge
from hummingbird_train.world.scene import FPS, FRAMES
from hummingbird_train.world.tokenizer_files import VOCABULARY

ROOT = Path(__file__).resolve().parent.parent
WEIGHTS = ROOT / "train/checkpoints/shapes-v1"
SEEN = ("shape", "colour", "background")
"""Attributes of a still; sizes change within growing and shrinking clips."""


@dataclass(frozen=True)
class Stills:
    """A cache of user clips as the stage `base` draws from it."""

    clips: ClipLatents

    def sample(self, rng, count, frames, stride, first_frames=None):
        return self.clips.sample(rng, count, frames, stride)


def main() -> None:
    """Make the clips, curate, train, judge, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("run", type=Path, metavar="RUN")
    add("--clips", type=int, default=1000)
    add("--steps", type=int, default=400)
    add("--seeds", type=int, default=2, help="trainings of each kind")
    add("--prompts", type=int, default=200)
    asked = parser.parse_args()
    raw, curated = make_datasets(asked.run, asked.clips)
    rights = {}
    for name, source in (("raw", raw), ("curated", curated)):
        clips = encode_clips(
            read_entries(source), WEIGHTS / "vae.safetensors", asked.run / "latents",
            CacheConfig(size=(64, 64), fps=2),
        )  # fmt: skip
        print(f"{name}: {len(set(clips.keys))} clips, {len(clips.latents)} frames")
        each = [
            rights_of(asked.run / f"{name}-{seed}", clips, seed, asked.steps, asked.prompts)
            for seed in range(asked.seeds)
        ]
        rights[name] = np.concatenate(each)  # (seeds * prompts * 2, attributes + all)
    groups = np.tile(np.repeat(np.arange(asked.prompts), 2), asked.seeds)
    print(f"\n{asked.steps} steps, {asked.seeds} trainings each, {asked.prompts} prompts x 2 seeds")
    print("\n| share right | raw | curated | curated - raw, points |\n|---|---|---|---|")
    for column, attribute in enumerate((*SEEN, "all three")):
        a, b = rights["raw"][:, column], rights["curated"][:, column]
        found = paired_difference(a, b, groups=groups)
        print(
            f"| {attribute} | {a.mean():.3f} | {b.mean():.3f} | {100 * found.mean:+.1f} "
            f"({100 * found.low:+.1f} to {100 * found.high:+.1f}) |"
        )


def make_datasets(run: Path, clips: int) -> tuple[Path, Path]:
    """The raw folder, and the shards that curation made of it."""
    raw, scored, packed = run / "raw", run / "curation", run / "dataset"
    raw.mkdir(parents=True, exist_ok=True)
    for specimen in plan_corpus(clips):
        path = raw / f"{specimen.number:05d}.mp4"
        if not path.exists():
            frames, text = make_specimen(specimen, seed=3)
            path.with_suffix(".txt").write_text(text, encoding="utf-8")
            write_h264(path, frames)
    if not packed.exists():
        rules = str(ROOT / "train/recipes/curation.toml")
        for words in (
            ["score", str(raw), "-o", str(scored), "--config", rules],
            ["cut", str(scored)],
            ["pack", str(scored), "-o", str(packed)],
        ):
            if hummingbird(["curate", *words]):
                raise SystemExit(f"curate {words[0]} failed")
    return raw, packed


def rights_of(folder: Path, clips: ClipLatents, seed: int, steps: int, prompts: int) -> np.ndarray:
    """Train, draw, judge: rights in each attribute and in all, bool [prompts * 2, 4]."""
    done = folder / "rights.json"
    if done.exists():
        return np.array(json.loads(done.read_text(encoding="utf-8")), bool)
    folder.mkdir(exist_ok=True)
    recipe = tomllib.loads((ROOT / "train/recipes/hour.toml").read_text(encoding="utf-8"))["base"]
    tokenizer = Tokenizer.from_files(WEIGHTS / "tokenizer")
    torch.manual_seed(seed)
    shape = {**recipe["unet"], "place_planes": False, "pooled_text_embedding": False}
    unet = VideoUNet(section(UNetConfig, shape, "base.unet"))
    text = TextEncoder(TextConfig(**{**recipe["text"], "vocab_size": len(VOCABULARY)}))
    phase = Phase("images", steps, 28, 4e-3, 1e-4, flat=0.5, timestep_shift=3.0)
    objective = BaseObjective(unet, text, Stills(clips), tokenizer, BaseConfig())
    train(objective, [phase], folder, config=RunConfig(seed=seed, ema_decay=0.98), log=print)
    unet = load_model(folder / "unet.safetensors")
    contexts = TowerContexts(load_model(folder / "text.safetensors"), tokenizer)
    decode = FrameDecoder(load_model(WEIGHTS / "vae.safetensors"), clips.scaling_factor)
    rights = []
    for number, (prompt, scene) in enumerate(judging_prompts(prompts, seed=2026)):
        latents = sample_latents(
            unet, contexts, world_schedule(), [prompt] * 2, [number, 1000 + number],
            steps=10, w=2.0, passes=2, frames=1, size=(8, 8), fps=FPS,
        )  # fmt: skip
        with torch.no_grad():
            drawn = decode(torch.from_numpy(latents), np.arange(1))
        for clip in drawn:  # (1, 3, h, w) in [0, 1]
            still = (clip[0].permute(1, 2, 0).clamp(0, 1) * 255 + 0.5).byte().numpy()
            seen = judge(np.repeat(still[None], FRAMES, axis=0))
            good = [getattr(seen, name) == getattr(scene, name) for name in SEEN]
            rights.append([*good, all(good)])
    done.write_text(json.dumps(rights), encoding="utf-8")
    return np.array(rights, bool)


if __name__ == "__main__":
    main()
