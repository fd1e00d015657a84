"""Block importance: bypassing is local and undone, damage is a paired loss difference, reports."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from hummingbird_runtime.errors import UsageError
from hummingbird_train.base import world_schedule
from hummingbird_train.latents import LatentCache, build_cache
from hummingbird_train.models.autoencoder import AutoencoderConfig, AutoencoderKL
from hummingbird_train.models.text_encoder import TextConfig, TextEncoder
from hummingbird_train.models.unet import UNetConfig, VideoUNet
from hummingbird_train.models.weights import count_parameters, save_model
from hummingbird_train.pruning.growth import grow
from hummingbird_train.pruning.importance import (
    BlockDamage,
    Importance,
    block_importance,
    bypassed,
    main,
    measured_blocks,
    plot,
    validation_batches,
)
from hummingbird_train.world.tokenizer_files import VOCABULARY, write_tokenizer

STUDENT = replace(
    UNetConfig.tiny(),
    model_channels=8,
    num_head_channels=4,
    init_attn_heads=2,
    norm_num_groups=2,
    context_dim=8,
    time_cond_proj_dim=8,
)
CONFIG = replace(STUDENT, num_res_blocks=2, middle_block=True)


def random_unet(config: UNetConfig) -> VideoUNet:
    torch.manual_seed(1)
    unet = VideoUNet(config)
    with torch.no_grad():
        for parameter in unet.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    return unet.eval()


class Clips:
    """Random latents with captions."""

    scaling_factor = 1.0
    fps = 8

    def __len__(self) -> int:
        return 4

    def sample(
        self, rng: np.random.Generator, count: int, frames: int, stride: int
    ) -> tuple[Tensor, np.ndarray, list[str]]:
        x = rng.standard_normal((count, 4, frames, 8, 8)).astype(np.float32)
        index = np.tile(np.arange(frames) * stride, (count, 1))
        return torch.from_numpy(x), index, [f"clip {i}" for i in rng.integers(9, size=count)]


def contexts(prompts: Sequence[str]) -> Tensor:
    rows = [np.random.default_rng(len(p)).standard_normal((3, 8)) for p in prompts]
    return torch.from_numpy(np.stack(rows)).float()


@pytest.fixture(scope="module")
def batches() -> list:
    return validation_batches(
        Clips(), contexts, world_schedule(), 8, batches=3, batch=2, frames=2, seed=5
    )


def test_batches_repeat_and_differ(batches: list) -> None:
    again = validation_batches(
        Clips(), contexts, world_schedule(), 8, batches=3, batch=2, frames=2, seed=5
    )
    for a, b in zip(batches, again, strict=True):
        assert torch.equal(a.arguments["sample"], b.arguments["sample"])
        assert torch.equal(a.target, b.target)
    assert not torch.equal(batches[0].target, batches[1].target)


@torch.no_grad()
def test_a_bypass_is_undone_and_changes_the_function(batches: list) -> None:
    unet = random_unet(CONFIG)
    whole = unet(**batches[0].arguments)
    state = list(unet.state_dict())
    seen = {}
    for path in measured_blocks(unet):
        with bypassed(unet, path) as how:
            seen[path] = how
            assert not torch.equal(unet(**batches[0].arguments), whole), path
        assert torch.equal(unet(**batches[0].arguments), whole)
        assert list(unet.state_dict()) == state
    width_changes = {"input_blocks.4", "output_blocks.3"}
    assert {path for path, how in seen.items() if how == "1x1"} == width_changes
    assert len(seen) == 4 + 1 + 6


def test_only_blocks_can_be_bypassed() -> None:
    unet = random_unet(CONFIG)
    with pytest.raises(UsageError) as caught, bypassed(unet, "input_blocks.3"):
        pass
    assert caught.value.code == "pruning.block"


def test_blocks_that_do_nothing_have_no_damage(batches: list) -> None:
    grown = grow(random_unet(STUDENT), CONFIG)
    found = block_importance(grown, batches)
    damage = {b.path: b.increase for b in found.blocks}
    idle = {"input_blocks.2", "input_blocks.5", "middle_block", "output_blocks.0",
            "output_blocks.4"}  # fmt: skip
    assert all(damage[path] == 0.0 for path in idle)
    assert all(abs(value) > 1e-6 for path, value in damage.items() if path not in idle)
    sizes = {b.path: b.parameters for b in found.blocks}
    assert sizes["middle_block"] == count_parameters(grown.middle_block)


@torch.no_grad()
def test_damage_is_the_paired_difference_of_losses(batches: list) -> None:
    unet = random_unet(CONFIG)
    found = block_importance(unet, batches)

    def losses() -> np.ndarray:
        return np.array([float((unet(**b.arguments) - b.target).square().mean()) for b in batches])

    whole = losses()
    assert found.loss == pytest.approx(whole.mean(), rel=1e-6)
    block = next(b for b in found.blocks if b.path == "output_blocks.2")
    with bypassed(unet, block.path):
        difference = losses() - whole
    # losses are float32 and nearly equal: their difference keeps about five digits
    assert block.increase == pytest.approx(difference.mean(), rel=1e-4, abs=1e-6)
    assert block.error == pytest.approx(difference.std(ddof=1) / math.sqrt(3), rel=1e-3, abs=1e-6)


def test_no_batches_are_refused() -> None:
    with pytest.raises(UsageError) as caught:
        block_importance(random_unet(STUDENT), [])
    assert caught.value.code == "pruning.no_batches"


def test_table_and_plot_show_every_block(tmp_path: Path) -> None:
    blocks = (
        BlockDamage("input_blocks.1", "1x1", 1200, 0.5, 0.01),
        BlockDamage("input_blocks.2", "identity", 1000, 0.25, math.nan),
        BlockDamage("middle_block", "identity", 5000, -0.0625, 0.002),
    )
    importance = Importance(0.125, blocks)
    rows = [line for line in importance.markdown().splitlines() if "_block" in line]
    assert [row.split(" | ")[0].strip("| ") for row in rows] == [
        "middle_block", "input_blocks.2", "input_blocks.1"
    ]  # fmt: skip
    assert "| 5,000 | -0.06250 | 0.00200 | -50.0% |" in rows[0]
    plot(importance, tmp_path / "a.png")
    pixels = np.asarray(Image.open(tmp_path / "a.png").convert("RGB")).astype(int)
    blue = (np.abs(pixels - (70, 130, 190)).sum(2) == 0).sum()
    grey = (np.abs(pixels - (190, 200, 210)).sum(2) == 0).sum()
    # bars are as long as their values: grey 0.5; blue 0.25 + 0.0625, less what the marks cover
    assert grey / blue == pytest.approx(0.5 / 0.3125, rel=0.05)


def test_the_verb_measures_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    for name in ("vae", "base"):
        (run / name).mkdir(parents=True)
    write_tokenizer(run / "tokenizer")
    vae = AutoencoderConfig(
        stem="pixel_shuffle", norm="none", double_z=False, encoder_channels=8, decoder_channels=8
    )
    text = TextConfig(
        vocab_size=len(VOCABULARY), max_length=24, width=8, heads=2, layers=2,
        published_extras=False,
    )  # fmt: skip
    torch.manual_seed(0)
    save_model(run / "vae" / "vae.safetensors", AutoencoderKL(vae), vae)
    save_model(run / "base" / "text.safetensors", TextEncoder(text), text)
    save_model(run / "base" / "unet.safetensors", random_unet(STUDENT), STUDENT)
    build_cache(run / "vae" / "vae.safetensors", run / "latents", clips=2, seed=1, tier=1)
    options = ["--run", str(run), "--batches", "2", "--batch", "2", "--num-frames", "2"]
    assert main([*options, "-o", str(tmp_path / "report")]) == 0
    table = capsys.readouterr().out
    assert table.count("put_blocks.") == 6
    assert (tmp_path / "report" / "importance.md").read_text("utf-8") == table
    numbers = json.loads((tmp_path / "report" / "importance.json").read_text("utf-8"))
    assert len(numbers["blocks"]) == 6
    assert (tmp_path / "report" / "importance.png").stat().st_size > 1000
    # other clips than the training cache's, brought to its scale
    assert LatentCache(run / "validation").scenes[:2] != LatentCache(run / "latents").scenes
    with pytest.raises(UsageError):
        main([*options[:-1], "26", "--stride", "2"])
