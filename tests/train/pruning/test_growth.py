"""Growing is exact: a larger network of identities computes what the smaller one does."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from hummingbird_runtime.errors import UsageError
from hummingbird_train.models.unet import UNetConfig, VideoUNet
from hummingbird_train.models.weights import count_parameters
from hummingbird_train.pruning.growth import grow
from hummingbird_train.pruning.plan import block_of, block_shapes, count, plan
from hummingbird_train.pruning.surgery import prune

TINY = replace(
    UNetConfig.tiny(),
    model_channels=8,
    num_head_channels=4,
    init_attn_heads=2,
    norm_num_groups=2,
    context_dim=6,
    time_cond_proj_dim=8,
)
FOUR = replace(TINY, channel_mult=(1, 2, 4, 4), attention_resolutions=(1, 2, 4))


def random_unet(config: UNetConfig) -> VideoUNet:
    torch.manual_seed(1)
    unet = VideoUNet(config)
    with torch.no_grad():
        for parameter in unet.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    return unet.eval()


def run(unet: VideoUNet, *, images: bool = False) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return unet(
        torch.randn(2, 4, 1 if images else 3, 8, 8, generator=generator),
        torch.tensor([999, 19]),
        torch.randn(2, 5, unet.config.context_dim, generator=generator),
        timestep_cond=torch.randn(2, 8, generator=generator),
        fps=torch.tensor([8, 2]),
        images=images,
    )


@pytest.mark.parametrize("images", [False, True], ids=["clips", "images"])
@pytest.mark.parametrize(
    "teacher",
    [
        replace(TINY, num_res_blocks=2, middle_block=True),
        replace(TINY, num_res_blocks=3),
        replace(TINY, middle_block=True),
        replace(FOUR, num_res_blocks=2, middle_block=True),
    ],
    ids=["the tiny teacher", "three blocks", "a middle block alone", "the published levels"],
)
@torch.no_grad()
def test_the_grown_network_is_the_same_function(teacher: UNetConfig, images: bool) -> None:
    student = random_unet(FOUR if len(teacher.channel_mult) == 4 else TINY)
    grown = grow(student, teacher).eval()
    assert grown.config == teacher
    assert count_parameters(grown) > count_parameters(student)
    expected = run(student, images=images)
    assert expected.std() > 0.01
    # New blocks add products with zero, and zero: not a bit changes.
    assert torch.equal(run(grown, images=images), expected)


def test_pruning_undoes_growing() -> None:
    student = random_unet(TINY)
    teacher = replace(TINY, num_res_blocks=2, middle_block=True)
    back = prune(grow(student, teacher), plan(teacher, TINY))
    assert all(torch.equal(back[n], t) for n, t in student.state_dict().items())


def test_every_new_block_learns_from_the_first_step() -> None:
    student = random_unet(TINY)
    teacher = replace(TINY, num_res_blocks=2, middle_block=True)
    grown = grow(student, teacher)
    run(grown).square().mean().backward()
    new = plan(teacher, TINY).dropped
    moved = {
        block_of(name)
        for name, p in grown.named_parameters()
        if p.grad is not None and p.grad.any()
    }
    assert new
    assert set(new) <= moved


def test_growing_is_repeatable_and_leaves_the_global_generator_alone() -> None:
    student = random_unet(TINY)
    teacher = replace(TINY, num_res_blocks=2)
    torch.manual_seed(9)
    first = grow(student, teacher, seed=3)
    drawn = torch.rand(1)
    torch.manual_seed(9)
    assert torch.equal(torch.rand(1), drawn)
    second, third = grow(student, teacher, seed=3), grow(student, teacher, seed=4)
    state, same, other = first.state_dict(), second.state_dict(), third.state_dict()
    assert all(torch.equal(state[n], same[n]) for n in state)
    assert any(not torch.equal(state[n], other[n]) for n in state)


def test_a_plan_that_shifts_skips_has_no_exact_inverse() -> None:
    teacher = replace(TINY, channel_mult=(1, 1), num_res_blocks=2)
    student = replace(teacher, num_res_blocks=1)
    unet = random_unet(student)
    # Level 1 keeps its second block down: the first would have to stand before it as an identity,
    # and the block up that read the kept one's skip would read the identity's.
    pruning = plan(teacher, student, keep={"input_blocks.5", "output_blocks.1"})
    with pytest.raises(UsageError) as caught:
        grow(unet, teacher, pruning)
    assert caught.value.code == "pruning.growth"
    assert torch.equal(run(grow(unet, teacher).eval()), run(unet))  # the default plan has one


def test_a_guidance_embedding_cannot_be_lost_on_the_way_up() -> None:
    teacher = replace(TINY, num_res_blocks=2, time_cond_proj_dim=None)
    with pytest.raises(UsageError) as caught:
        grow(random_unet(TINY), teacher)
    assert caught.value.code == "pruning.growth"


def test_a_plan_of_other_networks_is_refused() -> None:
    teacher = replace(TINY, num_res_blocks=2)
    with pytest.raises(UsageError) as caught:
        grow(random_unet(TINY), teacher, plan(replace(TINY, num_res_blocks=3), TINY))
    assert caught.value.code == "pruning.configs"


@pytest.mark.parametrize(
    ("changes", "share"),
    [
        ({"num_res_blocks": 2, "middle_block": True}, 0.527),
        ({"num_res_blocks": 3}, 0.459),
        ({"num_res_blocks": 3, "middle_block": True}, 0.402),
    ],
)
def test_the_share_of_the_tiny_student(changes: dict[str, int], share: float) -> None:
    tiny = UNetConfig.tiny()
    sizes = [
        sum(map(count, block_shapes(config).values()))
        for config in (tiny, replace(tiny, **changes))
    ]
    assert round(sizes[0] / sizes[1], 3) == share
