"""LoRA lists and named LoRA files: order, shapes, and the merge against its closed form."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from published_checkpoints import UNET, networks
from safetensors.torch import save_file
from torch import Tensor, nn

from hummingbird_export.convert.container import Checkpoint, TensorInfo, open_checkpoint
from hummingbird_export.convert.doctor import diagnose, expected_shapes, lora_base
from hummingbird_export.convert.lora import Lora, lora_order, read_lora
from hummingbird_export.convert.table import report
from hummingbird_export.convert.variants import VARIANTS
from hummingbird_runtime.errors import InputError
from hummingbird_train.models.unet import UNetConfig

DATA = Path(__file__).parents[2] / "train" / "models" / "data"
PUBLISHED = {
    "hummingbird_07b": UNetConfig.hummingbird_07b(),
    "hummingbird_09b": UNetConfig.hummingbird_09b(),
    "videocrafter2": UNetConfig.videocrafter2(),
}

Shapes = dict[str, tuple[int, ...]]
SHAPES = expected_shapes("unet", UNET)


def updates(shapes: Shapes, rank: int = 4) -> list[Tensor]:
    """[up0, down0, up1, ...] as T2V-Turbo shapes them: 1x1 kernels up, the layer's kernel down."""
    generator = torch.Generator().manual_seed(1)
    tensors = []
    for name in lora_order(shapes):
        out, inside, *kernel = shapes[name]
        r = min(rank, out, inside)
        tensors.append(torch.randn(out, r, *[1] * len(kernel), generator=generator))
        tensors.append(torch.randn(r, inside, *kernel, generator=generator))
    return tensors


def saved_list(path: Path, tensors: list[Tensor]) -> Lora:
    torch.save([nn.Parameter(t) if i % 3 else t for i, t in enumerate(tensors)], path)
    lora = read_lora(open_checkpoint(path))
    assert lora is not None
    return lora


def named(path: Path, tensors: dict[str, Tensor]) -> Lora:
    save_file(tensors, path)
    lora = read_lora(open_checkpoint(path))
    assert lora is not None
    return lora


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_order_is_that_of_the_published_state_dict(name: str):
    lines = (DATA / f"keys_unet_{name}.tsv").read_text().splitlines()
    rows = [line.split("\t") for line in lines if not line.startswith("#")]
    # Linear, Conv2d and Conv3d weights; a Conv1d has 3 dimensions
    expected = [k for k, dims in rows if k.endswith(".weight") and dims.count("x") in (1, 3, 4)]
    order = lora_order(expected_shapes("unet", PUBLISHED[name]))
    assert order == expected
    ours = [n for n in expected_shapes("unet", PUBLISHED[name]) if n in set(order)]
    assert order != ours  # our modules register in another order, so this test can fail


def test_a_list_goes_to_every_layer_in_order(tmp_path: Path):
    tensors = updates(SHAPES)
    lora = saved_list(tmp_path / "unet_lora.pt", tensors)
    targets = lora.targets(SHAPES)
    assert list(targets) == lora_order(SHAPES)
    assert "time_cond_proj.weight" in targets
    assert "init_attn.0.proj_in.weight" not in targets  # a Conv1d
    state = networks()["unet"].state_dict()
    for i, (name, pair) in enumerate(targets.items()):
        up, down = tensors[2 * i], tensors[2 * i + 1]
        merged = lora.merge(state[name], pair, 0.5)
        if state[name].ndim == 2:
            expected = state[name].double() + 0.5 * up.double() @ down.double()
        else:
            expected = state[name].double() + 0.5 * torch.einsum(
                "or,ri...->oi...", up.flatten(1).double(), down.double()
            )
        # float32 sums of up to 64 products of order 1
        torch.testing.assert_close(merged, expected.float(), atol=2e-5, rtol=1e-5)


def test_a_merged_convolution_is_the_sum_of_both_paths(tmp_path: Path):
    """What training computed: conv(x) + s * up(down(x))."""
    lora = saved_list(tmp_path / "unet_lora.pt", updates(SHAPES))
    targets = lora.targets(SHAPES)
    convolutions = {2: torch.nn.functional.conv2d, 3: torch.nn.functional.conv3d}
    for name in (
        "input_blocks.0.0.weight",
        "input_blocks.1.0.temopral_conv.conv1.2.weight",
    ):
        weight, pair = networks()["unet"].state_dict()[name], targets[name]
        conv = convolutions[weight.ndim - 2]
        x = torch.randn(1, weight.shape[1], *[5] * (weight.ndim - 2))
        up, down = lora.checkpoint.read(pair.up), lora.checkpoint.read(pair.down)
        both = conv(x, weight) + 0.7 * conv(conv(x, down), up)
        torch.testing.assert_close(conv(x, lora.merge(weight, pair, 0.7)), both, atol=1e-4, rtol=0)


def test_named_files_take_prefix_alpha_and_flat_kernels(tmp_path: Path):
    conv, linear = "input_blocks.0.0", "time_embed.0"
    out, inside, *kernel = SHAPES[f"{conv}.weight"]
    torch.manual_seed(0)
    up, down = torch.randn(out, 3), torch.randn(3, inside * 9)
    lora = named(
        tmp_path / "style.safetensors",
        {
            f"model.diffusion_model.{conv}.lora_up.weight": up,
            f"model.diffusion_model.{conv}.lora_down.weight": down,
            f"model.diffusion_model.{conv}.alpha": torch.tensor(6.0),
            f"{linear}.lora_up.weight": torch.randn(SHAPES[f"{linear}.weight"][0], 2).half(),
            f"{linear}.lora_down.weight": torch.randn(2, SHAPES[f"{linear}.weight"][1]).half(),
        },
    )
    targets = lora.targets(SHAPES)
    assert set(targets) == {f"{conv}.weight", f"{linear}.weight"}
    weight = torch.randn(out, inside, *kernel)
    expected = weight + 0.25 * (6.0 / 3) * (up @ down).reshape(weight.shape)
    torch.testing.assert_close(lora.merge(weight, targets[f"{conv}.weight"], 0.25), expected)


