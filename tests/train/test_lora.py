"""Low-rank changes: what is trained equals what is merged, on every kind of layer of the U-Net."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hummingbird_runtime.errors import InputError, UsageError
from hummingbird_runtime.safetensors import read_safetensors
from hummingbird_train.lora import (
    TARGETS,
    LoraConfig,
    LowRank,
    add_lora,
    changes,
    load_adapter,
    low_ranks,
    merge_adapter,
    remove_lora,
    save_adapter,
    set_strength,
)
from hummingbird_train.models.unet import UNetConfig, VideoUNet

CONFIG = UNetConfig(
    model_channels=8,
    channel_mult=(1, 2),
    num_res_blocks=1,
    attention_resolutions=(1, 2),
    num_head_channels=4,
    init_attn_heads=2,
    context_dim=8,
    time_cond_proj_dim=6,
    temporal_dropout=0.0,
    norm_num_groups=2,
    frame_embedding=True,
)


def network(seed: int = 0) -> VideoUNet:
    """Every layer random, zero-initialised ones too: a change of any must show."""
    torch.manual_seed(seed)
    unet = VideoUNet(CONFIG).eval()
    for parameter in unet.parameters():
        nn.init.normal_(parameter, std=0.2)
    return unet


def randomise(unet: VideoUNet) -> None:
    torch.manual_seed(9)
    for _, change in changes(unet):
        nn.init.normal_(change.up, std=0.3)


def forward(unet: VideoUNet) -> Tensor:
    g = torch.Generator().manual_seed(1)
    return unet(
        torch.randn(2, 4, 3, 4, 4, generator=g),
        torch.tensor([999, 20]),
        torch.randn(2, 5, 8, generator=g),
        timestep_cond=torch.randn(2, 6, generator=g),
        fps=torch.tensor([8, 4]),
    )


@torch.no_grad()
def run(unet: VideoUNet) -> Tensor:
    return forward(unet)


def test_a_new_change_is_none_and_strength_0_is_the_base_bit_for_bit() -> None:
    unet = network()
    base = run(unet)
    add_lora(unet, LoraConfig(rank=3))
    assert torch.equal(run(unet), base)  # up starts at zero
    randomise(unet)
    assert (run(unet) - base).abs().max() > 0.1
    set_strength(unet, 0.0)
    assert torch.equal(run(unet), base)


def test_every_layer_counts_and_is_merged_as_it_was_trained(tmp_path: Path) -> None:
    """Temporal convolutions and 1-tap projections use their weights in forms of their own."""
    base, unet = network(), network()
    layers = {
        name for name, module in base.named_modules()
        if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d)
    }  # fmt: skip
    assert set(add_lora(unet, LoraConfig(rank=2, alpha=5.0))) == layers
    torch.manual_seed(3)
    output = forward(unet)
    (output * torch.randn(output.shape)).sum().backward()
    silent = [n for n, c in changes(unet) if c.up.grad is None or not c.up.grad.abs().max()]
    assert not silent
    randomise(unet)
    save_adapter(tmp_path / "style.safetensors", low_ranks(unet), name="ink")
    for strength in (1.0, 0.35):
        set_strength(unet, strength)
        merged = copy.deepcopy(base)
        merge_adapter(merged, tmp_path / "style.safetensors", strength)
        # equal sums of float32 in another order, through about 30 layers
        torch.testing.assert_close(run(merged), run(unet), rtol=1e-4, atol=1e-4)
    set_strength(unet, 1.0)
    trained = run(unet)
    remove_lora(unet, merge=True)
    assert set(unet.state_dict()) == set(base.state_dict())
    torch.testing.assert_close(run(unet), trained, rtol=1e-4, atol=1e-4)


def test_removing_without_merging_gives_the_base_back() -> None:
    unet = network()
    before = {n: t.clone() for n, t in unet.state_dict().items()}
    add_lora(unet, LoraConfig(rank=2))
    randomise(unet)
    remove_lora(unet, merge=False)
    assert all(torch.equal(before[n], t) for n, t in unet.state_dict().items())


def test_the_change_is_the_formula() -> None:
    unet = network()
    add_lora(unet, LoraConfig(rank=4, alpha=6.0, targets=r"^input_blocks\.1\.0\.in_layers\.2$"))
    ((name, change),) = changes(unet)
    randomise(unet)
    layer = unet.get_submodule(name)
    original = layer.parametrizations.weight.original.detach().double().numpy()
    down, up = (p.detach().double().numpy() for p in (change.down, change.up))
    set_strength(unet, 0.5)
    expected = original + 0.5 * 6.0 / 4 * np.einsum("or,r...->o...", up, down)
    np.testing.assert_allclose(layer.weight.detach().numpy(), expected, atol=1e-6)


def test_only_factors_are_trained() -> None:
    unet = network()
    add_lora(unet, LoraConfig(rank=2, targets="attention"))
    trained = {name for name, p in unet.named_parameters() if p.requires_grad}
    assert trained
    assert all(name.rsplit(".", 1)[1] in ("down", "up") for name in trained)
    unet.train()(
        torch.randn(1, 4, 2, 4, 4),
        torch.tensor(5),
        torch.randn(1, 5, 8),
        timestep_cond=torch.randn(1, 6),
        fps=torch.tensor([8]),
    ).sum().backward()
    for name, parameter in unet.named_parameters():
        assert (parameter.grad is not None) == (name in trained), name


def test_spatial_targets_leave_time_alone() -> None:
    unet = network()
    named = add_lora(unet, LoraConfig(targets="spatial"))
    base = run(unet)
    randomise(unet)
    assert not torch.equal(run(unet), base)
    temporal = ("temopral_conv", "init_attn", "time_embed", "fps_embedding", "frame_embedding")
    assert not [name for name in named if any(part in name for part in temporal)]
    kinds = {type(unet.get_submodule(n.rsplit(".proj_in", 1)[0])).__name__
             for n in named if n.endswith("proj_in")}  # fmt: skip
    assert kinds == {"SpatialTransformer"}


def test_a_rank_above_a_layers_sides_is_cut_and_alpha_follows() -> None:
    unet = network()
    add_lora(unet, LoraConfig(rank=1000, targets=r"^out\.2$"))
    ((_, change),) = changes(unet)
    assert change.down.shape == (4, 8, 3, 3)
    assert change.alpha == 4.0


def test_dropout_leaves_components_out_in_training_only() -> None:
    unet = network()
    add_lora(unet, LoraConfig(rank=8, dropout=0.5, targets="attention"))
    randomise(unet)
    assert torch.equal(run(unet), run(unet))
    unet.train()
    torch.manual_seed(0)
    one, two = run(unet), run(unet)
    assert not torch.equal(one, two)


def test_equal_seeds_start_equal_and_the_global_generator_is_left_alone() -> None:
    torch.manual_seed(4)
    expected = torch.rand(3)
    one, two, three = network(), network(), network()
    torch.manual_seed(4)
    add_lora(one, LoraConfig(), seed=1)
    assert torch.equal(torch.rand(3), expected)
    add_lora(two, LoraConfig(), seed=1)
    add_lora(three, LoraConfig(), seed=2)
    first, second, third = (dict(changes(u)) for u in (one, two, three))
    assert all(torch.equal(first[n].down, second[n].down) for n in first)
    assert not any(torch.equal(first[n].down, third[n].down) for n in first)


def test_the_file_is_the_runtimes_format(tmp_path: Path) -> None:
    unet = network()
    add_lora(unet, LoraConfig(rank=2))
    randomise(unet)
    pairs = low_ranks(unet)
    save_adapter(tmp_path / "a.safetensors", pairs, name="ink")
    file = read_safetensors(tmp_path / "a.safetensors")
    assert file.metadata == {"format": "hummingbird-adapter", "base": "", "name": "ink"}
    assert len(file.tensors) == 3 * len(pairs)
    back = load_adapter(tmp_path / "a.safetensors")
    assert back.keys() == pairs.keys()
    for name, pair in pairs.items():
        assert torch.equal(back[name].down, pair.down)
        assert torch.equal(back[name].up, pair.up)
        assert back[name].alpha == pair.alpha


def test_averages_are_saved_in_place_of_live_factors() -> None:
    unet = network()
    add_lora(unet, LoraConfig(rank=2, targets=r"^out\.2$"))
    ((name, change),) = changes(unet)
    average = {f"unet.{name}.parametrizations.weight.0.up": torch.full_like(change.up, 7.0)}
    pair = low_ranks(unet, average, prefix="unet.")[name]
    assert (pair.up == 7.0).all()
    assert torch.equal(pair.down, change.down)


@pytest.mark.parametrize("targets", ["nowhere", "("])
def test_targets_that_name_nothing_are_refused(targets: str) -> None:
    with pytest.raises(UsageError) as caught:
        add_lora(network(), LoraConfig(targets=targets))
    assert caught.value.code == "lora.targets"
    assert "nowhere" not in TARGETS


@pytest.mark.parametrize(
    "options", [{"rank": 0}, {"alpha": 0.0}, {"alpha": float("inf")}, {"dropout": 1.0}]
)
def test_sizes_without_meaning_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(UsageError) as caught:
        LoraConfig(**options)  # type: ignore[arg-type]
    assert caught.value.code == "lora.options"


def test_files_that_do_not_fit_change_nothing(tmp_path: Path) -> None:
    unet = network()
    before = {n: t.clone() for n, t in unet.state_dict().items()}
    good = LowRank(torch.ones(2, 8, 3, 3), torch.ones(4, 2, 1, 1))
    path = tmp_path / "a.safetensors"
    for pairs in (
        {"out.2": good, "nowhere": good},
        {"out.2": good, "time_embed.0": good},
        {"out.2": good, "input_blocks": good},
    ):
        save_adapter(path, pairs)
        with pytest.raises(InputError) as caught:
            merge_adapter(unet, path)
        assert caught.value.code == "adapter.mismatch"
    assert all(torch.equal(before[n], t) for n, t in unet.state_dict().items())
    with pytest.raises(UsageError) as usage:
        save_adapter(path, {"out.2": LowRank(torch.ones(2, 3), torch.ones(3, 4))})
    assert usage.value.code == "adapter.factors"
    with pytest.raises(UsageError):
        save_adapter(path, {})
    with pytest.raises(UsageError):
        save_adapter(path, {"out.2": LowRank(torch.full((1, 2), torch.nan), torch.ones(2, 1))})
