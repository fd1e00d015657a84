"""The latent cache: what it gives out fits its captions, and it refuses to serve another world."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from hummingbird_runtime.errors import InputError
from hummingbird_train.autoencoder import frames_to_tensor
from hummingbird_train.latents import LatentCache, build_cache
from hummingbird_train.models.autoencoder import AutoencoderConfig, AutoencoderKL
from hummingbird_train.models.weights import save_model
from hummingbird_train.world.render import render

CONFIG = AutoencoderConfig(
    stem="pixel_shuffle", norm="none", double_z=False, encoder_channels=8, decoder_channels=8
)


@pytest.fixture(scope="module")
def vae(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("vae") / "vae.safetensors"
    save_model(path, AutoencoderKL(CONFIG), CONFIG)
    return path


@pytest.fixture
def folder(vae: Path, tmp_path: Path) -> Path:
    build_cache(vae, tmp_path, clips=6, seed=4, tier=1, shard=4)
    return tmp_path


def test_latents_belong_to_their_scenes(folder: Path, vae: Path) -> None:
    cache = LatentCache(folder)
    latents, index, scenes = cache.sample(np.random.default_rng(0), 3, frames=9, stride=3)
    assert latents.shape == (3, 4, 9, 8, 8)
    assert (np.diff(index, axis=1) == 3).all()
    from hummingbird_train.models.weights import load_model

    model = load_model(vae)
    with torch.no_grad():
        mean, _ = model.encode(frames_to_tensor(render([scenes[1]], index[1])[0]))
    expected = mean.transpose(0, 1) * cache.scaling_factor  # (c, f, h, w)
    assert torch.allclose(latents[1], expected, atol=5e-3)  # stored as float16


def test_latents_have_unit_variance(folder: Path) -> None:
    latents, _, _ = LatentCache(folder).sample(np.random.default_rng(0), 64, 26, 1)
    assert latents.std().item() == pytest.approx(1.0, abs=0.1)  # 6 clips drawn with repetition


def test_what_is_there_is_not_encoded_again(folder: Path, vae: Path) -> None:
    before = (folder / "latents-0000.npy").stat().st_mtime_ns
    (folder / "latents-0001.npy").unlink()
    with pytest.raises(InputError) as caught:
        LatentCache(folder)
    assert caught.value.code == "cache.incomplete"
    build_cache(vae, folder, clips=6, seed=4, tier=1, shard=4)
    assert (folder / "latents-0000.npy").stat().st_mtime_ns == before
    assert len(LatentCache(folder)) == 6


@pytest.mark.parametrize(("field", "value"), [("seed", 5), ("world", "0" * 64), ("clips", 5)])
def test_a_cache_of_other_clips_is_refused(
    folder: Path, vae: Path, field: str, value: object
) -> None:
    facts = json.loads((folder / "cache.json").read_text("utf-8"))
    (folder / "cache.json").write_text(json.dumps({**facts, field: value}), "utf-8")
    with pytest.raises(InputError) as caught:
        build_cache(vae, folder, clips=6, seed=4, tier=1, shard=4)
    assert caught.value.code == "cache.stale"
