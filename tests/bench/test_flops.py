"""Counted work: the published figures, and torch's own counter as a second opinion."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch

from hummingbird_bench.flops import ClipWork, decoder_flops, text_flops, unet_flops
from hummingbird_runtime.errors import InputError
from hummingbird_train.meta_trace import trace, trace_unet
from hummingbird_train.models.autoencoder import AutoencoderConfig, AutoencoderKL
from hummingbird_train.models.text_encoder import TextConfig, TextEncoder
from hummingbird_train.models.tiny_decoder import TinyDecoder, TinyDecoderConfig
from hummingbird_train.models.unet import UNetConfig


def as_json(config) -> dict:
    return json.loads(json.dumps(config.to_json()))


@pytest.mark.parametrize(
    ("config", "tera"),
    [
        (UNetConfig.videocrafter2(), 20.46),
        (UNetConfig.hummingbird_09b(), 13.31),
        (UNetConfig.hummingbird_07b(), 12.95),
    ],
)
def test_a_pass_of_the_original_form_is_the_published_work(config, tera):
    shape = {"frames": 26, "height": 40, "width": 64}
    flops = unet_flops(as_json(config), **shape, copied_context=True)
    assert round(flops / 1e12, 2) == tera
    assert 0.994 < unet_flops(as_json(config), **shape) / flops < 0.996


def test_a_decoded_frame_is_the_published_work():
    flops = decoder_flops(as_json(AutoencoderConfig.videocrafter2()), height=40, width=64)
    assert round(flops / 1e12, 3) == 1.564  # 1.5635, given as 1.563 and as 1.564
    tiny = decoder_flops(as_json(TinyDecoderConfig.videocrafter2()), height=40, width=64)
    assert round(tiny / 1e9) == 63


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"num_res_blocks": 2, "middle_block": True, "time_cond_proj_dim": None},
        {"frame_embedding": False, "pooled_text_embedding": False, "place_planes": False},
        {"channel_mult": (1, 2, 2), "attention_resolutions": (2,)},
    ],
)
def test_the_closed_form_equals_the_counter_of_torch(changes):
    config = dataclasses.replace(UNetConfig.tiny(), **changes)
    counted = trace_unet(config, 5, 8, 12, torch.float32).flop
    assert unet_flops(as_json(config), frames=5, height=8, width=12) == counted


def test_decoders_and_text_equal_the_counter_of_torch():
    small = dataclasses.replace(
        AutoencoderConfig(), channels=32, channel_mult=(1, 2), num_res_blocks=1
    )
    for config in (small, AutoencoderConfig.tiny()):
        with torch.device("meta"):
            vae = AutoencoderKL(config)
        vae.forward = vae.decode
        counted = trace(vae, torch.zeros(1, 4, 6, 8, device="meta")).flop
        assert decoder_flops(as_json(config), height=6, width=8) == counted
    for config in (TinyDecoderConfig(channels=(16, 8), blocks=(2, 1)), TinyDecoderConfig.tiny()):
        with torch.device("meta"):
            tiny = TinyDecoder(config)
        counted = trace(tiny, torch.zeros(1, 4, 6, 8, device="meta")).flop
        assert decoder_flops(as_json(config), height=6, width=8) == counted
    config = TextConfig.tiny(75)
    with torch.device("meta"):
        text = TextEncoder(config)
    counted = trace(text, torch.zeros(1, 24, dtype=torch.int64, device="meta")).flop
    assert text_flops(as_json(config)) == counted


def test_a_clip_is_the_sum_of_its_parts():
    work = ClipWork(text=3, texts=2, unet_pass=100, passes=8, decoded_frame=10, frames=5)
    assert work.total == 6 + 800 + 50
    assert work.to_json()["total"] == work.total


@pytest.mark.parametrize("wrong", [{"model_channels": None}, {"channel_mult": []}])
def test_a_configuration_that_cannot_be_counted_is_refused(wrong):
    config = {**as_json(UNetConfig.tiny()), **wrong}
    with pytest.raises(InputError, match=next(iter(wrong))) as caught:
        unet_flops(config, frames=1, height=8, width=8)
    assert caught.value.code == "bench.model_config"
    del config[next(iter(wrong))]
    with pytest.raises(InputError, match="got no"):
        unet_flops(config, frames=1, height=8, width=8)
