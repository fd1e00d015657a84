"""Behaviour of the U-Net at the built-in model's shape and around it."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hummingbird_train.models.attention import TemporalTransformer
from hummingbird_train.models.blocks import TemporalConv, TemporalConvBlock
from hummingbird_train.models.unet import UNetConfig, VideoUNet

SMALL = replace(
    UNetConfig.tiny(), model_channels=16, num_head_channels=8, norm_num_groups=4, context_dim=12
)


def inputs(batch: int, frames: int, height: int = 4, width: int = 4, seed: int = 0) -> Any:
    rng = torch.Generator().manual_seed(seed)
    return (
        torch.randn(batch, 4, frames, height, width, generator=rng),
        torch.randint(1000, (batch,), generator=rng),
        torch.randn(batch, 7, 12, generator=rng),
    ), {
        "timestep_cond": torch.randn(batch, 64, generator=rng),
        "fps": torch.randint(1, 30, (batch,), generator=rng),
    }


@pytest.fixture(scope="module")
def small(vectors: SimpleNamespace) -> VideoUNet:
    torch.manual_seed(0)
    return vectors.randomize(VideoUNet(SMALL)).requires_grad_(False)


@pytest.mark.parametrize(("frames", "height", "width"), [(1, 8, 8), (5, 4, 6), (26, 8, 8)])
def test_any_number_of_frames_and_any_even_size(
    small: VideoUNet, frames: int, height: int, width: int
) -> None:
    args, conditions = inputs(2, frames, height, width)
    output = small(*args, **conditions)
    assert output.shape == args[0].shape
    assert output.isfinite().all()


def test_clips_of_a_batch_do_not_see_each_other(small: VideoUNet) -> None:
    args, conditions = inputs(2, 5)
    together = small(*args, **conditions)
    for i in range(2):
        row = slice(i, i + 1)
        alone = small(*(a[row] for a in args), **{n: c[row] for n, c in conditions.items()})
        torch.testing.assert_close(together[row], alone, atol=1e-5, rtol=1e-5)
    assert args[1][0] != args[1][1]


def test_a_scalar_timestep_holds_for_the_whole_batch(small: VideoUNet) -> None:
    args, conditions = inputs(2, 3)
    scalar = small(args[0], torch.tensor(519), args[2], **conditions)
    rows = small(args[0], torch.tensor([519, 519]), args[2], **conditions)
    torch.testing.assert_close(scalar, rows, atol=1e-6, rtol=1e-6)


def test_a_new_network_predicts_zero() -> None:
    args, conditions = inputs(1, 3)
    assert not VideoUNet(SMALL)(*args, **conditions).any()


def test_images_are_frames_without_each_other(small: VideoUNet) -> None:
    args, conditions = inputs(1, 3)
    indices = torch.tensor([4, 9, 25])
    together = small(*args, **conditions, frame_indices=indices, images=True)
    for i in range(3):
        alone = small(
            args[0][:, :, i : i + 1],
            *args[1:],
            **conditions,
            frame_indices=indices[i : i + 1],
            images=True,
        )
        torch.testing.assert_close(together[:, :, i : i + 1], alone, atol=1e-5, rtol=1e-5)
    clip = small(*args, **conditions, frame_indices=indices)
    assert not torch.allclose(clip, together, atol=1e-3)


def test_images_train_everything_but_the_layers_over_time(vectors: SimpleNamespace) -> None:
    model = vectors.randomize(VideoUNet(SMALL))
    args, conditions = inputs(2, 1)
    model(*args, **conditions, images=True).square().mean().backward()
    over_time = {
        id(p)
        for module in model.modules()
        if isinstance(module, (TemporalTransformer, TemporalConvBlock))
        for p in module.parameters()
    }
    assert {id(p) for p in model.parameters() if p.grad is None} == over_time


def test_every_parameter_learns_from_clips(vectors: SimpleNamespace) -> None:
    model = vectors.randomize(VideoUNet(SMALL)).train()
    args, conditions = inputs(2, 3)
    model(*args, **conditions).square().mean().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_frame_indices_default_to_counting_from_zero(small: VideoUNet) -> None:
    args, conditions = inputs(2, 4)
    default = small(*args, **conditions)
    counted = small(*args, **conditions, frame_indices=torch.arange(4))
    per_clip = small(*args, **conditions, frame_indices=torch.arange(4).expand(2, -1))
    strided = small(*args, **conditions, frame_indices=3 * torch.arange(4))
    torch.testing.assert_close(default, counted, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(default, per_clip, atol=1e-6, rtol=1e-6)
    assert not torch.allclose(default, strided, atol=1e-4)


def test_order_in_time_enters_through_temporal_convolutions_and_frame_embeddings_only(
    vectors: SimpleNamespace,
) -> None:
    config = replace(SMALL, frame_embedding=False, place_planes=False)
    model = vectors.randomize(VideoUNet(config)).requires_grad_(False)
    args, conditions = inputs(1, 5)
    assert not torch.allclose(
        model(args[0].flip(2), *args[1:], **conditions),
        model(*args, **conditions).flip(2),
        atol=1e-4,
    )
    for module in model.modules():
        if isinstance(module, TemporalConv):
            module.weight.copy_((module.weight + module.weight.flip(2)) / 2)
    torch.testing.assert_close(
        model(args[0].flip(2), *args[1:], **conditions),
        model(*args, **conditions).flip(2),
        atol=1e-5,
        rtol=1e-4,
    )


def test_the_prompt_reaches_cross_attention_once_per_clip(small: VideoUNet) -> None:
    seen: list[torch.Size] = []
    hooks = [
        module.register_forward_pre_hook(lambda _, given: seen.append(given[0].shape))
        for name, module in small.named_modules()
        if name.endswith("1.transformer_blocks.0.attn2.to_k")
    ]
    args, conditions = inputs(2, 5)
    small(*args, **conditions)
    for hook in hooks:
        hook.remove()
    assert set(seen) == {torch.Size([2, 7, 12])}
    assert len(seen) == 6


def test_prompt_moves_the_output(small: VideoUNet) -> None:
    args, conditions = inputs(1, 2)
    other = small(args[0], args[1], -args[2], **conditions)
    assert not torch.allclose(small(*args, **conditions), other, atol=1e-4)


def test_timestep_cond_may_be_left_out(small: VideoUNet) -> None:
    args, conditions = inputs(1, 2)
    without = small(*args, fps=conditions["fps"])
    zero = small(*args, fps=conditions["fps"], timestep_cond=torch.zeros(1, 64))
    torch.testing.assert_close(without, zero, atol=1e-6, rtol=1e-6)


def test_temporal_convolution_equals_conv3d() -> None:
    torch.manual_seed(0)
    conv = TemporalConv(6)
    x = torch.randn(2, 6, 5, 12)
    expected = nn.Conv3d.forward(conv, x[..., None]).squeeze(-1)
    torch.testing.assert_close(conv(x), expected, atol=1e-6, rtol=1e-5)
    assert conv.weight.shape == (6, 6, 3, 1, 1)
    assert F.conv3d(x[..., None], conv.weight, conv.bias, padding=(1, 0, 0)).shape[2] == 5


def test_input_layout_in_memory_does_not_matter(small: VideoUNet) -> None:
    args, conditions = inputs(2, 3)

    def strided(x: Tensor) -> Tensor:
        return x.permute(4, 3, 2, 1, 0).contiguous().permute(4, 3, 2, 1, 0)

    expected = small(*args, **conditions)
    torch.testing.assert_close(small(strided(args[0]), *args[1:], **conditions), expected)


def test_levels_without_attention_and_with_more_halvings(vectors: SimpleNamespace) -> None:
    config = replace(SMALL, channel_mult=(1, 2, 2), attention_resolutions=(2,), middle_block=True)
    assert config.size_multiple == 4
    model = vectors.randomize(VideoUNet(config)).requires_grad_(False)
    args, conditions = inputs(1, 2, 8, 12)
    assert model(*args, **conditions).shape == args[0].shape


def test_tiny_preset_has_the_planned_size() -> None:
    with torch.device("meta"):
        model = VideoUNet(UNetConfig.tiny())
    assert sum(p.numel() for p in model.parameters()) == 5_723_338
    assert not [n for n in model.state_dict() if n.startswith(("middle_block", "sinusoids"))]
