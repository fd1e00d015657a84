"""Loss scale of fp16, and where half precision shows."""

from __future__ import annotations

from pathlib import Path

import torch
from training_runs import Regression, regression, state

from hummingbird_train.accelerator import LossScale


def test_the_scale_halves_on_overflow_and_doubles_after_2000_good_steps() -> None:
    scale = LossScale(True)
    assert scale.value == 2**16
    assert scale.overflowed()
    assert scale.value == 2**15
    for _ in range(1999):
        scale.succeeded()
    assert scale.value == 2**15
    scale.succeeded()
    assert scale.value == 2**16


def test_a_scale_of_one_has_no_excuse() -> None:
    scale = LossScale(True)
    halvings = 0
    while scale.overflowed():
        halvings += 1
    assert (halvings, scale.value) == (16, 1.0)
    assert not LossScale(False).overflowed()


def test_an_overflow_of_fp16_leaves_the_step_out_and_is_no_error(tmp_path: Path) -> None:
    class Large(Regression):
        def loss(self, *arguments):  # type: ignore[no-untyped-def]
            loss, numbers = super().loss(*arguments)
            return loss * 100, numbers  # slopes times 2^16 leave float16 at first

    lines: list[str] = []
    assert regression(tmp_path, objective=Large(), precision="fp16", log=lines.append)
    overflows = sum("fp16 overflow" in line for line in lines)
    assert 0 < overflows < 11
    assert state(tmp_path)["optimizer/step_count"] == 11 - overflows


def test_attention_on_a_cpu_in_half_precision_takes_the_form_with_a_fast_backward(tmp_path: Path):
    for precision, flash in (("fp32", True), ("bf16", False)):
        objective, seen = Regression(), set()
        objective.net[0].register_forward_hook(
            lambda *_, seen=seen: seen.add(torch.backends.cuda.flash_sdp_enabled())
        )
        regression(tmp_path / precision, objective=objective, precision=precision)
        assert seen == {flash}
    assert torch.backends.cuda.flash_sdp_enabled()


def test_the_networks_compute_in_the_format_asked_for(tmp_path: Path) -> None:
    for precision, dtype in (
        ("fp32", torch.float32),
        ("bf16", torch.bfloat16),
        ("fp16", torch.float16),
    ):
        objective = Regression()
        seen: set[torch.dtype] = set()
        objective.net[0].register_forward_hook(lambda *a, seen=seen: seen.add(a[2].dtype))
        regression(tmp_path / precision, objective=objective, precision=precision)
        assert seen == {dtype}
        assert objective.net[0].weight.dtype == torch.float32
