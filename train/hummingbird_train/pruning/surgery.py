"""Pruning by renaming tensors: kept blocks are bit-equal, nothing is computed.

`hummingbird train prune` does it to a file. A guidance embedding that the teacher lacks starts at
zero: the student then ignores w, as its teacher did, until it is trained.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from hummingbird_runtime.cli.parser import Parser, names, number_in
from hummingbird_runtime.errors import InputError
from hummingbird_runtime.output import check_target
from hummingbird_train.models.embeddings import sinusoid_table
from hummingbird_train.models.unet import UNetConfig, VideoUNet
from hummingbird_train.models.weights import check_tensors, read, skeleton, write_tensors
from hummingbird_train.pruning.plan import PruningPlan, block_of, plan

DESCRIPTION = (
    "Keep some blocks of a U-Net bit for bit and drop the others; prints the map. "
    "Without -o nothing is written."
)


def prune(source: Mapping[str, Tensor] | VideoUNet, pruning: PruningPlan) -> dict[str, Tensor]:
    """Tensors of the student; they share memory with the teacher's.

    Args:
        source: the teacher, or its tensors by name.
        pruning: from ``plan.plan``.

    Raises:
        InputError: ``checkpoint.keys`` or ``checkpoint.shapes`` when the tensors are not those of
            the plan's teacher.
    """
    tensors = source.state_dict() if isinstance(source, VideoUNet) else dict(source)
    expected = skeleton("unet", pruning.teacher).state_dict()
    check_tensors(Path("of the teacher"), tensors, expected)
    found = {}
    for name, tensor in tensors.items():
        path = block_of(name)
        if path in pruning.kept:
            found[pruning.kept[path] + name[len(path) :]] = tensor
    shapes = skeleton("unet", pruning.student).state_dict()
    like = next(iter(tensors.values()))
    for name, shape in shapes.items():
        if block_of(name) in pruning.added:
            found[name] = torch.zeros(shape.shape, dtype=like.dtype, device=like.device)
    return {name: found[name] for name in shapes}


def pruned_unet(teacher: VideoUNet, pruning: PruningPlan) -> VideoUNet:
    """The student as a network with its own copy of the weights, in evaluation mode.

    Raises:
        InputError: as ``prune``.
    """
    student = skeleton("unet", pruning.student)
    assert isinstance(student, VideoUNet)
    tensors = {n: t.detach().clone() for n, t in prune(teacher, pruning).items()}
    student.load_state_dict(tensors, strict=True, assign=True)
    like = next(iter(tensors.values()))
    table = sinusoid_table(pruning.student.model_channels)
    student.sinusoids = table.to(like.device, like.dtype)  # is no part of the state
    return student.eval()


def main(argv: list[str]) -> int:
    """`hummingbird train prune`: print the map, and write the pruned network if asked.

    Raises:
        UsageError: ``pruning.*``, ``output.exists``.
        InputError: ``checkpoint.*``.
    """
    parser = Parser(prog="hummingbird train prune", description=DESCRIPTION)
    add = parser.add_argument
    add("source", type=Path, metavar="UNET.safetensors")
    add("-o", "--output", type=Path, metavar="FILE", help="the pruned U-Net")
    add("--res-blocks", type=number_in(1, 64), default=1, metavar="N",
        help="residual blocks a level (default %(default)s)")  # fmt: skip
    add("--keep-middle-block", action="store_true", help="0.9B has it, 0.7B does not")
    add("--guidance-dim", type=number_in(2, 4096), metavar="N",
        help="width of a guidance embedding to add, where the source has none")  # fmt: skip
    add("--keep", type=names, default=(), metavar="BLOCK,...",
        help="blocks that must stay, such as input_blocks.2")  # fmt: skip
    add("--force", action="store_true", help="replace an existing file")
    add("--json", action="store_true", help="print the map as JSON")
    parsed = parser.parse(argv)
    if parsed.output is not None:
        check_target(parsed.output, overwrite=parsed.force)
    kind, config, tensors = read(parsed.source)
    if not isinstance(config, UNetConfig):
        raise InputError(
            "checkpoint.kind",
            f"weights {parsed.source}, got a {kind}, expected a unet",
            hint="give the file of the U-Net",
        )
    student = dataclasses.replace(
        config,
        num_res_blocks=parsed.res_blocks,
        middle_block=parsed.keep_middle_block,
        time_cond_proj_dim=parsed.guidance_dim or config.time_cond_proj_dim,
    )
    pruning = plan(config, student, keep=parsed.keep)
    if parsed.output is not None:
        facts = {
            "format": "pt",
            "model": "unet",
            "config": json.dumps(student.to_json()),
            "pruning": json.dumps(pruning.to_json()),
        }
        write_tensors(parsed.output, prune(tensors, pruning), facts)
        print(parsed.output, file=sys.stderr)
    print(json.dumps(pruning.to_json()) if parsed.json else pruning.markdown())
    return 0
