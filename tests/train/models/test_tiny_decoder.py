"""The tiny decoder: its contract is the full decoder's, its work is bounded, frames are alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from hummingbird_runtime.errors import InputError
from hummingbird_train.models.autoencoder import AutoencoderConfig, AutoencoderKL
from hummingbird_train.models.tiny_decoder import TinyDecoder, TinyDecoderConfig

SMALL = TinyDecoderConfig(latent_channels=2, channels=(8, 4), blocks=(1, 2), scaling_factor=0.5)


def decoder(config: TinyDecoderConfig = SMALL, *, seed: int = 0) -> TinyDecoder:
    """Every layer random, also the ones that training starts at zero."""
    torch.manual_seed(seed)
    made = TinyDecoder(config)
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.2)
    return made.eval()


def gflop(module: nn.Module, latent: Tensor) -> float:
    with FlopCounterMode(display=False) as counter:
        module(latent)
    return counter.get_total_flops() / 1e9


def test_a_full_size_frame_costs_a_fraction_of_the_full_decoder():
    with torch.device("meta"):
        latent = torch.empty(1, 4, 40, 64)
        small = gflop(TinyDecoder(TinyDecoderConfig.videocrafter2()), latent)
        full = gflop(AutoencoderKL(AutoencoderConfig.videocrafter2()).decoder, latent)
    assert small <= 90
    assert small == pytest.approx(63, abs=0.5)  # what the docstring says
    assert full == pytest.approx(1563, abs=2)


def test_a_tiny_frame_costs_less_than_an_eighth_of_its_decoder():
    with torch.device("meta"):
        latent = torch.empty(1, 4, 8, 8)
        small = gflop(TinyDecoder(TinyDecoderConfig.tiny()), latent)
        full = gflop(AutoencoderKL(AutoencoderConfig.tiny()).decoder, latent)
    assert full / small == pytest.approx(8.9, abs=0.05)  # what the docstring says


@pytest.mark.parametrize("kernel", [1, 3])
def test_a_head_of_patches_gives_each_cell_its_own_pixels(kernel: int):
    config = TinyDecoderConfig(
        latent_channels=2, channels=(6, 4), blocks=(1, 1), patch=4, head_kernel=kernel
    )
    made, latent = decoder(config), torch.zeros(1, 2, 5, 3)
    assert made(latent).shape == (1, 3, 40, 24)
    assert config.upscale == 8
    with torch.no_grad():
        made.conv_out.weight.zero_()
        made.conv_out.bias.copy_(torch.arange(48.0))
        out = made(latent)
    for channel, row, column in ((0, 0, 0), (1, 2, 3), (2, 3, 1)):
        assert (out[0, channel, row::4, column::4] == 16 * channel + 4 * row + column).all()


@pytest.mark.parametrize(
    ("config", "vae"),
    [
        (TinyDecoderConfig.videocrafter2(), AutoencoderConfig.videocrafter2()),
        (TinyDecoderConfig.tiny(), AutoencoderConfig.tiny()),
    ],
    ids=["videocrafter2", "tiny"],
)
def test_presets_take_and_give_what_their_autoencoder_does(
    config: TinyDecoderConfig, vae: AutoencoderConfig
):
    with torch.device("meta"):
        latent = torch.empty(2, vae.latent_channels, 3, 5)
        assert TinyDecoder(config)(latent).shape == AutoencoderKL(vae).decode(latent).shape
    assert config.upscale == vae.downscale
    assert config.scaling_factor == vae.scaling_factor


def test_only_layers_that_phones_have_fast_are_used():
    kinds = {type(module) for module in decoder().modules() if not list(module.children())}
    assert kinds == {nn.Conv2d}
    sizes = {m.kernel_size for m in decoder().modules() if isinstance(m, nn.Conv2d)}
    assert sizes == {(3, 3)}


def test_each_frame_is_decoded_on_its_own():
    made, latent = decoder(), torch.randn(3, 2, 4, 5)
    with torch.inference_mode():
        together = made(latent)
        alone = torch.cat([made(latent[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(together, alone)
    assert together.shape == (3, 3, 8, 10)


def test_every_parameter_matters():
    made, latent = decoder(), torch.randn(1, 2, 3, 3)
    made(latent).square().sum().backward()
    for name, parameter in made.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_latents_are_scaled_then_bent_into_the_limit():
    made = decoder()
    latent = torch.randn(1, 2, 3, 3)
    with torch.inference_mode():
        huge, beyond = made(1e4 * latent), made(1e6 * latent)
        torch.testing.assert_close(huge, beyond)  # saturated: outliers change nothing
        scaled = TinyDecoder(SMALL.from_json({**SMALL.to_json(), "scaling_factor": 1.0})).eval()
        scaled.load_state_dict(made.state_dict())
        torch.testing.assert_close(made(latent), scaled(0.5 * latent))


@pytest.mark.parametrize(
    "values",
    [
        {"channels": [8, 4], "blocks": [1]},
        {"channels": [], "blocks": []},
        {"blocks": [0, 1, 1, 1]},
        {"latent_limit": 0.0},
        {"patch": 0},
        {"head_kernel": 5},
        {"scaling_factor": -1.0},
    ],
)
def test_shapes_that_make_no_decoder_are_refused(values: dict[str, object]):
    with pytest.raises(InputError) as caught:
        TinyDecoderConfig.from_json(values)
    assert caught.value.code == "checkpoint.config"