def test_strength_0_changes_nothing(tmp_path: Path):
    lora = saved_list(tmp_path / "unet_lora.pt", updates(SHAPES))
    name, pair = next(iter(lora.targets(SHAPES).items()))
    weight = networks()["unet"].state_dict()[name]
    assert torch.equal(lora.merge(weight, pair, 0.0), weight)


def code_of(lora: Lora, shapes: Shapes) -> tuple[str, str]:
    with pytest.raises(InputError) as caught:
        lora.targets(shapes)
    assert not lora.fits(shapes)
    return caught.value.code, str(caught.value)


def test_a_base_without_guidance_embedding_is_named(tmp_path: Path):
    lora = saved_list(tmp_path / "unet_lora.pt", updates(SHAPES))
    base = expected_shapes("unet", replace(UNET, time_cond_proj_dim=None))
    code, text = code_of(lora, base)
    assert code == "lora.base"
    assert "time_cond_proj" in text


def test_lists_of_other_models_are_refused(tmp_path: Path):
    tensors = updates(SHAPES)
    code, text = code_of(saved_list(tmp_path / "short.pt", tensors[:-2]), SHAPES)
    assert code == "lora.layers"
    assert f"got {len(tensors) // 2 - 1} pairs, expected {len(tensors) // 2}" in text
    code, text = code_of(saved_list(tmp_path / "turned.pt", tensors[2:] + tensors[:2]), SHAPES)
    assert code == "lora.shapes"
    assert "time_embed.0.weight" in text
    swapped = [t for pair in zip(tensors[1::2], tensors[::2], strict=True) for t in pair]
    assert code_of(saved_list(tmp_path / "swapped.pt", swapped), SHAPES)[0] == "lora.shapes"


def test_a_list_in_the_order_of_our_modules_is_refused_by_its_shapes(tmp_path: Path):
    """Feed-forwards and attentions have other shapes, so a shifted list cannot slip through."""
    names = lora_order(SHAPES)
    pairs = dict(zip(names, zip(*[iter(updates(SHAPES))] * 2, strict=True), strict=True))
    ours = [tensor for name in SHAPES if name in pairs for tensor in pairs[name]]
    assert code_of(saved_list(tmp_path / "ours.pt", ours), SHAPES)[0] == "lora.shapes"


def test_named_updates_must_be_whole_and_known(tmp_path: Path):
    up, down = torch.ones(128, 2), torch.ones(2, 32)
    lora = named(tmp_path / "x", {"nowhere.lora_up.weight": up, "nowhere.lora_down.weight": down})
    code, text = code_of(lora, SHAPES)
    assert (code, "nowhere" in text) == ("lora.layers", True)
    for tensors in (
        {"time_embed.0.lora_up.weight": up},
        {"time_embed.0.lora_down.weight": down},
        {
            "time_embed.0.lora_up.weight": up,
            "time_embed.0.lora_down.weight": down,
            "time_embed.2.alpha": torch.ones(()),
        },
    ):
        save_file(tensors, tmp_path / "half.safetensors")
        with pytest.raises(InputError, match="other half") as caught:
            read_lora(open_checkpoint(tmp_path / "half.safetensors"))
        assert caught.value.code == "lora.pairs"
    torch.save([torch.ones(2, 2)] * 3, tmp_path / "odd.pt")
    with pytest.raises(InputError, match="list of 3"):
        read_lora(open_checkpoint(tmp_path / "odd.pt"))
    torch.save([torch.ones(2, 2, dtype=torch.int64)] * 2, tmp_path / "ints.pt")
    with pytest.raises(InputError) as caught:
        read_lora(open_checkpoint(tmp_path / "ints.pt"))
    assert caught.value.code == "checkpoint.dtype"


def test_a_model_is_no_lora(tmp_path: Path):
    save_file({"time_embed.0.weight": torch.ones(2, 2)}, tmp_path / "model.safetensors")
    assert read_lora(open_checkpoint(tmp_path / "model.safetensors")) is None


@pytest.mark.parametrize("variant", [v for v in VARIANTS if v.published], ids=lambda v: v.name)
def test_the_doctor_names_the_base_of_a_list(tmp_path: Path, variant):
    infos = {}
    for i, name in enumerate(lora_order(expected_shapes("unet", variant.unet))):
        out, inside, *kernel = expected_shapes("unet", variant.unet)[name]
        rank = min(64, out, inside)
        infos[str(2 * i)] = TensorInfo((out, rank, *[1] * len(kernel)), "float32")
        infos[str(2 * i + 1)] = TensorInfo((rank, inside, *kernel), "float32")
    path = tmp_path / "unet_lora.pt"
    path.write_bytes(b"")
    found = diagnose([Checkpoint(path, "list of tensors", infos, lambda _: torch.empty(0))])
    assert found.lora is not None
    assert lora_base(found.lora) is variant
    text = report(found)
    assert f"LoRA for {variant.title}" in text
    assert f"{len(infos) // 2} updates of ranks 4 to 64, in a list without names" in text
