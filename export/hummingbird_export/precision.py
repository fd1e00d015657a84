"""Rounding of a network's weights to what float16 or int8 can hold, before its graph is made.

Done on the torch side, so that the graph, whose pass only ever stores exactly, can be compared with
the very weights that it holds.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, TypeVar

import torch
from torch import nn

from hummingbird_export.passes.weight_storage import LEVELS, MIN_ELEMENTS
from hummingbird_runtime.errors import InputError, UsageError
from hummingbird_runtime.manifest import Precision

M = TypeVar("M", bound=nn.Module)

_HALF: Precision = "fp16-storage"

FLOATS: tuple[Precision, ...] = ("fp32", _HALF, "int8-storage")
"""Arithmetic in float32, however weights are stored."""

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


def precision_plan(
    precision: Precision, others: Mapping[str, Precision] = MappingProxyType({})
) -> dict[str, Precision]:
    """Precision of each graph, by role.

    Args:
        precision: of the U-Net.
        others: graphs that are stored otherwise than ``PLANS`` says, each in one of ``FLOATS``.

    Raises:
        UsageError: ``export.precision`` for a role or a precision that cannot be chosen.
    """
    rest: Precision = "fp32" if precision == "fp32" else _HALF
    plan = {
        **PLANS[precision],
        **dict.fromkeys(("vae_decoder_tiny", "vae_encoder", "upscaler"), rest),
    }
    for role, chosen in others.items():
        if role not in plan or role == "unet" or chosen not in FLOATS:
            raise UsageError(
                "export.precision",
                f"precision of graph {role[:80]!r}, got {str(chosen)[:80]!r}, expected one of "
                f"{', '.join(FLOATS)} for one of {', '.join(sorted(set(plan) - {'unet'}))}",
                hint="what else a graph may be follows from the U-Net's precision",
            )
    return {**plan, **others}


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


def round_to_int8(model: M, *, min_elements: int = MIN_ELEMENTS) -> M:
    """A copy of a model whose larger matrices and kernels are int8 values times a scale.

    One scale per output channel, the largest magnitude over 127. It has 11 significant bits, so
    that products with it are exact in float32 and the graph's pass finds the same scale again.

    Args:
        model: left unchanged.
        min_elements: parameters with fewer elements, and vectors, are copied as they are.

    Raises:
        InputError: ``checkpoint.not_finite`` for weights that no scale fits.
    """
    rounded = copy.deepcopy(model)
    with torch.no_grad():
        for name, parameter in rounded.named_parameters():
            if parameter.numel() < min_elements or parameter.ndim < 2:
                continue
            rows = parameter.flatten(1)
            fraction, exponent = torch.frexp(rows.abs().amax(1, keepdim=True) / LEVELS)
            scale = torch.ldexp(torch.ceil(fraction * 2**11), exponent - 11)
            scale = torch.where(scale > 0, scale, torch.ones_like(scale))
            if not bool(torch.isfinite(rows).all()):
                raise InputError(
                    "checkpoint.not_finite",
                    f"weight {name}: got NaN or infinity, expected finite numbers for int8 storage",
                    hint="train again from a sound state",
                )
            parameter.copy_((torch.round(rows / scale) * scale).view_as(parameter))
    return rounded


STORED: Mapping[Precision, Callable[[Any], Any]] = {
    _HALF: round_to_half,
    "int8-storage": round_to_int8,
}
"""What rounds a network to the weights that a precision stores; others store float32."""


def rounding_error(model: nn.Module, rounded: nn.Module) -> float:
    """Relative L2 distance between all weights of two copies of a model."""
    difference = total = 0.0
    for a, b in zip(model.parameters(), rounded.parameters(), strict=True):
        difference += float((a.detach().double() - b.detach().double()).square().sum())
        total += float(a.detach().double().square().sum())
    return (difference / total) ** 0.5 if total else 0.0
