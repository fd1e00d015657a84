"""The upscaler network: bilinear at the start, frames alone, bounded work, within -1..1."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from hummingbird_runtime.errors import InputError
from hummingbird_runtime.manifest import UPSCALE
from hummingbird_train.models.upscaler import Upscaler, UpscalerConfig, bilinear
from hummingbird_train.models.weights import count_parameters, load_model, save_model

SMALL = UpscalerConfig(channels=6, blocks=1)


def upscaler(config: UpscalerConfig = SMALL) -> Upscaler:
    """Every layer random, also the ones that training starts at zero."""
    torch.manual_seed(0)
    made = Upscaler(config)
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.1)
    return made.eval()


def test_a_new_one_enlarges_bilinearly():
    frames = torch.rand(2, 3, 5, 4) * 2 - 1
    torch.manual_seed(0)
    with torch.inference_mode():
        torch.testing.assert_close(Upscaler(SMALL)(frames), bilinear(frames, 4))


def test_bilinear_aligns_pixel_centres():
    """A ramp stays the ramp: output pixel j lies at (j + 1/2) / 4 - 1/2 of the input."""
    ramp = torch.arange(8.0).expand(1, 1, 8, 8)
    out = bilinear(ramp, 4)[0, 0, 0]
    places = ((torch.arange(32) + 0.5) / 4 - 0.5).clamp(0, 7)
    torch.testing.assert_close(out, places)


def test_the_default_has_the_stated_size_and_work_and_the_bundles_scale():
    config = UpscalerConfig()
    with torch.device("meta"):
        made = Upscaler(config)
        with FlopCounterMode(display=False) as counter:
            assert made(torch.empty(1, 3, 64, 64)).shape == (1, 3, 256, 256)
    assert count_parameters(made) == 51_760
    assert counter.get_total_flops() / 1e9 == pytest.approx(0.42, abs=0.005)
    assert config.scale == UPSCALE


def test_what_is_learned_is_added_pixel_by_pixel_and_limited():
    made, frames = upscaler(), torch.rand(1, 3, 4, 6) * 2 - 1
    with torch.no_grad():
        made.conv_out.weight.zero_()
        made.conv_out.bias.copy_(torch.linspace(-2, 2, 48))
        out, free = made(frames), made.enlarge(frames)
        added = F.pixel_shuffle(torch.linspace(-2, 2, 48).view(1, 48, 1, 1), 4).repeat(1, 1, 4, 6)
    torch.testing.assert_close(free, bilinear(frames, 4) + added)
    torch.testing.assert_close(out, free.clamp(-1, 1))
    assert free.abs().max() > 1


def test_each_frame_is_enlarged_on_its_own():
    made, frames = upscaler(), torch.rand(3, 3, 5, 7) * 2 - 1
    with torch.inference_mode():
        alone = torch.cat([made(frames[i : i + 1]) for i in range(3)])
        torch.testing.assert_close(made(frames), alone)


def test_every_parameter_matters():
    made = upscaler()
    made.enlarge(torch.rand(1, 3, 5, 5)).square().sum().backward()
    for name, parameter in made.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_it_comes_back_from_disk(tmp_path: Path):
    made, path = upscaler(), tmp_path / "upscaler.safetensors"
    save_model(path, made, SMALL)
    loaded = load_model(path)
    assert isinstance(loaded, Upscaler)
    assert loaded.config == SMALL
    frames = torch.rand(1, 3, 4, 4)
    with torch.inference_mode():
        assert torch.equal(loaded(frames), made(frames))


def test_shapes_that_make_no_upscaler_are_refused():
    for values in ({"scale": 0}, {"channels": 0}, {"blocks": True}, {"colour": 3}):
        with pytest.raises(InputError) as caught:
            UpscalerConfig.from_json(values)
        assert caught.value.code == "checkpoint.config"
