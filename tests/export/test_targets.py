"""Targets: found by name, consistent in themselves, and with the settings that were measured."""

from __future__ import annotations

import re

import pytest

from hummingbird_export.lowering.form import CPU, CPU_LOWMEM, PORTABLE
from hummingbird_export.targets import TARGETS, Target, find_target, target_names
from hummingbird_runtime.errors import UsageError
from hummingbird_runtime.manifest import SessionSettings
from hummingbird_runtime.operators import ALLOWED_OPERATORS, NEWEST_OPSET, OLDEST_OPSET

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
    fused = "com.microsoft:MultiHeadAttention" in target.operators
    assert fused == (target.form == "cpu") == target.lowering.fused
    assert {"none": PORTABLE, "cpu": CPU, "cpu-lowmem": CPU_LOWMEM}[target.chunks] is (
        target.lowering
    )
    bits = "com.microsoft:MatMulNBits" in target.operators
    assert bits == bool({"w4", "w8", "mixed"} & set(target.precisions))


def test_cpu_settings_are_the_measured_ones():
    cpu = find_target("cpu")
    assert cpu.settings("unet", "fp32") == SessionSettings(
        memory_reuse=False, cpu_arena=True, optimization="basic"
    )
    assert cpu.settings("unet", "int8") == SessionSettings(
        memory_reuse=False, cpu_arena=True, optimization="all"
    )
    assert cpu.settings("text_encoder", "fp32") == SessionSettings()


def test_little_memory_gives_every_graph_its_settings():
    lowmem = find_target("cpu-lowmem")
    assert lowmem.settings("unet", "fp32") == SessionSettings(
        memory_reuse=False,
        memory_pattern=False,
        cpu_arena=False,
        optimization="basic",
        prepacking=False,
    )
    assert lowmem.settings("unet", "int8") == SessionSettings(
        memory_reuse=False, memory_pattern=False, cpu_arena=False, optimization="all"
    )
    assert lowmem.settings("vae_decoder", "int8") == SessionSettings(
        memory_pattern=False, cpu_arena=False
    )
    assert lowmem.settings("unet", "fp16-storage").disabled_optimizers == ("ConstantFolding",)


def test_other_targets_leave_the_defaults():
    assert find_target("portable").settings("unet", "fp32") == SessionSettings()


def test_a_precision_is_checked_against_the_target():
    qnn = find_target("android-qnn")
    assert qnn.check_precision("int8") == "int8" == qnn.default_precision
    with pytest.raises(UsageError, match="got precision w4, expected one of int8, fp16") as caught:
        qnn.check_precision("w4")
    assert caught.value.code == "export.target_precision"


def test_sizes_are_fixed_where_the_provider_compiles_for_one_size():
    assert {t.name for t in TARGETS if t.static_sizes} == {
        "igpu-migraphx", "android-qnn", "ios-coreml",
    }  # fmt: skip
