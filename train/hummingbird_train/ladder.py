"""The ladder: accuracy of rendered clips, of the autoencoder, and of a bundle in the runtime.

Prompts come from judging templates and fresh scenes; the judge reads pixels only. Every row of one
table answers the same prompts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from hummingbird_runtime import TextToVideoPipeline
from hummingbird_train.autoencoder import frames_to_tensor
from hummingbird_train.models.autoencoder import AutoencoderKL
from hummingbird_train.models.weights import load_model
from hummingbird_train.world.accuracy import Accuracy, accuracies
from hummingbird_train.world.grammar import judging_prompts
from hummingbird_train.world.judge import judge
from hummingbird_train.world.render import render
from hummingbird_train.world.scene import FRAMES, Scene

Prompts = Sequence[tuple[str, Scene]]


def climb(
    *,
    prompts: int,
    seeds: int,
    tier: int,
    split: str,
    vae: Path | None,
    bundle: Path | None,
    steps: int | None = None,
    w: float | None = None,
    decoder: str | None = None,
    log: Callable[[str], None] = lambda _: None,
) -> Iterator[tuple[str, dict[str, Accuracy]]]:
    """Yield the rows of the ladder, cheapest first.

    Args:
        prompts: number of fresh prompts.
        seeds: clips per prompt in the bundle's row.
        tier: tier of the world.
        split: ``train``, or ``held_out`` for (shape, colour, motion) triples never trained on.
        vae: autoencoder checkpoint; None leaves its row out.
        bundle: bundle folder; None is the built-in one.
        steps: inference steps; None is the bundle's default.
        w: guidance scale; None is the bundle's default.
        decoder: ``full`` or ``tiny``; None is the bundle's default.
        log: takes a progress line now and then.
    """
    asked = judging_prompts(prompts, seed=2026, tier=tier, split=split)
    yield "rendered", accuracies([(s, judge(_rendered(s), tier=tier)) for _, s in asked])
    if vae is not None:
        model = load_model(vae)
        assert isinstance(model, AutoencoderKL)
        judged = [(s, judge(_reconstructed(model, _rendered(s)), tier=tier)) for _, s in asked]
        yield "autoencoder", accuracies(judged)
    with TextToVideoPipeline.from_pretrained(bundle) as pipe:
        judged = []
        for number, (prompt, scene) in enumerate(asked):
            for seed in range(seeds):
                clip = pipe(
                    prompt,
                    seed=1000 * seed + number,
                    num_inference_steps=steps,
                    guidance_scale=w,
                    decoder=decoder,
                    upscale=False,
                )
                judged.append((scene, judge(clip.frames, tier=tier)))
            if number % 20 == 19:
                log(f"bundle: {number + 1} of {prompts} prompts")
        name = pipe.bundle.manifest.name
    yield f"bundle {name}", accuracies(judged)


def _rendered(scene: Scene) -> NDArray[np.uint8]:
    return render([scene], range(FRAMES))[0]


@torch.no_grad()
def _reconstructed(model: AutoencoderKL, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    pixels = model(frames_to_tensor(frames)).clamp(-1, 1).add(1).mul(127.5).add(0.5)
    return pixels.to(torch.uint8).permute(0, 2, 3, 1).numpy()
