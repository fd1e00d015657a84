"""A cache of encoded clips: float16 latents on disk, scenes remade from their seeds.

Encoding costs a fifth of an image step, so clips are encoded once. Clip i is the scene drawn from
the generator seeded with (seed, i); captions are drawn anew at every use.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hummingbird_runtime.atomic import atomic_file
from hummingbird_runtime.errors import InputError
from hummingbird_train import parallel
from hummingbird_train.autoencoder import frames_to_tensor
from hummingbird_train.models.autoencoder import AutoencoderKL
from hummingbird_train.models.weights import load_model
from hummingbird_train.world.render import render
from hummingbird_train.world.scene import FRAMES, Scene, sample_scene


def scene_of(seed: int, index: int, tier: int) -> Scene:
    """The scene of a clip index."""
    return sample_scene(np.random.default_rng([seed, index]), tier=tier)


def build_cache(
    vae_path: Path, folder: Path, *, clips: int, seed: int, tier: int, shard: int = 250
) -> None:
    """Encode ``clips`` clips into ``folder``; every rank writes its own shards, finished ones stay.

    Writes ``latents-NNNN.npy`` (float16 [shard, 26, C, h, w], unscaled) and ``cache.json``.
    """
    scenes = [scene_of(seed, i, tier) for i in range(clips)]
    facts = {"clips": clips, "seed": seed, "tier": tier, "shard": shard, "world": _digest(scenes)}
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / "cache.json").exists() and _facts(folder) != facts:
        raise _stale(folder)
    if parallel.rank() == 0:
        with atomic_file(folder / "cache.json", overwrite=True) as temporary:
            temporary.write_text(json.dumps(facts), encoding="utf-8")
    model = load_model(vae_path)
    assert isinstance(model, AutoencoderKL)
    for number in range(parallel.rank(), -(-clips // shard), parallel.world_size()):
        path = folder / f"latents-{number:04d}.npy"
        if path.exists():
            continue
        chosen = scenes[number * shard : (number + 1) * shard]
        with atomic_file(path) as temporary, open(temporary, "wb") as file:
            np.save(file, np.stack([_encode(model, scene) for scene in chosen]))


def _facts(folder: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((folder / "cache.json").read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise _incomplete(folder, error) from error


def _incomplete(folder: Path, error: Exception) -> InputError:
    return InputError(
        "cache.incomplete",
        f"latent cache {folder}: {error}",
        hint="run the stage again: it encodes what is missing",
    )


def _stale(folder: Path) -> InputError:
    return InputError(
        "cache.stale",
        f"latent cache {folder} holds other clips than this recipe and world describe",
        hint="remove the folder and run the stage again",
    )


def _digest(scenes: Sequence[Scene]) -> str:
    """Identity of the scenes: a changed world must not caption clips of the old one."""
    return hashlib.sha256(repr(scenes[:200]).encode()).hexdigest()


@torch.no_grad()
def _encode(model: AutoencoderKL, scene: Scene) -> np.ndarray:
    frames = render([scene], range(FRAMES))[0]
    mean, _ = model.encode(frames_to_tensor(frames))
    return mean.numpy().astype(np.float16)  # (F, C, h, w)


class LatentCache:
    """Read access to a cache; latents come out scaled to unit variance.

    Raises:
        InputError: ``cache.incomplete`` when shards are missing, ``cache.stale`` when the world has
            changed since.
    """

    def __init__(self, folder: Path) -> None:
        facts = _facts(folder)
        shards = -(-facts["clips"] // facts["shard"])
        try:
            parts = [np.load(folder / f"latents-{n:04d}.npy") for n in range(shards)]
        except (OSError, ValueError) as error:
            raise _incomplete(folder, error) from error
        self.latents = np.concatenate(parts)  # (n, F, C, h, w)
        self.scaling_factor = 1.0 / float(self.latents[:500].astype(np.float64).std())
        self.scenes = [scene_of(facts["seed"], i, facts["tier"]) for i in range(facts["clips"])]
        if facts.get("world") != _digest(self.scenes):
            raise _stale(folder)

    def __len__(self) -> int:
        return len(self.scenes)

    def sample(
        self,
        rng: np.random.Generator,
        count: int,
        frames: int,
        stride: int,
        first_frames: tuple[int, int] | None = None,
    ) -> tuple[torch.Tensor, np.ndarray, list[Scene]]:
        """Random sub-clips, beginning anywhere or at an index of ``first_frames`` (both included).

        Returns:
            float32 latents [count, C, frames, h, w] scaled to unit variance, int64 world frame
            indices [count, frames], and the scenes.
        """
        clips = rng.integers(len(self), size=count)
        first, last = first_frames or (0, FRAMES - 1 - (frames - 1) * stride)
        starts = rng.integers(first, last + 1, size=count)
        index = starts[:, None] + np.arange(frames) * stride
        chosen = self.latents[clips[:, None], index].astype(np.float32) * self.scaling_factor
        latents = torch.from_numpy(np.ascontiguousarray(chosen.transpose(0, 2, 1, 3, 4)))
        return latents, index, [self.scenes[c] for c in clips]
