"""The estimate: counts that are known, orders that must hold, the table and its options."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from hummingbird_runtime.errors import InputError, UsageError
from hummingbird_train import estimate as module
from hummingbird_train.estimate import Estimate, estimate, lora_parameters, main
from hummingbird_train.lora import LoraConfig, add_lora
from hummingbird_train.meta_trace import trace, trace_unet
from hummingbird_train.models.autoencoder import AutoencoderConfig
from hummingbird_train.models.text_encoder import TextConfig
from hummingbird_train.models.unet import UNetConfig, VideoUNet

RECIPE = Path(__file__).parents[2] / "train" / "recipes" / "shapes.toml"
TINY = UNetConfig.tiny()
PUBLISHED = {
    "vc2": (UNetConfig.videocrafter2(), 1_413_284_420, 20.46),
    "09b": (UNetConfig.hummingbird_09b(), 945_209_220, 13.31),
    "07b": (UNetConfig.hummingbird_07b(), 772_091_780, 12.95),
}
"""Configuration, parameters, TFLOP of one pass over 26 x 40 x 64 latents (DESIGN, section 5)."""


def tiny(**changes: object) -> Estimate:
    options = {
        "frames": 8, "height": 64, "width": 64, "batch": 2, "stage": "distill",
        "vae_config": AutoencoderConfig.tiny(), "text_config": TextConfig.tiny(75),
    }  # fmt: skip
    return estimate(TINY, TINY, **{**options, **changes})


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("vc2", marks=pytest.mark.slow),
        pytest.param("09b", marks=pytest.mark.slow),
        "07b",
    ],
)
def test_published_networks_are_counted_exactly(name: str) -> None:
    config, parameters, tflop = PUBLISHED[name]
    found = trace_unet(config, 26, 40, 64, torch.bfloat16)
    assert found.parameters == parameters
    assert found.flop / 1e12 == pytest.approx(tflop, rel=0.005)  # the table has four digits


@pytest.mark.slow
def test_four_cards_hold_the_published_student() -> None:
    """The claim: full distillation of 0.7 B from 1.4 B at 320 x 512 and 16 frames."""
    result = estimate(
        UNetConfig.hummingbird_07b(), UNetConfig.videocrafter2(), 16, 320, 512, 1, "distill",
        sharding="fsdp2",
    )  # fmt: skip
    assert result.parameters == result.trainable == 772_091_780
    assert result.teacher_parameters == 1_413_284_420
    assert result.fits["A100 80GB"]
    assert result.fits["MI250 die 64GB"]
    assert result.memory["gradients"] == pytest.approx(4 * 772_091_780 / 4 / 1e9)
    assert result.memory["teacher's weights"] == pytest.approx(2 * 1_413_284_420 / 1e9)


@pytest.mark.parametrize("stage", ["distill", "consistency", "style"])
@pytest.mark.parametrize("checkpointing", [True, False])
def test_more_frames_and_larger_batches_never_cost_less(stage: str, checkpointing: bool) -> None:
    for changes in ([{"frames": n} for n in (1, 4, 9)], [{"batch": n} for n in (1, 2, 7)]):
        found = [tiny(stage=stage, checkpointing=checkpointing, **c) for c in changes]
        seconds = [r.seconds_per_step["H100 80GB"] for r in found]
        memory = [r.memory_per_gpu for r in found]
        assert seconds == sorted(set(seconds))
        assert memory == sorted(set(memory))


def test_work_follows_from_the_stage() -> None:
    forward = trace_unet(TINY, 8, 8, 8, torch.bfloat16).flop / 1e12
    encoder = tiny().work["encoder"]
    for stage, passes in (("distill", 3 + 2), ("consistency", 3 + 2 + 1), ("style", 3)):
        found = tiny(stage=stage, checkpointing=False).tflop_per_sample
        assert found == pytest.approx(passes * forward + encoder)
        assert tiny(stage=stage).tflop_per_sample == pytest.approx(found + forward)


def test_savings_save() -> None:
    plain = tiny(checkpointing=False)
    item = "student's activations"
    assert tiny(checkpointing=True).memory[item] < 0.5 * plain.memory[item]
    assert tiny(precision="fp32", checkpointing=False).memory[item] == pytest.approx(
        2 * plain.memory[item], rel=0.01
    )
    sharded = tiny(sharding="fsdp2")
    assert sharded.memory["Adam's moments"] == plain.memory["Adam's moments"] / 4
    lora = tiny(lora_rank=4)
    assert lora.trainable < 0.3 * lora.parameters
    assert lora.memory["gradients"] == pytest.approx(4 * lora.trainable / 1e9)


def test_lora_is_counted_as_it_is_built() -> None:
    model = VideoUNet(TINY)
    add_lora(model, LoraConfig(rank=5))
    built = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert lora_parameters(TINY, 5) == built


def test_a_trace_counts_what_autograd_keeps() -> None:
    layers = nn.Sequential(nn.Linear(6, 10), nn.GELU(), nn.Linear(10, 2)).to("meta")
    found = trace(layers, torch.empty(4, 6, device="meta"))
    # GELU keeps its input, each linear layer its own; the last one's output is kept by nobody
    assert found.kept == 4 * (4 * 6 + 4 * 10 + 4 * 10)
    assert found.flop == 2 * 4 * (6 * 10 + 10 * 2)
    assert found.parameters == 6 * 10 + 10 + 10 * 2 + 2


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"frames": 0}, "frames 0"),
        ({"batch": 0}, "batch 0"),
        ({"height": 60}, "size 60x64"),
        ({"stage": "prune"}, "stage 'prune'"),
        ({"precision": "int8"}, "precision 'int8'"),
        ({"lora_rank": -1}, "lora_rank -1"),
    ],
)
def test_options_out_of_range_are_named(changes: dict[str, object], named: str) -> None:
    with pytest.raises(UsageError, match=named) as caught:
        tiny(**changes)
    assert caught.value.code == "estimate.option"


def test_a_teacher_is_asked_for() -> None:
    with pytest.raises(UsageError, match="without a teacher"):
        estimate(TINY, None, 8, 64, 64, 1, "distill")


def test_the_verb_prints_a_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(RECIPE), "--batch", "3", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["parameters"] == printed["trainable"] == 5_723_338
    assert printed["batch"] == 3
    assert printed["memory_per_gpu"] == pytest.approx(sum(printed["memory"].values()))
    assert main([str(RECIPE)]) == 0
    table = capsys.readouterr().out
    assert "5,723,338 parameters" in table
    assert all(f"| {gpu} |" in table for gpu in module.GPUS)


def test_a_recipe_without_a_network_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text("seed = 1\n", "utf-8")
    with pytest.raises(InputError) as caught:
        main([str(path)])
    assert caught.value.code == "recipe.keys"
