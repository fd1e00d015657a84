"""Rounding of a network's weights to what float16 can hold, before its graph is made.

Done on the torch side, so that the graph, whose pass only ever stores exactly, can be compared with
the very weights that it holds.
"""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import nn

from hummingbird_export.passes.half_storage import MIN_ELEMENTS
from hummingbird_runtime.errors import InputError
from hummingbird_runtime.manifest import Precision

M = TypeVar("M", bound=nn.Module)

_HALF: Precision = "fp16-storage"

PLANS: dict[Precision, dict[str, Precision]] = {
    "fp32": dict.fromkeys(("unet", "text_encoder", "vae_decoder"), "fp32"),
    _HALF: dict.fromkeys(("unet", "text_encoder", "vae_decoder"), _HALF),
    "int8": {"unet": "int8", "text_encoder": "w8", "vae_decoder": "int8"},
    "int8-dynamic": {"unet": "int8-dynamic", "text_encoder": "w8", "vae_decoder": _HALF},
    "w8": {"unet": "w8", "text_encoder": "w8", "vae_decoder": _HALF},
    "mixed": {"unet": "mixed", "text_encoder": "w4", "vae_decoder": "int8"},
    "w4": {"unet": "w4", "text_encoder": "w4", "vae_decoder": _HALF},
}
"""Precision of a bundle -> of its graphs. Others (small decoder, encoder, upscaler) are at most
halved: their weights are few, and int8 would leave them at the speed of their large images."""


def precision_plan(precision: Precision) -> dict[str, Precision]:
    """Precision of each graph, by role."""
    rest: Precision = "fp32" if precision == "fp32" else _HALF
    return {
        **PLANS[precision],
        **dict.fromkeys(("vae_decoder_tiny", "vae_encoder", "upscaler"), rest),
    }


def round_to_half(model: M, *, min_elements: int = MIN_ELEMENTS) -> M:
    """A copy of a model whose larger parameters are float32 values that float16 holds exactly.

    Args:
        model: left unchanged.
        min_elements: parameters with fewer elements are copied as they are.

    Raises:
        InputError: ``checkpoint.half_range`` when a weight is beyond float16's 65504.
    """
    rounded = copy.deepcopy(model)
    with torch.no_grad():
        for name, parameter in rounded.named_parameters():
            if parameter.numel() < min_elements:
                continue
            half = parameter.half()
            if not bool(torch.isfinite(half).all()):
                raise InputError(
                    "checkpoint.half_range",
                    f"weight {name}: got magnitude {float(parameter.abs().max()):.3g}, "
                    "expected at most 65504 for float16 storage",
                    hint="export with --precision fp32",
                )
            parameter.copy_(half.float())
    return rounded


def rounding_error(model: nn.Module, rounded: nn.Module) -> float:
    """Relative L2 distance between all weights of two copies of a model."""
    difference = total = 0.0
    for a, b in zip(model.parameters(), rounded.parameters(), strict=True):
        difference += float((a.detach().double() - b.detach().double()).square().sum())
        total += float(a.detach().double().square().sum())
    return (difference / total) ** 0.5 if total else 0.0
