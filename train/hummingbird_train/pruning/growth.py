"""The inverse of pruning: a larger U-Net that starts as exactly the function of a smaller one.

Every new block is an identity. Its residual branches end in zero projections, as everywhere in
this architecture; a new block on the way up, whose input is [h, skip] along the channels, gets the
1x1 skip connection [1, 0], which passes h on and ignores the skip. A new block on the way down
repeats its input, so a later block that now reads its skip reads the same values as before.
"""

from __future__ import annotations

import torch

from hummingbird_runtime.errors import UsageError
from hummingbird_train.models.unet import UNetConfig, VideoUNet
from hummingbird_train.pruning.plan import PruningPlan, plan


def grow(
    student: VideoUNet,
    teacher: UNetConfig,
    pruning: PruningPlan | None = None,
    *,
    seed: int = 0,
) -> VideoUNet:
    """A network of the teacher's shape that computes what the student computes.

    The outputs are equal bit for bit where convolutions sum in the same order, as they do here: new
    blocks only add products with zero. Gradients reach the zero projections at once.

    Args:
        student: the trained, smaller network.
        teacher: shape of the larger one.
        pruning: from ``plan.plan(teacher, student.config)``, which is the default.
        seed: of the new blocks' inner weights.

    Returns:
        The larger network, in training mode, with its own copy of the weights.

    Raises:
        UsageError: ``pruning.configs`` when the configurations do not fit,
            ``pruning.growth`` when the plan has no exact inverse.
    """
    pruning = pruning or plan(teacher, student.config)
    if pruning.teacher != teacher or pruning.student != student.config:
        raise UsageError(
            "pruning.configs",
            "plan, got one between other configurations, expected those of the two networks",
            hint="make the plan from the teacher's and the student's configuration",
        )
    check_invertible(pruning)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        larger = VideoUNet(teacher)
    old = {new: path for path, new in pruning.kept.items()}
    with torch.no_grad():
        for new, path in old.items():
            source, target = student.get_submodule(new), larger.get_submodule(path)
            target.load_state_dict(source.state_dict())
        for path in pruning.dropped:
            if path.startswith("output_blocks."):
                _pass_on(larger.get_submodule(path)[0].skip_connection)
    return larger


def _pass_on(connection: torch.nn.Module) -> None:
    """Make a 1x1 convolution (c, c + skip, 1, 1) copy its first c input channels."""
    assert isinstance(connection, torch.nn.Conv2d)
    torch.nn.init.dirac_(connection.weight)
    torch.nn.init.zeros_(connection.bias)


def check_invertible(pruning: PruningPlan) -> None:
    """Refuse plans of which no larger network of identities exists.

    Raises:
        UsageError: ``pruning.growth`` when a new block would have to change the width, when a kept
            block on the way up would read another skip than before, or when the student has a
            guidance embedding that the teacher lacks.
    """
    if pruning.added:
        raise _inexact(f"{', '.join(pruning.added)} in the student alone")
    config = pruning.teacher
    width = config.model_channels
    depth = len(config.channel_mult)
    per_level = config.num_res_blocks + 1
    # Which student block's output stands in each skip of the grown network.
    skips, value, channels = ["input_blocks.0"], "input_blocks.0", width
    for i in range(1, depth * per_level):
        path, level = f"input_blocks.{i}", (i - 1) // per_level
        after = channels if i % per_level == 0 else config.channel_mult[level] * width
        if path in pruning.kept:
            value = pruning.kept[path]
        elif channels != after:
            raise _inexact(f"{path} new, which changes the width from {channels} to {after}")
        channels = after
        skips.append(value)
    student = [f"input_blocks.{i}" for i in range(depth * (pruning.student.num_res_blocks + 1))]
    for i in range(depth * per_level):
        path, level = f"output_blocks.{i}", depth - 1 - i // per_level
        seen, after = skips.pop(), config.channel_mult[level] * width
        if path in pruning.kept:
            before = student.pop()
            if seen != before:
                raise _inexact(f"{path} reading the skip of {seen} instead of {before}")
        elif channels != after:
            raise _inexact(f"{path} new, which changes the width from {channels} to {after}")
        channels = after


def _inexact(got: str) -> UsageError:
    return UsageError(
        "pruning.growth",
        f"plan to grow by, got {got}, expected new blocks that can start as identities",
        hint="plan without `keep`, between configurations that differ in blocks alone",
    )
