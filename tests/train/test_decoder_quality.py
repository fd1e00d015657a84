"""The tables of decoder quality: counted bytes and work in closed form, rows, refusals."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
import torch
from torch import nn

from hummingbird_runtime.errors import InputError, UsageError
from hummingbird_train import decoder_quality
from hummingbird_train.decoder_quality import (
    LiveBytes,
    compare_decoders,
    cost,
    main,
    quality,
    world_clips,
)
from hummingbird_train.models.autoencoder import AutoencoderConfig, AutoencoderKL
from hummingbird_train.models.tiny_decoder import TinyDecoder, TinyDecoderConfig
from hummingbird_train.models.upscaler import Upscaler, UpscalerConfig
from hummingbird_train.models.weights import save_model


def vae() -> AutoencoderKL:
    torch.manual_seed(0)
    config = dataclasses.replace(
        AutoencoderConfig.tiny(), encoder_channels=8, decoder_channels=16, decoder_res_blocks=1
    )
    return AutoencoderKL(config).eval()


def tiny() -> TinyDecoder:
    torch.manual_seed(1)
    config = TinyDecoderConfig(channels=(8,), blocks=(1,), patch=8, head_kernel=1)
    return TinyDecoder(config).eval()


def short_clips(*arguments: int, **options: int) -> list[torch.Tensor]:
    return [clip[:3] for clip in world_clips(*arguments, **options)]


def test_live_bytes_are_those_held_at_once():
    x = torch.zeros(1000)  # made outside: not counted
    with LiveBytes() as chain, torch.inference_mode():
        y = x + 1
        y = y + 1
        y = y + 1  # each result replaces the one before, once it is there
    assert (chain.peak, chain.now) == (8000, 4000)
    with LiveBytes() as kept, torch.inference_mode():
        parts = [x + i for i in range(3)]
        views = [part.view(10, 100).transpose(0, 1)[:5] for part in parts]
        parts[0].add_(1)
    assert (kept.peak, kept.now) == (12000, 12000)
    del parts
    assert kept.now == 12000  # the views hold them
    del views
    assert kept.now == 0
    del y
    assert chain.now == 0


def test_cost_counts_parameters_work_and_activations():
    net = nn.Conv2d(4, 8, 3, padding=1)
    found = cost(net, net, torch.rand(3, 4, 16, 16))
    assert found.parameters == 8 * 4 * 9 + 8
    assert found.gflop == pytest.approx(2 * 8 * 4 * 9 * 256 / 1e9)
    assert found.mebibytes == pytest.approx(8 * 256 * 4 / 2**20)
    assert found.milliseconds > 0


def test_quality_is_clipped_and_counted_in_levels():
    clip = torch.zeros(4, 3, 16, 16)
    assert quality([clip + 3], [torch.ones_like(clip)]).psnr == 99.0  # equal once clipped
    sign = torch.tensor([1.0, -1.0, 1.0, -1.0]).view(4, 1, 1, 1)
    found = quality([clip + 0.2 * sign], [clip])
    assert found.psnr == pytest.approx(20.0, abs=1e-4)  # 0.2 of a range of 2
    assert found.flicker == pytest.approx(0.2 * 255, abs=1e-3)


def test_the_tiny_decoder_is_compared_with_the_full_one_and_with_the_source():
    assert world_clips(1, seed=0, tier=1)[0].shape == (26, 3, 64, 64)
    table = compare_decoders(vae(), tiny(), short_clips(2, seed=0, tier=1))
    rows = [line.split("|") for line in table.splitlines() if line.startswith("| ")]
    assert [row[1].strip() for row in rows] == ["decoder", "full", "tiny"]
    assert rows[1][6].strip() == "-"
    assert all("dB" in cell for cell in (rows[1][7], rows[2][6], rows[2][7]))
    works = [float(row[3]) for row in rows[1:]]
    told = re.search(r"does ([0-9.]+) times less work", table)
    assert told is not None
    assert float(told[1]) == pytest.approx(works[0] / works[1], rel=0.05)


def test_an_exact_imitation_is_seen_as_one(monkeypatch: pytest.MonkeyPatch):
    """A student that draws what the teacher draws has 99 dB and SSIM 1."""
    full, small = vae(), tiny()
    monkeypatch.setattr(TinyDecoder, "forward", lambda self, latent: full.decode(latent))
    table = compare_decoders(full, small, short_clips(1, seed=0, tier=1))
    assert "99.00 dB / 1.0000 / 0.00" in table


def test_the_verb_prints_both_tables(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(decoder_quality, "world_clips", short_clips)
    torch.manual_seed(2)
    upscaler = Upscaler(UpscalerConfig(channels=4, blocks=1))
    networks = {"vae": vae(), "tiny": tiny(), "upscaler": upscaler}
    words = ["--clips", "1"]
    for name, network in networks.items():
        save_model(tmp_path / f"{name}.safetensors", network, network.config)
        words += [f"--{name}", str(tmp_path / f"{name}.safetensors")]
    assert main(words) == 0
    out = capsys.readouterr().out
    rows = {line.split("|")[1].strip(): line for line in out.splitlines() if line.startswith("| ")}
    assert {"full", "tiny", "bilinear", "upscaler"} <= set(rows)
    # an untrained upscaler is bilinear enlargement
    assert rows["bilinear"].split("|")[6] == rows["upscaler"].split("|")[6]


def test_wrong_files_and_flags_are_refused(tmp_path: Path):
    path = tmp_path / "vae.safetensors"
    save_model(path, vae(), vae().config)
    with pytest.raises(UsageError, match="neither --tiny nor --upscaler"):
        main(["--vae", str(path)])
    with pytest.raises(InputError, match="got a AutoencoderKL, expected a TinyDecoder") as caught:
        main(["--vae", str(path), "--tiny", str(path), "--clips", "1"])
    assert caught.value.code == "checkpoint.kind"
