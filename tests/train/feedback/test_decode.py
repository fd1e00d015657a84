"""Decoding chosen frames with gradient: equal to the decoder's own, checkpointed or not."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hummingbird_train.feedback.decode import DecodeConfig, FrameDecoder, decoder_blocks
from hummingbird_train.models.autoencoder import AutoencoderConfig, AutoencoderKL
from hummingbird_train.models.tiny_decoder import TinyDecoder, TinyDecoderConfig

MODELS = {
    "patch": lambda: AutoencoderKL(
        AutoencoderConfig(
            stem="pixel_shuffle", norm="none", double_z=False, stem_patch=4,
            encoder_channels=4, decoder_channels=8,
        )
    ),
    "pyramid": lambda: AutoencoderKL(
        AutoencoderConfig(channels=8, channel_mult=(1, 2), num_res_blocks=1, norm_num_groups=4)
    ),
    "tiny": lambda: TinyDecoder(
        TinyDecoderConfig(channels=(8, 6), blocks=(1, 1), scaling_factor=0.7)
    ),
    "tiny-patch": lambda: TinyDecoder(
        TinyDecoderConfig(channels=(8,), blocks=(1,), patch=2, head_kernel=1)
    ),
}  # fmt: skip


def built(name: str, dtype: torch.dtype = torch.float32) -> torch.nn.Module:
    torch.manual_seed(3)
    model = MODELS[name]()
    for parameter in model.parameters():  # zero-initialised layers hide what lies before them
        torch.nn.init.normal_(parameter, std=0.15)
    return model.to(dtype)


def decode(model: torch.nn.Module, z: torch.Tensor) -> torch.Tensor:
    return model(z) if isinstance(model, TinyDecoder) else model.decode(z)


@pytest.mark.parametrize("name", MODELS)
def test_the_chain_of_blocks_is_the_decoder(name: str):
    model = built(name)
    z = torch.randn(2, 4, 4, 4)
    x = z
    for block in decoder_blocks(model):
        x = block(x)
    with torch.no_grad():
        assert torch.equal(x, decode(model, z))


@pytest.mark.parametrize("name", MODELS)
def test_chosen_frames_come_out_in_order_and_repeats_are_allowed(name: str):
    model = built(name)
    latents = torch.randn(2, 4, 5, 4, 4)
    frames = FrameDecoder(model, 0.5)(latents, np.array([3, 0, 3]))
    flat = latents[:, :, [3, 0, 3]].transpose(1, 2).flatten(0, 1) / 0.5
    expected = (decode(model, flat) / 2 + 0.5).clamp(0, 1).unflatten(0, (2, 3))
    assert torch.allclose(frames, expected.detach(), atol=1e-6)
    assert frames.min() >= 0
    assert frames.max() <= 1


@pytest.mark.parametrize("name", MODELS)
def test_checkpointing_leaves_the_gradient_as_it_is(name: str):
    model = built(name)
    slopes = []
    for on, chunk in ((True, 1), (False, 1)):
        latents = torch.linspace(-1, 1, 4 * 3 * 16).view(1, 4, 3, 4, 4).requires_grad_(True)
        frames = FrameDecoder(model, 1.0, DecodeConfig(on, chunk))(latents, np.array([0, 2]))
        frames.square().sum().backward()
        slopes.append(latents.grad)
    assert torch.equal(slopes[0], slopes[1])
    assert slopes[0].abs().sum() > 0
    assert not slopes[0][:, :, 1].any()  # the frame that nobody asked for


@pytest.mark.parametrize("name", MODELS)
def test_the_gradient_is_the_finite_difference(name: str):
    model = built(name, torch.float64)
    decoder = FrameDecoder(model, 0.5)
    torch.manual_seed(1)
    latents = torch.randn(1, 4, 2, 4, 4, dtype=torch.float64)
    way = torch.randn_like(latents)
    index = np.array([0, 1])

    def reward(x):
        return decoder(x, index).pow(3).sum()

    leaf = latents.clone().requires_grad_(True)
    (slope,) = torch.autograd.grad(reward(leaf), leaf)
    h = 1e-6  # float64: error h^2 + rounding / h, far under the bound
    with torch.no_grad():
        numeric = float(reward(latents + h * way) - reward(latents - h * way)) / (2 * h)
    exact = float((slope * way).sum())
    assert abs(exact) > 1e-3
    assert numeric == pytest.approx(exact, rel=1e-2)


def test_the_decoder_is_frozen():
    model = built("patch")
    FrameDecoder(model, 1.0)
    assert not any(p.requires_grad for p in model.parameters())
