"""The tiny decoder's objective: what it is compared with, what stays frozen, what it refuses."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hummingbird_runtime.errors import HummingbirdError, InputError, UsageError
from hummingbird_train.autoencoder import AutoencoderLoss, frames_to_tensor, reconstruction_loss
from hummingbird_train.models.autoencoder import AutoencoderConfig, AutoencoderKL
from hummingbird_train.models.tiny_decoder import TinyDecoder, TinyDecoderConfig
from hummingbird_train.models.weights import load_model
from hummingbird_train.recipe import Phase
from hummingbird_train.tiny_decoder_distillation import (
    TinyDecoderLoss,
    TinyDecoderObjective,
    world_pixels,
)
from hummingbird_train.world.render import render
from hummingbird_train.world.scene import sample_scene

SCALING = 0.5
PHASE = Phase("p", 10, batch=3, learning_rate=1e-3, frames=2)
CONFIG = TinyDecoderConfig(
    channels=(12,), blocks=(1,), patch=8, head_kernel=1, scaling_factor=SCALING
)


class Source:
    """Random latents of unit variance; captions describe them."""

    scaling_factor = SCALING

    def __init__(self) -> None:
        self.asked: list[tuple[int, int, int]] = []

    def __len__(self) -> int:
        return 4

    def sample(self, rng: np.random.Generator, count: int, frames: int, stride: int):
        self.asked.append((count, frames, stride))
        self.drawn = torch.from_numpy(rng.standard_normal((count, 4, frames, 3, 2))).float()
        index = np.arange(frames) * stride + np.zeros((count, 1), np.int64)
        return self.drawn, index, ["a caption"] * count


def vae() -> AutoencoderKL:
    torch.manual_seed(3)
    config = dataclasses.replace(
        AutoencoderConfig.tiny(),
        encoder_channels=8,
        decoder_channels=8,
        decoder_res_blocks=1,
        scaling_factor=SCALING,
    )
    return AutoencoderKL(config)


def objective(loss: TinyDecoderLoss | None = None, **options: Any) -> TinyDecoderObjective:
    return TinyDecoderObjective(
        CONFIG, vae(), Source(), loss or TinyDecoderLoss(), seed=0, **options
    )


def pixels(described: Any, index: np.ndarray) -> torch.Tensor:
    return torch.zeros(index.size, 3, 24, 16) + torch.arange(16.0) / 16


def test_without_noise_it_is_compared_with_the_full_decoder_of_the_unscaled_latent():
    made = objective(TinyDecoderLoss(latent_noise=0.0))
    loss, numbers = made.loss(PHASE, False, np.random.default_rng(1))
    assert made.source.asked == [(3, 2, 1)]
    z = made.source.drawn.transpose(1, 2).reshape(6, 4, 3, 2) / SCALING
    with torch.no_grad():
        wanted = reconstruction_loss(made.model(z), made.vae.decode(z), AutoencoderLoss())
    torch.testing.assert_close(loss.detach(), wanted)
    assert set(numbers) == {"psnr_decoder"}


def test_pixels_add_their_own_weighted_distance():
    rng = [np.random.default_rng(1) for _ in range(3)]
    both = TinyDecoderLoss(decoder_weight=1.0, pixel_weight=2.0)
    total, numbers = objective(both, pixels=pixels).loss(PHASE, False, rng[0])
    alone, _ = objective(dataclasses.replace(both, pixel_weight=0.0)).loss(PHASE, False, rng[1])
    only, _ = objective(dataclasses.replace(both, decoder_weight=0.0), pixels=pixels).loss(
        PHASE, False, rng[2]
    )
    torch.testing.assert_close(total, alone + only)
    assert only.item() > 0
    assert set(numbers) == {"psnr_decoder", "psnr_pixels"}


def test_draws_depend_on_the_generator_alone():
    def loss(seed: int) -> float:
        return objective().loss(PHASE, False, np.random.default_rng(seed))[0].item()

    assert loss(1) == loss(1)
    assert loss(1) != loss(2)


def test_noise_moves_the_latent_that_both_decoders_see():
    rng = [np.random.default_rng(1) for _ in range(2)]
    quiet = objective(TinyDecoderLoss(latent_noise=0.0)).loss(PHASE, False, rng[0])[0]
    noisy = objective(TinyDecoderLoss(latent_noise=0.5)).loss(PHASE, False, rng[1])[0]
    assert quiet.item() != noisy.item()


def test_training_changes_the_student_only_and_brings_it_closer(tmp_path: Path):
    made = objective()
    before = {n: t.clone() for n, t in made.vae.state_dict().items()}
    assert not any(p.requires_grad for p in made.vae.parameters())
    adam = torch.optim.Adam(made.model.parameters(), 3e-3)
    losses = []
    for step in range(60):
        loss, _ = made.loss(PHASE, False, np.random.default_rng(step))
        adam.zero_grad()
        loss.backward()
        adam.step()
        losses.append(loss.item())
    assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:5])
    for name, tensor in made.vae.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    named = dict(made.model.named_parameters())
    averages = {f"tiny_decoder.{n}": torch.full_like(p, 0.25) for n, p in named.items()}
    made.save(tmp_path, averages)
    loaded = load_model(tmp_path / "tiny_decoder.safetensors")
    assert isinstance(loaded, TinyDecoder)
    assert loaded.config == CONFIG
    assert all(bool((p == 0.25).all()) for p in loaded.parameters())


REFUSED: list[tuple[dict[str, Any], type[HummingbirdError], str]] = [
    ({"latent_channels": 8}, InputError, "train.decoder_fit"),
    ({"patch": 4}, InputError, "train.decoder_fit"),
    ({"scaling_factor": 0.7}, InputError, "train.decoder_fit"),
]


@pytest.mark.parametrize(("change", "kind", "code"), REFUSED)
def test_a_decoder_of_other_latents_is_refused(
    change: dict[str, Any], kind: type[HummingbirdError], code: str
):
    config = dataclasses.replace(CONFIG, **change)
    with pytest.raises(kind, match=next(iter(change)).replace("patch", "pixels per")) as caught:
        TinyDecoderObjective(config, vae(), Source(), TinyDecoderLoss(), seed=0)
    assert caught.value.code == code


def test_a_pixel_weight_without_pixels_is_refused():
    with pytest.raises(UsageError) as caught:
        objective(TinyDecoderLoss(pixel_weight=0.5))
    assert caught.value.code == "train.no_pixels"


def test_world_pixels_are_the_rendered_frames():
    scenes = [sample_scene(np.random.default_rng(s), tier=1) for s in range(2)]
    out = world_pixels(scenes, np.array([[0, 5], [7, 9]]))
    wanted = np.concatenate([render(scenes[:1], [0, 5])[0], render(scenes[1:], [7, 9])[0]])
    assert torch.equal(out, frames_to_tensor(wanted))
