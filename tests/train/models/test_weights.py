"""Saving and loading of networks, and every way in which a file can be wrong."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from hummingbird_runtime.errors import ExecutionError, InputError, UsageError
from hummingbird_train.models.autoencoder import AutoencoderConfig, AutoencoderKL
from hummingbird_train.models.text_encoder import TextConfig, TextEncoder
from hummingbird_train.models.tiny_decoder import TinyDecoder, TinyDecoderConfig
from hummingbird_train.models.unet import UNetConfig, VideoUNet
from hummingbird_train.models.weights import count_parameters, load_model, save_model

UNET = replace(UNetConfig.tiny(), model_channels=16, num_head_channels=8, norm_num_groups=4)
VAE = replace(AutoencoderConfig.tiny(), encoder_channels=8, decoder_channels=8)
TEXT = TextConfig(vocab_size=20, max_length=6, width=8, heads=2, layers=2)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "vae.safetensors"
    save_model(path, AutoencoderKL(VAE), VAE)
    return path


def rewrite(path: Path, *, metadata: dict[str, str] | None = None, **change: torch.Tensor) -> None:
    given = {"format": "pt", "model": "autoencoder", "config": json.dumps(VAE.to_json())}
    save_file(load_file(path) | change, path, metadata=given if metadata is None else metadata)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize(
    "model",
    [VideoUNet(UNET), AutoencoderKL(VAE), TextEncoder(TEXT), TinyDecoder(TinyDecoderConfig.tiny())],
    ids=lambda m: type(m).__name__,
)
def test_a_network_comes_back(model: nn.Module, dtype: torch.dtype, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_model(path, model, model.config, dtype=dtype)
    assert {t.dtype for t in load_file(path).values()} == {dtype}
    loaded = load_model(path)
    assert type(loaded) is type(model)
    assert loaded.config == model.config
    assert not loaded.training
    assert count_parameters(loaded) == count_parameters(model)
    expected = {n: t.to(dtype).float() for n, t in model.state_dict().items()}
    for name, tensor in loaded.state_dict().items():
        assert torch.equal(tensor, expected[name]), name
    for (name, was), (_, buffer) in zip(model.named_buffers(), loaded.named_buffers(), strict=True):
        assert torch.equal(was, buffer), name
    assert {n: p.requires_grad for n, p in model.named_parameters()} == {
        n: p.requires_grad for n, p in loaded.named_parameters()
    }


def test_weights_can_be_loaded_as_half(tmp_path: Path) -> None:
    path = tmp_path / "unet.safetensors"
    save_model(path, VideoUNet(UNET), UNET)
    model = load_model(path, dtype=torch.float16)
    assert {t.dtype for t in (*model.parameters(), *model.buffers())} == {torch.float16}


def test_config_of_the_file_is_the_one_given(tmp_path: Path) -> None:
    path = tmp_path / "vae.safetensors"
    save_model(path, AutoencoderKL(VAE), replace(VAE, scaling_factor=0.7))
    assert load_model(path).config.scaling_factor == 0.7


def test_saving_again_replaces_the_file(saved: Path) -> None:
    model = AutoencoderKL(VAE)
    nn.init.constant_(model.decoder.conv_in.bias, 3.0)
    save_model(saved, model, VAE)
    assert (load_model(saved).decoder.conv_in.bias == 3.0).all()
    assert [p.name for p in saved.parent.iterdir()] == [saved.name]


def refused(path: Path, code: str) -> InputError:
    with pytest.raises(InputError) as caught:
        load_model(path)
    assert caught.value.code == code
    assert "expected" in caught.value.message
    assert caught.value.hint
    return caught.value


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    refused(tmp_path / "none.safetensors", "checkpoint.missing")
    refused(tmp_path, "checkpoint.missing")


@pytest.mark.parametrize("size", [0, 7, 40, -1])
def test_a_truncated_file_is_refused(saved: Path, size: int) -> None:
    saved.write_bytes(saved.read_bytes()[:size])
    refused(saved, "checkpoint.corrupt")


def test_a_file_of_something_else_is_refused(saved: Path) -> None:
    saved.write_bytes(b"PK\x03\x04" + bytes(1000))
    refused(saved, "checkpoint.corrupt")


@pytest.mark.parametrize("metadata", [{"format": "pt"}, {"model": "tower"}])
def test_a_file_without_a_known_kind_is_refused(saved: Path, metadata: dict[str, str]) -> None:
    rewrite(saved, metadata=metadata)
    refused(saved, "checkpoint.kind")


@pytest.mark.parametrize("config", ["", "{", "[1]", '{"norm": "batch"}', '{"width": 3}'])
def test_an_unreadable_configuration_is_refused(saved: Path, config: str) -> None:
    rewrite(saved, metadata={"model": "autoencoder", "config": config})
    refused(saved, "checkpoint.config")


def test_missing_and_unexpected_tensors_are_refused(saved: Path) -> None:
    other = replace(VAE, decoder_res_blocks=1, encoder_res_blocks=2)
    rewrite(saved, metadata={"model": "autoencoder", "config": json.dumps(other.to_json())})
    message = refused(saved, "checkpoint.keys").message
    assert "4 missing [encoder.block.1.conv1.bias, " in message
    assert "4 unexpected [decoder.block.1.conv1.bias, " in message


def test_another_shape_is_refused(saved: Path) -> None:
    rewrite(saved, **{"decoder.conv_in.bias": torch.zeros(9)})
    message = refused(saved, "checkpoint.shapes").message
    assert "decoder.conv_in.bias [9], expected [8]" in message


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_weights_that_are_not_finite_are_refused(saved: Path, value: float) -> None:
    rewrite(saved, **{"decoder.conv_in.bias": torch.full((8,), value)})
    assert "decoder.conv_in.bias" in refused(saved, "checkpoint.not_finite").message


def test_another_number_format_is_refused(saved: Path) -> None:
    rewrite(saved, **{"decoder.conv_in.bias": torch.zeros(8, dtype=torch.int64)})
    refused(saved, "checkpoint.dtype")


def test_overflow_in_half_precision_is_refused_and_the_old_file_stays(saved: Path) -> None:
    before = saved.read_bytes()
    model = AutoencoderKL(VAE)
    nn.init.constant_(model.decoder.conv_in.bias, 7e4)
    with pytest.raises(ExecutionError) as caught:
        save_model(saved, model, VAE, dtype=torch.float16)
    assert caught.value.code == "checkpoint.not_finite"
    assert saved.read_bytes() == before


def test_a_model_of_another_configuration_is_not_saved(tmp_path: Path) -> None:
    path = tmp_path / "vae.safetensors"
    with pytest.raises(InputError) as caught:
        save_model(path, AutoencoderKL(VAE), replace(VAE, decoder_channels=16))
    assert caught.value.code == "checkpoint.shapes"
    assert not path.exists()


def test_saving_in_another_format_or_kind_is_a_usage_error(tmp_path: Path) -> None:
    model = AutoencoderKL(VAE)
    with pytest.raises(UsageError, match="float64"):
        save_model(tmp_path / "a.safetensors", model, VAE, dtype=torch.float64)
    with pytest.raises(UsageError, match="dict"):
        save_model(tmp_path / "a.safetensors", model, {})
    assert list(tmp_path.iterdir()) == []
