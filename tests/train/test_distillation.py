"""Stage 1 in closed form: the guided target, conditions, features at level ends, healing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from affine_networks import AffineUNet, FixedClips, alphas, close, contexts
from torch import nn

from hummingbird_runtime.errors import UsageError
from hummingbird_runtime.scheduler_config import DynamicRescale, SchedulerConfig
from hummingbird_train.base import world_schedule
from hummingbird_train.distillation import (
    DistillationConfig,
    DistillationObjective,
    level_ends,
    relative_distance,
)
from hummingbird_train.guided_teacher import embed
from hummingbird_train.models.unet import UNetConfig, VideoUNet
from hummingbird_train.pruning.plan import plan
from hummingbird_train.pruning.surgery import pruned_unet
from hummingbird_train.recipe import Phase

PHASE = Phase("distil", steps=1, batch=5, learning_rate=0.0, frames=2, stride=3, images_batch=3)
WORLD = world_schedule()
SHAPE = replace(UNetConfig.tiny(), time_cond_proj_dim=8)
SMALL = replace(
    UNetConfig.tiny(),
    model_channels=8,
    num_head_channels=4,
    init_attn_heads=2,
    norm_num_groups=2,
    context_dim=4,
    time_cond_proj_dim=8,
)
LARGE = replace(SMALL, num_res_blocks=2, middle_block=True)


def objective(
    config: DistillationConfig,
    schedule: SchedulerConfig = WORLD,
    *,
    student: nn.Module | None = None,
    teacher: nn.Module | None = None,
    shapes: tuple[UNetConfig, UNetConfig] = (SHAPE, SHAPE),
    clips: FixedClips | None = None,
) -> DistillationObjective:
    return DistillationObjective(
        student or AffineUNet(0.3, -0.2, 0.5, 0.7),
        shapes[0],
        teacher or AffineUNet(-0.4, 0.6, 0.1),
        shapes[1],
        contexts,
        clips or FixedClips(None),
        schedule,
        config,
    )


def loss(made: DistillationObjective, images: bool = False, seed: int = 0) -> Any:
    return made.loss(PHASE, images, np.random.default_rng(seed))


@pytest.mark.parametrize(
    "config",
    [
        DistillationConfig(),
        DistillationConfig(guidance=(1.0, 4.0)),
        DistillationConfig(guidance=(5.0, 15.0), form="lcm"),
        DistillationConfig(guidance=(5.0, 15.0), form="embedded"),
    ],
    ids=["published", "a range", "lcm form", "healing"],
)
def test_the_target_is_the_guided_prediction(config: DistillationConfig) -> None:
    made = objective(config, teacher=AffineUNet(-0.4, 0.6, 0.1, 0.8))
    total, numbers = loss(made)
    (student,), passes = made.unet.calls, made.teacher.unet.calls
    assert len(passes) == (1 if config.form == "embedded" else 2)
    x, t = student["x_t"].double().numpy(), student["t"].double().numpy()
    text = student["context"][:, 0, 0].double().numpy()

    def wide(values: np.ndarray) -> np.ndarray:
        return np.broadcast_to(np.asarray(values, float), (5,)).reshape(-1, 1, 1, 1, 1)

    row = student["timestep_cond"]
    embedded = row.double().numpy().mean(1)
    one = embed(torch.ones(1), 8)
    assert one is not None
    plain = embedded if config.form == "embedded" else float(one.double().mean())
    # w by its embedding: the first sine is of 1000 w, so search the draws instead of inverting it
    generator = np.random.default_rng(0)
    FixedClips(None).sample(generator, 5, 2, 3)
    generator.permutation(5), generator.random(5), generator.integers(2**62)
    w = generator.uniform(*config.guidance, 5)
    assert torch.equal(row, embed(torch.from_numpy(w), 8))
    factor = {"cfg": w, "lcm": 1 + w, "embedded": np.ones(5)}[config.form]
    target = -0.4 * x + 0.6 * wide(factor * text) + 0.1 * wide(t) / 1000 + 0.8 * wide(plain)
    output = 0.3 * x - 0.2 * wide(text) + 0.5 * wide(t) / 1000 + 0.7 * wide(embedded)
    expected = ((output - target) ** 2).mean()
    assert total.item() == pytest.approx(expected, rel=1e-6)
    assert numbers == {"clip": pytest.approx(expected, rel=1e-6)}


def test_gradients_reach_the_student_alone() -> None:
    made = objective(DistillationConfig())
    loss(made)[0].backward()
    assert all(p.grad is not None and p.grad != 0 for p in made.unet.parameters())
    assert all(p.grad is None for p in made.teacher.unet.parameters())
    assert not any(call["grad"] for call in made.teacher.unet.calls)


def test_single_frames_are_images_at_the_sources_rate() -> None:
    made = objective(DistillationConfig())
    _, numbers = loss(made, images=True)
    assert set(numbers) == {"image"}
    assert made.unet.calls[0]["x_t"].shape == (3, 2, 1, 3, 3)
    assert (made.unet.calls[0]["fps"] == 8).all()  # 24 at stride 3


def test_inputs_follow_the_dynamic_rescale() -> None:
    """VideoCrafter2 shrinks x_0 by s_t before it adds noise."""
    schedule = SchedulerConfig(
        sampler="ddim", timestep_spacing="leading+1", dynamic_rescale=DynamicRescale()
    )
    zero, one = (
        objective(DistillationConfig(), schedule, clips=FixedClips(value)) for value in (0.0, 1.0)
    )
    loss(zero), loss(one)
    t = one.unet.calls[0]["t"].numpy()
    s = np.where(t < 400, np.linspace(1, 0.7, 400)[np.minimum(t, 399)], 0.7)
    difference = one.unet.calls[0]["x_t"] - zero.unet.calls[0]["x_t"]
    expected = (np.sqrt(alphas(schedule)[t]) * s).reshape(-1, 1, 1, 1, 1)
    close(difference, np.broadcast_to(expected, difference.shape))


def test_level_ends_of_the_published_networks() -> None:
    assert level_ends(UNetConfig.hummingbird_07b()) == [
        "input_blocks.1", "input_blocks.3", "input_blocks.5", "input_blocks.7",
        "output_blocks.1", "output_blocks.3", "output_blocks.5", "output_blocks.7",
    ]  # fmt: skip
    assert level_ends(UNetConfig.videocrafter2()) == [
        "input_blocks.2", "input_blocks.5", "input_blocks.8", "input_blocks.11",
        "output_blocks.2", "output_blocks.5", "output_blocks.8", "output_blocks.11",
    ]  # fmt: skip


def random_unet(config: UNetConfig) -> VideoUNet:
    torch.manual_seed(1)
    unet = VideoUNet(config)
    with torch.no_grad():
        for parameter in unet.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    return unet


def test_features_are_compared_at_level_ends() -> None:
    teacher = random_unet(LARGE)
    student = pruned_unet(teacher, plan(LARGE, SMALL)).requires_grad_(True)
    made = objective(
        DistillationConfig(feature_weight=0.5, guidance=(1.0, 3.0)),
        student=student,
        teacher=teacher,
        shapes=(SMALL, LARGE),
        clips=FixedClips(None, (4, 8, 8)),
    )
    caught: dict[str, list[torch.Tensor]] = {}
    calls: list[dict[str, Any]] = []
    for owner, paths in ((student, level_ends(SMALL)), (teacher, level_ends(LARGE))):
        for path in paths:
            caught[f"{id(owner)} {path}"] = seen = []
            owner.get_submodule(path).register_forward_hook(
                lambda module, inputs, output, seen=seen: seen.append(output)
            )
    teacher.register_forward_hook(
        lambda module, inputs, keywords, output: calls.append({"context": inputs[2]}),
        with_kwargs=True,
    )
    total, numbers = loss(made)
    # which of the teacher's passes was the prompted one: its context differs between prompts
    prompted = next(i for i, call in enumerate(calls) if len(call["context"].unique()) > 1)
    distances = []
    for a, b in zip(level_ends(SMALL), level_ends(LARGE), strict=True):
        (got,) = caught[f"{id(student)} {a}"]
        want = caught[f"{id(teacher)} {b}"][prompted]
        f, g = got.detach().double().numpy(), want.double().numpy()
        distances.append(((f - g) ** 2).mean() / (g**2).mean())
    assert len(distances) == 4
    assert numbers["feature"] == pytest.approx(np.mean(distances), rel=1e-5)
    assert total.item() == pytest.approx(numbers["clip"] + 0.5 * numbers["feature"], rel=1e-5)
    total.backward()
    assert student.output_blocks[0][0].in_layers[2].weight.grad.abs().sum() > 0


def test_relative_distance_knows_no_scale() -> None:
    a, b = torch.tensor([1.0, -2.0]), torch.tensor([0.5, -1.0])
    assert float(relative_distance(a, b)) == pytest.approx(1.0)  # differences equal b
    assert float(relative_distance(100 * a, 100 * b)) == pytest.approx(1.0)


def test_a_student_equal_to_its_teacher_has_no_loss_without_guidance() -> None:
    teacher, student = random_unet(SMALL), random_unet(SMALL)
    made = objective(
        DistillationConfig(guidance=(1.0, 1.0), feature_weight=1.0),
        student=student,
        teacher=teacher,
        shapes=(SMALL, SMALL),
        clips=FixedClips(None, (4, 8, 8)),
    )
    total, _ = loss(made)
    assert total.item() < 1e-9  # u + 1 (c - u) rounds once or twice


def test_networks_whose_levels_differ_have_no_feature_terms() -> None:
    wider = replace(SMALL, model_channels=16)
    config = DistillationConfig(feature_weight=1.0)
    with pytest.raises(UsageError) as caught:
        objective(config, shapes=(SMALL, wider))
    assert caught.value.code == "train.features"


@pytest.mark.parametrize(
    ("config", "width"),
    [
        (DistillationConfig(guidance=(1.0, 2.0)), None),
        (DistillationConfig(guidance=(3.0, 2.0)), 8),
        (DistillationConfig(form="embedded"), None),
        (DistillationConfig(form="twice"), 8),
    ],
)
def test_guidance_that_cannot_be_distilled_is_refused(
    config: DistillationConfig, width: int | None
) -> None:
    shape = replace(SHAPE, time_cond_proj_dim=width)
    with pytest.raises(UsageError) as caught:
        objective(config, shapes=(shape, shape))
    assert caught.value.code == "train.guidance"
