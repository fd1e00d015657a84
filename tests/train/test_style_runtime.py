"""A trained style in the runtime: merged when a bundle is opened, it equals its exported merge."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import quick_export
import torch

from hummingbird_runtime import TextToVideoPipeline
from hummingbird_train.base import world_schedule
from hummingbird_train.lora import (
    LoraConfig,
    add_lora,
    changes,
    low_ranks,
    remove_lora,
    save_adapter,
)
from hummingbird_train.world.tokenizer_files import write_tokenizer

PROMPT = "a small red circle moving to the left on a black background"


def draw(bundle: Path, **style: object) -> np.ndarray:
    with TextToVideoPipeline.from_pretrained(bundle, threads=1, **style) as pipe:  # type: ignore[arg-type]
        return pipe(PROMPT, seed=3, output_type="latent")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tokenizer(tmp_path_factory.mktemp("words"))


@pytest.mark.slow
def test_a_style_in_the_runtime_equals_its_exported_merge(tokenizer: Path, tmp_path: Path) -> None:
    unet, vae, text = quick_export.networks()
    options = {"scheduler": world_schedule(), "target": "portable", "precision": "fp32"}
    base = quick_export.export(tmp_path / "base", tokenizer, **options)
    styled = copy.deepcopy(unet)
    add_lora(styled, LoraConfig(rank=4, alpha=2.0), seed=1)
    torch.manual_seed(5)
    for _, change in changes(styled):
        torch.nn.init.normal_(change.up, std=0.05)
    save_adapter(tmp_path / "ink.safetensors", low_ranks(styled), name="ink")
    remove_lora(styled, merge=True)
    merged = quick_export.export(
        tmp_path / "merged", tokenizer, parts=(styled, vae, text), **options
    )
    plain = draw(base)
    applied = draw(base, style=tmp_path / "ink.safetensors")
    expected = draw(merged)
    size = np.abs(expected).max()
    assert np.abs(applied - plain).max() > 0.05 * size
    # products of the merge in float32, summed in another order
    assert np.abs(applied - expected).max() <= 1e-5 * size
    untouched = draw(base, style=tmp_path / "ink.safetensors", style_strength=0.0)
    assert np.array_equal(untouched, plain)
    half = draw(base, style=tmp_path / "ink.safetensors", style_strength=0.5)
    assert not np.allclose(half, plain, atol=1e-3 * size)
    assert not np.allclose(half, applied, atol=1e-3 * size)
