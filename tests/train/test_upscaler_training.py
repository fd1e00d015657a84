"""The upscaler's objective: pairs that fit, degradation as described, a loss in closed form."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from hummingbird_runtime.errors import InputError
from hummingbird_train.models.autoencoder import AutoencoderConfig, AutoencoderKL
from hummingbird_train.models.tiny_decoder import TinyDecoder, TinyDecoderConfig
from hummingbird_train.models.upscaler import Upscaler, UpscalerConfig, bilinear
from hummingbird_train.models.weights import load_model
from hummingbird_train.recipe import Phase
from hummingbird_train.upscaler import (
    Degradation,
    ShrunkPairs,
    UpscalerLoss,
    UpscalerObjective,
    WorldPairs,
    charbonnier,
    upscaling_loss,
)

CONFIG = UpscalerConfig(channels=8, blocks=1)
PHASE = Phase("p", 10, batch=4, learning_rate=1e-3)
SHARP = Degradation(decoded=0.0, blurred=0.0, noise=0.0, crop=16)


def photographs(rng: np.random.Generator, count: int) -> np.ndarray:
    """Random pixels: no part equals another."""
    return rng.integers(0, 256, (count, 48, 64, 3), dtype=np.uint8)


def objective(degradation: Degradation = SHARP, **options: Any) -> UpscalerObjective:
    source = options.pop("source", None) or ShrunkPairs(photographs, scale=4)
    return UpscalerObjective(
        options.pop("config", CONFIG), source, UpscalerLoss(), degradation, seed=0, **options
    )


def test_charbonnier_is_zero_at_zero_quadratic_near_it_and_linear_far_away():
    d = torch.tensor([0.0, 1e-4, 1.0], dtype=torch.float64)
    got = charbonnier(d, 1e-2)
    assert got[0] == 0
    assert float(got[1]) == pytest.approx(1e-8 / (2 * 1e-2), rel=1e-3)
    assert float(got[2]) == pytest.approx(1 - 1e-2, abs=1e-4)


def test_the_loss_of_a_constant_error_is_that_error_on_flat_frames():
    target = torch.zeros(2, 3, 16, 16)
    loss = upscaling_loss(target + 0.25, target, UpscalerLoss(epsilon=1e-6))
    assert loss.item() == pytest.approx(0.25, abs=1e-5)  # no edges, no gradients
    step = target.clone()
    step[..., 8:] = 1.0
    edges = upscaling_loss(step + 0.25, step, UpscalerLoss(epsilon=1e-6, edge_weight=4.0))
    # an edge between columns 7 and 8 is marked at column 7 and widened by two: columns 5 to 9
    assert edges.item() == pytest.approx(0.25 * (1 + 4 * 5 / 16), abs=1e-5)
    slopes = upscaling_loss(step, target, UpscalerLoss(epsilon=1e-6, edge_weight=0.0))
    assert slopes.item() == pytest.approx(0.5 + 0.5 / 15, abs=1e-5)


def numbered(rng: np.random.Generator, count: int) -> np.ndarray:
    """One picture in which every part of 8 x 8 small pixels is found once only."""
    return np.random.default_rng(0).integers(0, 256, (1, 48, 64, 3), np.uint8).repeat(count, 0)


def test_small_and_large_parts_show_the_same_place():
    source = ShrunkPairs(numbered, scale=4)
    small, large = source.sample(np.random.default_rng(0), 1)  # 12 x 16 and 48 x 64
    made = objective(dataclasses.replace(SHARP, crop=8), source=source)
    places: list[tuple[int, int]] = []

    def perfect(frames: torch.Tensor) -> torch.Tensor:
        """Find each part in the whole picture and give back its large version."""
        first = len(places)
        for frame in frames:
            places.extend(
                (i, j)
                for i in range(5)
                for j in range(9)
                if torch.equal(small[0, :, i : i + 8, j : j + 8], frame)
            )
        parts = [large[0, :, 4 * i : 4 * i + 32, 4 * j : 4 * j + 32] for i, j in places[first:]]
        return torch.stack(parts).requires_grad_()

    made.model.enlarge = perfect
    for seed in range(5):
        loss, numbers = made.loss(PHASE, False, np.random.default_rng(seed))
        assert loss.item() == 0.0
        assert numbers["psnr"] == pytest.approx(100.0)
    assert len(set(places)) > 10  # of 20 draws out of 45 places


def test_a_part_is_at_most_the_whole_frame():
    made = objective(dataclasses.replace(SHARP, crop=14))
    shapes = []

    def enlarge(frames: torch.Tensor) -> torch.Tensor:
        shapes.append(tuple(frames.shape))
        return bilinear(frames, 4).requires_grad_()

    made.model.enlarge = enlarge
    assert made.loss(PHASE, False, np.random.default_rng(0))[0].item() > 0
    assert shapes == [(4, 3, 12, 14)]


def test_world_pairs_show_one_scene_in_two_sizes():
    small, large = WorldPairs(tier=1, scale=4).sample(np.random.default_rng(0), 6)
    assert (small.shape, large.shape) == ((6, 3, 64, 64), (6, 3, 256, 256))
    error = (F.avg_pool2d(large, 4) - small).abs()
    assert error.mean() < 0.01  # edges are smoothed over one pixel of either size
    other = (F.avg_pool2d(large, 4).roll(1, 3) - small).abs()
    assert other.mean() > 2 * error.mean()


def test_sharp_frames_stay_as_they_are():
    frames = torch.rand(4, 3, 12, 12) * 2 - 1
    assert torch.equal(objective().degrade(frames, np.random.default_rng(0)), frames)


def test_noise_is_at_most_as_strong_as_asked_and_stays_in_range():
    frames = torch.zeros(64, 3, 32, 32)
    made = objective(dataclasses.replace(SHARP, noise=0.1))
    out = made.degrade(frames, np.random.default_rng(0))
    strengths = out.std((1, 2, 3))
    assert 0.0 <= strengths.min() < 0.02
    assert 0.09 < strengths.max() < 0.104
    assert made.degrade(frames + 1, np.random.default_rng(0)).max() <= 1.0


def test_blur_keeps_flat_frames_and_softens_edges():
    made = objective(dataclasses.replace(SHARP, blurred=1.0, blur=1.5))
    flat = torch.full((4, 3, 12, 12), 0.3)
    torch.testing.assert_close(made.degrade(flat, np.random.default_rng(0)), flat)
    step = torch.ones(16, 3, 12, 12)
    step[..., :6] = -1
    soft = made.degrade(step, np.random.default_rng(0))
    slopes = (soft[..., 6] - soft[..., 5]).amax((1, 2))
    assert slopes.max() > 1.9  # some hardly
    assert slopes.min() < 1.0  # some a lot
    torch.testing.assert_close(soft.mean((1, 2, 3)), torch.zeros(16), atol=1e-5, rtol=0)


def vae() -> AutoencoderKL:
    torch.manual_seed(1)
    config = dataclasses.replace(
        AutoencoderConfig.tiny(), encoder_channels=8, decoder_channels=8, decoder_res_blocks=1
    )
    made = AutoencoderKL(config)
    torch.nn.init.normal_(made.decoder.conv_out.bias, std=0.5)
    return made


def test_decoded_frames_are_the_autoencoders():
    model = vae()
    made = objective(dataclasses.replace(SHARP, decoded=1.0, latent_noise=0.0), vae=model)
    frames = torch.rand(3, 3, 16, 24) * 2 - 1
    with torch.no_grad():
        wanted = model(frames).clamp(-1, 1)
    torch.testing.assert_close(made.degrade(frames, np.random.default_rng(0)), wanted)
    noisy = objective(dataclasses.replace(SHARP, decoded=1.0, latent_noise=1.0), vae=model)
    assert not torch.allclose(noisy.degrade(frames, np.random.default_rng(0)), wanted, atol=1e-3)
    assert not any(p.requires_grad for p in model.parameters())


def test_further_decoders_take_their_turn():
    model = vae()
    torch.manual_seed(2)
    tiny = TinyDecoder(TinyDecoderConfig(channels=(8,), blocks=(1,), patch=8, head_kernel=1))
    degradation = dataclasses.replace(SHARP, decoded=1.0, latent_noise=0.0)
    made = objective(degradation, vae=model, decoders=[tiny])
    frames = torch.rand(4, 3, 16, 16) * 2 - 1
    got = made.degrade(frames, np.random.default_rng(0))
    with torch.no_grad():
        z, _ = model.encode(frames)
        full, small = model.decode(z).clamp(-1, 1), tiny(z).clamp(-1, 1)
    assert not torch.allclose(full, small, atol=1e-2)
    torch.testing.assert_close(got[::2], full[::2])
    torch.testing.assert_close(got[1::2], small[1::2])


def test_draws_depend_on_the_generator_alone():
    def loss(seed: int) -> float:
        made = objective(dataclasses.replace(SHARP, blurred=0.5, noise=0.1))
        return made.loss(PHASE, False, np.random.default_rng(seed))[0].item()

    assert loss(1) == loss(1)
    assert loss(1) != loss(2)


def test_a_source_of_another_scale_is_refused():
    made = objective(source=ShrunkPairs(photographs, scale=2))
    with pytest.raises(InputError, match="expected the second 4 times larger") as caught:
        made.loss(PHASE, False, np.random.default_rng(0))
    assert caught.value.code == "train.upscaler_source"


def test_training_leaves_bilinear_enlargement_behind_and_is_saved(tmp_path: Path):
    drawn = WorldPairs(tier=1, scale=4).sample(np.random.default_rng(0), 3)

    class OneBatch:
        def sample(self, rng: np.random.Generator, count: int):
            return drawn

    made = objective(
        dataclasses.replace(SHARP, crop=24),
        source=OneBatch(),
        config=dataclasses.replace(CONFIG, channels=12),
    )
    adam = torch.optim.Adam(made.model.parameters(), 3e-3)
    losses = []
    for _ in range(60):
        loss, _ = made.loss(PHASE, False, np.random.default_rng(5))
        adam.zero_grad()
        loss.backward()
        adam.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]  # the first is that of bilinear enlargement
    made.save(tmp_path, {})
    loaded = load_model(tmp_path / "upscaler.safetensors")
    assert isinstance(loaded, Upscaler)
    assert torch.equal(loaded.conv_in.weight, made.model.conv_in.weight)
