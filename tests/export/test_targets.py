"""Targets: found by name, consistent in themselves, and with the settings that were measured."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from hummingbird_export.lowering.form import PORTABLE
from hummingbird_export.targets import TARGETS, SettingsRule, Target, find_target, target_names
from hummingbird_runtime.errors import UsageError
from hummingbird_runtime.manifest import Precision, SessionSettings
from hummingbird_runtime.operators import ALLOWED_OPERATORS, NEWEST_OPSET, OLDEST_OPSET
from hummingbird_train.models.unet import UNetConfig

every_target = pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)


def test_the_agreed_targets_are_there_once():
    assert target_names() == (
        "portable", "cpu", "cpu-lowmem", "igpu-webgpu", "igpu-directml", "igpu-openvino",
        "igpu-migraphx", "android-cpu", "android-qnn", "ios-coreml", "web",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("typo", "near"),
    [("cpu-low-mem", "cpu-lowmem"), ("andriod-qnn", "android-qnn"), ("webb", "web"), ("", "")],
)
def test_an_unknown_name_is_refused_with_the_nearest(typo: str, near: str):
    with pytest.raises(UsageError, match=re.escape(f"did you mean {near}")) as caught:
        find_target(typo)
    assert caught.value.code == "export.target"
    assert "igpu-openvino" in caught.value.message


@every_target
def test_a_target_is_found_by_its_name(target: Target):
    assert find_target(target.name) is target


@every_target
def test_a_target_asks_only_for_what_the_runtime_takes(target: Target):
    assert target.operators <= ALLOWED_OPERATORS
    assert OLDEST_OPSET <= target.opset <= NEWEST_OPSET
    assert target.providers[-1] == "CPUExecutionProvider"
    assert len(set(target.precisions)) == len(target.precisions)


@every_target
def test_form_chunks_and_operators_agree(target: Target):
    form = target.form_for(UNetConfig.hummingbird_07b(), (26, 40, 64))
    fused = "com.microsoft:MultiHeadAttention" in target.operators
    assert fused == (target.form == "cpu") == form.fused
    assert (target.chunks == "none") == (form == PORTABLE)
    bits = "com.microsoft:MatMulNBits" in target.operators
    assert bits == bool({"w4", "w8", "mixed"} & set(target.precisions))


def test_less_memory_is_smaller_pieces():
    config, size = UNetConfig.hummingbird_07b(), (26, 40, 64)
    usual, small = (find_target(n).form_for(config, size) for n in ("cpu", "cpu-lowmem"))
    pairs = list(zip(usual.frame_chunks, small.frame_chunks, strict=True))
    assert all(1 <= a <= b <= 26 for a, b in pairs)
    assert pairs[0][0] < pairs[0][1]


def test_later_rules_win_and_rules_are_for_roles_and_precisions():
    target = replace(
        find_target("portable"),
        rules=(
            SettingsRule(SessionSettings(cpu_arena=True, prepacking=True)),
            SettingsRule(SessionSettings(cpu_arena=False), roles=("unet",)),
            SettingsRule(SessionSettings(optimization="all"), precisions=("int8",)),
        ),
    )
    plain = SessionSettings(cpu_arena=True, prepacking=True)
    assert target.settings("text_encoder", "fp32") == plain
    assert target.settings("unet", "fp32") == replace(plain, cpu_arena=False)
    assert target.settings("unet", "int8") == replace(plain, cpu_arena=False, optimization="all")


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_cpu_targets_do_not_keep_a_buffer_of_every_shape(precision: Precision):
    usual, small = (find_target(n).settings("unet", precision) for n in ("cpu", "cpu-lowmem"))
    assert usual.memory_reuse is False
    assert small.memory_reuse is False
    assert (usual.prepacking, small.prepacking) == (None, False)
    assert usual.optimization is not None


def test_weights_stored_as_half_stay_so_in_memory_where_it_is_short():
    lowmem = find_target("cpu-lowmem")
    assert lowmem.settings("unet", "fp16-storage").disabled_optimizers == ("ConstantFolding",)
    assert lowmem.settings("unet", "fp32").disabled_optimizers == ()


def test_other_targets_leave_the_defaults():
    assert find_target("portable").settings("unet", "fp32") == SessionSettings()


def test_a_precision_is_checked_against_the_target():
    qnn = find_target("android-qnn")
    assert qnn.check_precision("int8") == "int8" == qnn.default_precision
    with pytest.raises(
        UsageError, match="got precision w4, expected one of int8, fp16-storage"
    ) as caught:
        qnn.check_precision("w4")
    assert caught.value.code == "export.target_precision"


def test_sizes_are_fixed_where_the_provider_compiles_for_one_size():
    assert {t.name for t in TARGETS if t.static_sizes} == {
        "igpu-migraphx", "android-qnn", "ios-coreml",
    }  # fmt: skip
