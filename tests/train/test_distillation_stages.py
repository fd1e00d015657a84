"""Both stages inside the training loop: they resume bit for bit and save networks that load."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from affine_networks import FixedClips, contexts

from hummingbird_train.base import world_schedule
from hummingbird_train.checkpoint import Checkpoints
from hummingbird_train.consistency import ConsistencyConfig, ConsistencyObjective
from hummingbird_train.distillation import DistillationConfig, DistillationObjective
from hummingbird_train.loop import Objective, RunConfig, train
from hummingbird_train.models.unet import UNetConfig, VideoUNet
from hummingbird_train.models.weights import load_model
from hummingbird_train.pruning.growth import grow
from hummingbird_train.pruning.plan import plan
from hummingbird_train.pruning.surgery import pruned_unet
from hummingbird_train.recipe import Phase

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
PHASES = (
    Phase("few", steps=3, batch=2, learning_rate=1e-3, frames=2, images_every=2, images_batch=2),
)


def networks() -> tuple[VideoUNet, VideoUNet]:
    """(student, teacher): a teacher grown from a random network and moved away from it, pruned."""
    torch.manual_seed(0)
    unet = VideoUNet(SMALL)
    with torch.no_grad():
        for parameter in unet.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
        teacher = grow(unet, LARGE)
        for parameter in teacher.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape))
    return pruned_unet(teacher, plan(LARGE, SMALL)).requires_grad_(True), teacher


def distillation() -> DistillationObjective:
    student, teacher = networks()
    config = DistillationConfig(guidance=(1.0, 3.0), feature_weight=0.1)
    clips = FixedClips(None, (4, 8, 8))
    return DistillationObjective(
        student, SMALL, teacher, LARGE, contexts, clips, world_schedule(), config
    )


def consistency() -> ConsistencyObjective:
    student, teacher = networks()
    config = ConsistencyConfig(
        guidance=(1.0, 3.0), form="cfg", student_steps=4, substeps=2, target_decay=0.5
    )
    clips = FixedClips(None, (4, 8, 8))
    return ConsistencyObjective(
        student, SMALL, teacher, LARGE, contexts, clips, world_schedule(), config
    )


@pytest.mark.parametrize("make", [distillation, consistency])
def test_a_resumed_run_equals_an_unbroken_one(
    make: Callable[[], Objective], tmp_path: Path
) -> None:
    whole, pieces = tmp_path / "whole", tmp_path / "pieces"
    for folder in (whole, pieces):
        folder.mkdir()
    start = {n: p.detach().clone() for n, p in make().modules["unet"].named_parameters()}
    assert train(make(), PHASES, whole, config=RunConfig(seed=5))
    while not train(make(), PHASES, pieces, config=RunConfig(seed=5), minutes=0.0):
        pass
    (a, _), (b, _) = (Checkpoints(folder).load(3) for folder in (whole, pieces))
    assert a.keys() == b.keys()
    for group, tensors in a.items():
        assert tensors.keys() == b[group].keys()
        for name, tensor in tensors.items():
            assert torch.equal(tensor, b[group][name]), (group, name)
    saved = load_model(whole / "unet.safetensors")
    assert isinstance(saved, VideoUNet)
    assert saved.config == SMALL
    assert any(not torch.equal(p, start[n]) for n, p in saved.named_parameters())
