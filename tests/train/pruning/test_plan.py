"""Pruning plans: the published maps, other choices of blocks, and networks that do not fit."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hummingbird_runtime.errors import UsageError
from hummingbird_train.models.unet import UNetConfig
from hummingbird_train.pruning.plan import block_shapes, count, levels, plan

TEACHER, LARGE, SMALL = (
    UNetConfig.videocrafter2(),
    UNetConfig.hummingbird_09b(),
    UNetConfig.hummingbird_07b(),
)
# The published maps, old -> new, of numbered blocks.
INPUT = {0: 0, 1: 1, 3: 2, 4: 3, 6: 4, 7: 5, 9: 6, 10: 7}
OUTPUT = {1: 0, 2: 1, 4: 2, 5: 3, 6: 4, 8: 5, 9: 6, 11: 7}


def numbered(kept: dict[str, str], part: str) -> dict[int, int]:
    return {
        int(a.split(".")[1]): int(b.split(".")[1]) for a, b in kept.items() if a.startswith(part)
    }


@pytest.mark.parametrize("student", [LARGE, SMALL], ids=["0.9B", "0.7B"])
def test_the_published_map_comes_out(student: UNetConfig) -> None:
    pruning = plan(TEACHER, student)
    assert numbered(pruning.kept, "input_blocks") == INPUT
    assert numbered(pruning.kept, "output_blocks") == OUTPUT
    rest = {a: b for a, b in pruning.kept.items() if "put_blocks" not in a}
    same = {"time_embed", "fps_embedding", "init_attn", "out"}
    same |= {"middle_block"} if student.middle_block else set()
    assert rest == {path: path for path in same}
    dropped = {f"input_blocks.{i}" for i in (2, 5, 8, 11)}
    dropped |= {f"output_blocks.{i}" for i in (0, 3, 7, 10)}
    dropped |= set() if student.middle_block else {"middle_block"}
    assert set(pruning.dropped) == dropped
    assert pruning.added == ("time_cond_proj",)


def test_the_second_step_drops_the_middle_block_alone() -> None:
    pruning = plan(LARGE, SMALL)
    assert pruning.dropped == ("middle_block",)
    assert not pruning.added
    assert all(old == new for old, new in pruning.kept.items())


def test_levels_name_every_block_once() -> None:
    for config in (TEACHER, SMALL, replace(UNetConfig.tiny(), num_res_blocks=3)):
        found = levels(config)
        paths = [p for level in (*found.down, *found.up) for p in level] + found.downsample
        shapes = block_shapes(config)
        expected = {p for p in shapes if "put_blocks" in p} - {"input_blocks.0"}
        assert len(paths) == len(set(paths))
        assert set(paths) == expected
        for path in found.downsample:
            assert set(shapes[path]) == {"0.op.weight", "0.op.bias"}


def test_other_blocks_can_be_kept() -> None:
    teacher = replace(UNetConfig.tiny(), num_res_blocks=3)
    student = replace(teacher, num_res_blocks=2)
    default = plan(teacher, student)
    assert default.dropped == (
        "input_blocks.3", "input_blocks.7", "output_blocks.0", "output_blocks.5"
    )  # fmt: skip
    chosen = plan(teacher, student, keep={"input_blocks.3", "output_blocks.0"})
    assert chosen.kept["input_blocks.3"] == "input_blocks.2"
    assert "input_blocks.2" in chosen.dropped
    assert chosen.kept["output_blocks.0"] == "output_blocks.0"
    assert set(chosen.dropped) >= {"input_blocks.2", "output_blocks.1"}


@pytest.mark.parametrize(
    ("keep", "code"),
    [
        ({"input_blocks.99"}, "pruning.keep"),
        ({"middle_block"}, "pruning.keep"),  # the student has none
        ({"input_blocks.5"}, "pruning.keep"),  # 320 -> 640 happens in input_blocks.4
    ],
)
def test_blocks_that_cannot_stay_are_refused(keep: set[str], code: str) -> None:
    with pytest.raises(UsageError) as caught:
        plan(TEACHER, SMALL, keep=keep)
    assert caught.value.code == code


@pytest.mark.parametrize(
    "student",
    [
        replace(SMALL, model_channels=64),
        replace(SMALL, channel_mult=(1, 2, 4)),
        replace(SMALL, num_res_blocks=3),
        replace(SMALL, frame_embedding=True),
        replace(SMALL, num_head_channels=32),  # shows in no shape, changes the function
    ],
)
def test_networks_of_another_kind_are_refused(student: UNetConfig) -> None:
    with pytest.raises(UsageError) as caught:
        plan(TEACHER, student)
    assert caught.value.code == "pruning.configs"


def test_a_student_may_not_have_what_its_teacher_lacks() -> None:
    with pytest.raises(UsageError) as caught:
        plan(SMALL, LARGE)
    assert "middle block" in str(caught.value)
    with pytest.raises(UsageError) as caught:
        plan(LARGE, replace(SMALL, time_cond_proj_dim=64))
    assert "time_cond_proj_dim" in str(caught.value)


def test_the_table_has_every_block_and_the_share_that_stays() -> None:
    pruning = plan(TEACHER, SMALL)
    table = pruning.markdown()
    assert "| output_blocks.11 | output_blocks.7 |" in table
    assert "| middle_block | dropped | 173,117,440 |" in table
    assert "| (new, zero) | time_cond_proj | 81,920 |" in table
    assert table.endswith("772,091,780 of 1,413,284,420 parameters stay, 54.6%")
    assert sum(map(count, block_shapes(SMALL).values())) == 772_091_780
    assert pruning.to_json()["kept"]["input_blocks.3"] == "input_blocks.2"
