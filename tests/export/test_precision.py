"""Rounding of weights to what float16 holds."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from hummingbird_export.precision import round_to_half, rounding_error
from hummingbird_runtime.errors import InputError


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
