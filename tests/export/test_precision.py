"""Rounding of weights to what float16 holds."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from hummingbird_export.precision import (
    precision_plan,
    round_to_half,
    round_to_int8,
    rounding_error,
)
from hummingbird_runtime.errors import InputError, UsageError


def layer() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(64, 32)


def test_large_weights_become_what_float16_holds_and_the_model_stays():
    model = layer()
    before = model.weight.detach().clone()
    rounded = round_to_half(model)
    assert torch.equal(model.weight, before)
    assert torch.equal(rounded.weight, before.half().float())
    assert torch.equal(rounded.bias, model.bias)


def test_rounding_error_is_that_of_an_11_bit_significand():
    model = layer()
    assert rounding_error(model, model) == 0.0
    # Rounding to nearest errs by at most 2^-11 of each weight, less on average.
    assert 1e-5 < rounding_error(model, round_to_half(model)) < 2**-11


def test_weights_beyond_float16_are_refused_by_name():
    model = layer()
    with torch.no_grad():
        model.weight[0, 0] = 1e6
    with pytest.raises(InputError, match=r"weight weight: got magnitude 1e\+06") as caught:
        round_to_half(model)
    assert caught.value.code == "checkpoint.half_range"
    assert "fp32" in caught.value.hint


def test_int8_rounding_moves_no_weight_by_more_than_half_a_step():
    model = layer()
    with torch.no_grad():
        model.weight[0] = 0
        model.weight[1] *= 1e-30
    rounded = round_to_int8(model)
    step = model.weight.abs().amax(1, keepdim=True) / 127 * (1 + 2**-10)
    assert bool(((rounded.weight - model.weight).abs() <= step / 2).all())
    assert torch.equal(rounded.bias, model.bias)
    assert torch.equal(round_to_int8(rounded).weight, rounded.weight)
    assert 1e-3 < rounding_error(model, rounded) < 2**-7


def test_int8_rounding_refuses_what_no_scale_fits():
    model = layer()
    with torch.no_grad():
        model.weight[0, 0] = float("nan")
    with pytest.raises(InputError, match="weight weight: got NaN") as caught:
        round_to_int8(model)
    assert caught.value.code == "checkpoint.not_finite"


def test_graphs_besides_the_unet_may_be_stored_otherwise():
    plan = precision_plan("fp16-storage", {"vae_decoder": "int8-storage", "upscaler": "fp32"})
    assert plan["vae_decoder"] == "int8-storage"
    assert (plan["upscaler"], plan["unet"]) == ("fp32", "fp16-storage")


@pytest.mark.parametrize(
    "others", [{"unet": "int8-storage"}, {"encoder": "fp32"}, {"vae_decoder": "int8"}]
)
def test_other_roles_and_precisions_cannot_be_chosen(others):
    with pytest.raises(UsageError) as caught:
        precision_plan("fp16-storage", others)
    assert caught.value.code == "export.precision"
