"""Teach the built-in model the style `neon` from 20 clips, and print what the runtime then draws.

`hummingbird export build train/checkpoints/shapes-v1/build.json -o DIR --precision fp32`, then
`python docs/measure_style.py --bundle DIR -o FOLDER`. Writes the style and a contact sheet into
FOLDER; further options go to `hummingbird train style`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch

from hummingbird_runtime import TextToVideoPipeline
from hummingbird_train.autoencoder import frames_to_tensor
from hummingbird_train.checkpoint_folder import read_checkpoint_folder
from hummingbird_train.style_cli import main as train_style
from hummingbird_train.style_sampling import contact_sheet, decode_clips
from hummingbird_train.world.grammar import judging_prompts
from hummingbird_train.world.render import render
from hummingbird_train.world.scene import FRAMES
from hummingbird_train.world_styles import (
    darkness,
    hollowness,
    object_colour,
    render_style,
    write_style_clips,
)

STRENGTHS = (0.0, 0.5, 1.0)
SHOWN, COMPARED = 4, 2


def main() -> None:
    """Train where there is no style yet, draw, print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--bundle", type=Path, required=True)
    add("-o", "--output", type=Path, required=True)
    add("--model", type=Path, default=Path("train/checkpoints/shapes-v1"))
    add("--clips", type=int, default=20)
    add("--prompts", type=int, default=24)
    add("--threads", type=int, default=1)
    asked, more = parser.parse_known_args()
    data, style = asked.output / "clips", asked.output / "neon.safetensors"
    asked.output.mkdir(parents=True, exist_ok=True)
    if not data.exists():
        write_style_clips(data, clips=asked.clips)
    if not style.exists():
        command = [str(data), "--model", str(asked.model), "-o", str(style)]
        train_style([*command, "--run", str(asked.output / "run"), *more])
    prompts = judging_prompts(asked.prompts, seed=11)
    print("| clips | hollow | dark | colour right |")
    print("|---|---|---|---|")
    scenes = [scene for _, scene in prompts]
    report("rendered, the world's look", render(scenes, range(FRAMES)), prompts)
    neon = render_style(scenes, range(FRAMES))
    report("rendered, neon", neon, prompts)
    report("the same through the autoencoder", reconstruct(asked.model, neon[:, ::6]), prompts)
    drawn = {}
    for strength in STRENGTHS:
        drawn[strength] = draw(asked, prompts, style=style, style_strength=strength)
        report(f"drawn, strength {strength:g}", drawn[strength], prompts)
    same = np.array_equal(draw(asked, prompts[:COMPARED]), drawn[0.0][:COMPARED])
    print(f"strength 0 equals no style, byte for byte: {same}", file=sys.stderr)
    rows = [drawn[s][i] for i in range(SHOWN) for s in STRENGTHS]
    contact_sheet(rows, asked.output / "sheet.png", columns=8, enlarge=2)
    for text, _ in prompts[:SHOWN]:
        print(text, file=sys.stderr)


@torch.no_grad()
def reconstruct(model: Path, clips: np.ndarray) -> np.ndarray:
    """uint8 clips as the model's autoencoder shows them: what no style can exceed."""
    checkpoint = read_checkpoint_folder(model)
    vae, scale = checkpoint.vae(), checkpoint.facts.scaling_factor
    latents = [vae.encode(frames_to_tensor(clip))[0].transpose(0, 1) * scale for clip in clips]
    return decode_clips(vae, torch.stack(latents).numpy(), checkpoint.facts)


def draw(asked: argparse.Namespace, prompts: list, **style: object) -> np.ndarray:
    """uint8 [n, F, H, W, 3]: a clip of every prompt."""
    with TextToVideoPipeline.from_pretrained(asked.bundle, threads=asked.threads, **style) as pipe:
        return np.stack([pipe(text, seed=i).frames for i, (text, _) in enumerate(prompts)])


def report(name: str, clips: np.ndarray, prompts: list) -> None:
    """Print one row; hollowness over prompts whose shape is no ring, which is hollow anyway."""
    solid = [c for c, (_, s) in zip(clips, prompts, strict=True) if s.shape != "ring"]
    right = np.mean(
        [object_colour(c) == s.colour for c, (_, s) in zip(clips, prompts, strict=True)]
    )
    hollow = np.nanmean([hollowness(clip) for clip in solid])
    dark = np.mean([darkness(clip) for clip in clips])
    print(f"| {name} | {hollow:.3f} | {dark:.3f} | {right:.2f} |", flush=True)


if __name__ == "__main__":
    main()
