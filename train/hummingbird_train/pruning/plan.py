"""Which blocks of a large U-Net become which blocks of a smaller one (Hummingbird, section 3.1).

Both configurations describe the same levels; the smaller one has fewer residual blocks in each,
and perhaps no middle block. A level keeps its first blocks on the way down and its last on the way
up: those see the same skips as before wherever the widths allow it. For VideoCrafter2 -> 0.9B ->
0.7B the result is the published map.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, NamedTuple

from hummingbird_runtime.errors import UsageError
from hummingbird_train.models.unet import UNetConfig
from hummingbird_train.models.weights import skeleton

MAY_DIFFER = frozenset(
    {"num_res_blocks", "middle_block", "time_cond_proj_dim", "dropout", "temporal_dropout"}
)
"""Fields in which teacher and student may differ."""

GUIDANCE = "time_cond_proj"
"""The one block that a student may have and its teacher not."""

Shapes = dict[str, tuple[int, ...]]
"""Tensor name inside a block -> shape."""


@dataclass(frozen=True)
class PruningPlan:
    """What happens to every block; a block is named by its path, such as ``input_blocks.4``."""

    teacher: UNetConfig
    """The larger network."""
    student: UNetConfig
    """The smaller network."""
    kept: Mapping[str, str]
    """Path in the teacher -> path in the student, in the order of the teacher's forward pass."""
    dropped: tuple[str, ...]
    """Paths in the teacher that have no place in the student."""
    added: tuple[str, ...]
    """Paths in the student that the teacher lacks: the guidance embedding, or nothing."""

    def to_json(self) -> dict[str, Any]:
        """The map for a provenance record."""
        return {"kept": dict(self.kept), "dropped": [*self.dropped], "added": [*self.added]}

    def markdown(self) -> str:
        """A table with a row for each block of the teacher and its parameters."""
        shapes, new = block_shapes(self.teacher), block_shapes(self.student)
        fates = {**self.kept, **dict.fromkeys(self.dropped, "dropped")}
        lines = ["| block | becomes | parameters |", "|---|---|---|"]
        lines += [f"| {path} | {fates[path]} | {count(shapes[path]):,} |" for path in shapes]
        lines += [f"| (new, zero) | {path} | {count(new[path]):,} |" for path in self.added]
        before, after = (sum(map(count, table.values())) for table in (shapes, new))
        share = f"{after:,} of {before:,} parameters stay, {after / before:.1%}"
        return "\n".join([*lines, "", share])


class Levels(NamedTuple):
    """Paths of the blocks of each level; level 0 has the full resolution."""

    down: list[list[str]]
    """Residual blocks with their transformers, in order."""
    downsample: list[str]
    """One path behind every level but the last."""
    up: list[list[str]]
    """As ``down``, one block more each; the last of a level above 0 ends in the upsampling."""


def levels(config: UNetConfig) -> Levels:
    """Where the blocks of each level stand in ``input_blocks`` and ``output_blocks``."""
    n, depth = config.num_res_blocks, len(config.channel_mult)
    down = [[f"input_blocks.{1 + k * (n + 1) + i}" for i in range(n)] for k in range(depth)]
    between = [f"input_blocks.{(k + 1) * (n + 1)}" for k in range(depth - 1)]
    up = [
        [f"output_blocks.{(depth - 1 - k) * (n + 1) + i}" for i in range(n + 1)]
        for k in range(depth)
    ]
    return Levels(down, between, up)


def block_of(name: str) -> str:
    """Path of the block that a tensor belongs to."""
    parts = name.split(".")
    return ".".join(parts[:2] if parts[0] in ("input_blocks", "output_blocks") else parts[:1])


@functools.cache
def block_shapes(config: UNetConfig) -> Mapping[str, Shapes]:
    """Shapes of the tensors of every block, from the meta device, in order of registration."""
    found: dict[str, Shapes] = {}
    for name, tensor in skeleton("unet", config).state_dict().items():
        path = block_of(name)
        found.setdefault(path, {})[name[len(path) + 1 :]] = tuple(tensor.shape)
    return found


