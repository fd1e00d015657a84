"""The cache of user clips: what it gives is what the autoencoder says of those very frames."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from hummingbird_runtime.errors import InputError
from hummingbird_train.data.clip_source import ClipSource
from hummingbird_train.data.entries import read_entries
from hummingbird_train.data.latent_cache import CacheConfig, cache_key, encode_clips
from hummingbird_train.latents import LatentCache, build_cache
from hummingbird_train.models.autoencoder import AutoencoderConfig, AutoencoderKL
from hummingbird_train.models.weights import load_model, save_model

CONFIG = AutoencoderConfig(
    stem="pixel_shuffle", norm="none", double_z=False, encoder_channels=8, decoder_channels=8
)
CACHE = CacheConfig(size=(16, 16), fps=8, max_frames=10, shard=2)


def write_vae(path: Path, seed: int) -> Path:
    torch.manual_seed(seed)
    save_model(path, AutoencoderKL(CONFIG), CONFIG)
    return path


@pytest.fixture(scope="module")
def vae(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_vae(tmp_path_factory.mktemp("vae") / "vae.safetensors", 0)


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """Clips of 9, 13 and 24 frames and an image; the second claims 16 frames a second."""
    folder = tmp_path / "clips"
    folder.mkdir()
    rng = np.random.default_rng(1)
    for i, frames in enumerate((9, 13, 24)):
        np.save(folder / f"{i}.npy", rng.integers(0, 256, (frames, 16, 16, 3), np.uint8))
    np.save(folder / "3.npy", rng.integers(0, 256, (16, 16, 3), np.uint8))
    rows = [{"path": f"{i}.npy", "caption": f"clip {i}", "fps": 16 if i == 1 else None}
            for i in range(4)]  # fmt: skip
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    return folder


def encode(vae: Path, frames: np.ndarray) -> np.ndarray:
    pixels = torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.no_grad():
        mean, _ = load_model(vae).encode(pixels)
    return mean.numpy()


def test_latents_are_those_of_the_frames_at_one_rate(
    vae: Path, clips: Path, tmp_path: Path
) -> None:
    entries = read_entries(clips)
    cache = encode_clips(entries, vae, tmp_path / "c", CACHE)
    # 9 at 8 a second stay; 13 at 16 a second become every other one, 7; 24 become 10 + 10 + 4
    assert list(cache.lengths) == [9, 7, 10, 10, 4, 1]
    assert cache.captions == ["clip 0", "clip 1", "clip 2", "clip 2", "clip 2", "clip 3"]
    expected = [
        encode(vae, np.load(clips / "0.npy")),
        encode(vae, np.load(clips / "1.npy")[::2]),
        encode(vae, np.load(clips / "2.npy")),
        encode(vae, np.load(clips / "3.npy")[None]),
    ]
    # float16 of numbers of size 1, and another batch of the same convolutions
    np.testing.assert_allclose(cache.latents, np.concatenate(expected), atol=4e-3)


def test_samples_are_scaled_windows_with_their_captions(
    vae: Path, clips: Path, tmp_path: Path
) -> None:
    cache = encode_clips(read_entries(clips), vae, tmp_path / "c", CACHE, scaling_factor=0.25)
    x_0, index, captions = cache.sample(np.random.default_rng(0), 12, frames=4, stride=2)
    assert x_0.shape == (12, 4, 4, 2, 2)
    assert x_0.dtype == torch.float32
    assert set(captions) <= {"clip 0", "clip 1", "clip 2"}  # 7 frames or more
    assert (np.diff(index, axis=1) == 2).all()
    for clip, rows, text in zip(x_0, index, captions, strict=True):
        owners = [i for i, caption in enumerate(cache.captions) if caption == text]
        pieces = [
            cache.latents[cache.starts[i] + rows] * np.float32(0.25)
            for i in owners
            if cache.lengths[i] > rows[-1]
        ]
        assert any(np.array_equal(clip.numpy().transpose(1, 0, 2, 3), p) for p in pieces)
    again = cache.sample(np.random.default_rng(0), 12, frames=4, stride=2)
    assert torch.equal(again[0], x_0)
    single = cache.sample(np.random.default_rng(0), 64, frames=1, stride=1)
    assert "clip 3" in single[2]  # an image serves where one frame is asked for
    with pytest.raises(InputError) as caught:
        cache.sample(np.random.default_rng(0), 1, frames=11, stride=1)
    assert caught.value.code == "data.short"


def test_without_a_factor_latents_have_unit_variance(
    vae: Path, clips: Path, tmp_path: Path
) -> None:
    cache = encode_clips(read_entries(clips), vae, tmp_path / "c", CACHE)
    stored = cache.latents.astype(np.float64)
    assert (stored * cache.scaling_factor).std() == pytest.approx(1.0, abs=1e-6)


def test_what_is_there_is_not_encoded_again_and_new_captions_are_free(
    vae: Path, clips: Path, tmp_path: Path
) -> None:
    done: list[tuple[int, int]] = []
    first = encode_clips(
        read_entries(clips), vae, tmp_path / "c", CACHE, progress=lambda *n: done.append(n)
    )
    assert done[-1] == (4, 4)
    (place,) = (tmp_path / "c").iterdir()
    times = {path.name: path.stat().st_mtime_ns for path in place.iterdir()}
    assert len(times) == 4  # two shards of an array and an index
    (place / "latents-0001.json").unlink()
    table = clips / "metadata.jsonl"
    table.write_text(table.read_text("utf-8").replace("clip 0", "another"), "utf-8")
    second = encode_clips(read_entries(clips), vae, tmp_path / "c", CACHE)
    assert second.captions[0] == "another"
    assert np.array_equal(first.latents, second.latents)
    assert (place / "latents-0000.npy").stat().st_mtime_ns == times["latents-0000.npy"]
    assert (place / "latents-0001.npy").stat().st_mtime_ns != times["latents-0001.npy"]


def test_another_autoencoder_clip_or_setting_is_another_cache(
    vae: Path, clips: Path, tmp_path: Path
) -> None:
    entries = read_entries(clips)
    keys = {cache_key(vae, entries, CACHE)}
    keys.add(cache_key(write_vae(tmp_path / "v.safetensors", 1), entries, CACHE))
    keys.add(cache_key(vae, entries, CacheConfig(size=(16, 16), fps=4, max_frames=10, shard=2)))
    keys.add(cache_key(vae, entries[:3], CACHE))
    os.utime(clips / "0.npy", ns=(1, 1))
    keys.add(cache_key(vae, entries, CACHE))
    assert len(keys) == 5


def test_a_damaged_cache_and_damaged_clips_are_named(
    vae: Path, clips: Path, tmp_path: Path
) -> None:
    (clips / "1.npy").write_bytes(b"nothing")
    entries = read_entries(clips)
    with pytest.raises(InputError) as caught:
        encode_clips(entries, vae, tmp_path / "c", CACHE)
    assert caught.value.code == "data.corrupt"
    cache = encode_clips(entries, vae, tmp_path / "c", CACHE, on_failure="skip")
    assert list(cache.failures) == ["2:1.npy"]
    assert "clip 1" not in cache.captions
    (place,) = (tmp_path / "c").iterdir()
    np.save(place / "latents-0000.npy", np.zeros((3, 4, 2, 2), np.float16))
    with pytest.raises(InputError) as caught:
        encode_clips(entries, vae, tmp_path / "c", CACHE, on_failure="skip")
    assert caught.value.code == "cache.incomplete"
    with pytest.raises(InputError) as caught:
        encode_clips(entries, vae, tmp_path / "d", CacheConfig(size=(16, 12)))
    assert caught.value.code == "data.options"


def test_both_caches_are_clip_sources(vae: Path, clips: Path, tmp_path: Path) -> None:
    build_cache(vae, tmp_path / "world", clips=2, seed=4, tier=1)
    world = LatentCache(tmp_path / "world")
    user = encode_clips(read_entries(clips), vae, tmp_path / "c", CACHE)
    for source in (world, user):
        assert isinstance(source, ClipSource)
        x_0, index, described = source.sample(np.random.default_rng(0), 3, 4, 2)
        assert x_0.shape[:3] == (3, 4, 4)
        assert index.shape == (3, 4)
        assert len(described) == 3