def count(shapes: Shapes) -> int:
    """Number of values in tensors of these shapes."""
    return sum(math.prod(shape) for shape in shapes.values())


def plan(teacher: UNetConfig, student: UNetConfig, *, keep: Collection[str] = ()) -> PruningPlan:
    """The map from a teacher to a smaller student.

    Args:
        teacher: the larger network.
        student: the same levels and widths, at most as many residual blocks.
        keep: blocks of the teacher that must stay, for instance those that
            ``importance.block_importance`` found to matter most; the rule chooses the others.

    Raises:
        UsageError: ``pruning.configs`` when the networks differ in more than number of blocks,
            ``pruning.keep`` when the blocks to keep do not exist or leave no map.
    """
    _check(teacher, student)
    old, new = block_shapes(teacher), block_shapes(student)
    unknown = sorted(set(keep) - set(old))
    if unknown:
        raise UsageError(
            "pruning.keep",
            f"blocks to keep, got {unknown}, expected some of the teacher's {len(old)}",
            hint="`hummingbird train prune FILE` without -o lists them",
        )
    numbered = ("input_blocks.", "output_blocks.")
    pairs = {path: path for path in old if path in new and not path.startswith(numbered)}
    pairs["input_blocks.0"] = "input_blocks.0"
    a, b = levels(teacher), levels(student)
    pairs |= zip(a.downsample, b.downsample, strict=True)
    for k in range(len(a.down)):
        pairs |= _match(a.down[k], b.down[k], old, new, keep, last=False)
        pairs |= _match(a.up[k], b.up[k], old, new, keep, last=True)
    kept = {path: pairs[path] for path in old if path in pairs}
    dropped = tuple(path for path in old if path not in kept)
    lost = sorted(set(keep) & set(dropped))
    if lost:
        raise UsageError(
            "pruning.keep",
            f"blocks to keep, got {lost}, which the student's configuration has no place for",
            hint="leave them out, or give the student its middle block",
        )
    made = set(kept.values())
    return PruningPlan(teacher, student, kept, dropped, tuple(p for p in new if p not in made))


def _match(
    old: Sequence[str],
    new: Sequence[str],
    old_shapes: Mapping[str, Shapes],
    new_shapes: Mapping[str, Shapes],
    keep: Collection[str],
    *,
    last: bool,
) -> dict[str, str]:
    """Order-preserving choice of one level's blocks: the first that fits, or the last."""
    wanted = set(keep) & set(old)
    choices = list(combinations(old, len(new)))
    for chosen in reversed(choices) if last else choices:
        fits = all(old_shapes[a] == new_shapes[b] for a, b in zip(chosen, new, strict=True))
        if fits and wanted <= set(chosen):
            return dict(zip(chosen, new, strict=True))
    raise UsageError(
        "pruning.keep",
        f"blocks to keep, got {sorted(wanted)}, expected {len(new)} of {list(old)} whose widths "
        "follow each other",
        hint="the first block of a level down and the last of a level up change width: they stay",
    )


def _check(teacher: UNetConfig, student: UNetConfig) -> None:
    problems = [
        f"{field.name} {getattr(teacher, field.name)!r} and {getattr(student, field.name)!r}"
        for field in dataclasses.fields(UNetConfig)
        if field.name not in MAY_DIFFER
        and getattr(teacher, field.name) != getattr(student, field.name)
    ]
    if student.num_res_blocks > teacher.num_res_blocks:
        problems.append(f"num_res_blocks {teacher.num_res_blocks} and {student.num_res_blocks}")
    if student.middle_block and not teacher.middle_block:
        problems.append("a middle block in the student alone")
    widths = teacher.time_cond_proj_dim, student.time_cond_proj_dim
    if widths[0] not in (None, widths[1]):
        problems.append(f"time_cond_proj_dim {widths[0]} and {widths[1]}")
    if problems:
        raise UsageError(
            "pruning.configs",
            f"teacher and student, got {'; '.join(problems)}, expected the same levels and widths "
            "and no more blocks in the student",
            hint="derive the student's configuration from the teacher's",
        )
