"""Styles: low-rank changes of a graph's weights, merged in NumPy when the graph is opened.

A style is one safetensors file of low-rank factors (LoRA, arXiv:2106.09685) by module path. Here it
is read and compared with the bundle; the sums are in adapter_merge.py. Another strength is another
session.
"""

from __future__ import annotations

import os
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hummingbird_runtime.adapter_map import Weight, read_map, read_stored
from hummingbird_runtime.adapter_merge import Factors, merge_weight
from hummingbird_runtime.arguments import real_number, wrong_type
from hummingbird_runtime.bundle import Bundle
from hummingbird_runtime.errors import InputError
from hummingbird_runtime.limits import check_range
from hummingbird_runtime.safetensors import TensorFile, invalid, read_safetensors

ROLE = "unet"
FORMAT = "hummingbird-adapter"
STRENGTHS = (-10.0, 10.0)
_DOWN, _UP, _ALPHA = ".lora_down.weight", ".lora_up.weight", ".alpha"


@dataclass(frozen=True, eq=False)
class Style:
    """An adapter that fits a graph of a bundle."""

    bundle: Bundle
    strength: float
    factors: dict[str, Factors]
    """By module path."""
    weights: dict[str, tuple[Weight, ...]] = field(repr=False)
    """What each module path changes in the graph."""
    role: str = ROLE

    def merged(self) -> dict[str, NDArray[Any]]:
        """The changed initializers by name; none for strength 0.

        Raises:
            InputError: ``adapter.saturates``; ``bundle.manifest_invalid`` for a bad map.
        """
        if self.strength == 0:
            return {}
        changes: dict[str, list[tuple[Weight, Factors]]] = defaultdict(list)
        for target, weights in self.weights.items():
            for weight in weights:
                changes[weight.name].append((weight, self.factors[target]))
        return {
            name: merge_weight(
                parts, self.strength, lambda stored: read_stored(self.bundle, self.role, stored)
            )
            for name, parts in changes.items()
        }


def open_style(bundle: Bundle, style: object, strength: object) -> Style:
    """Read an adapter and compare it with the bundle; nothing is merged yet.

    Args:
        bundle: verified.
        style: name of a style of the bundle, or path of a safetensors file.
        strength: a number in ``STRENGTHS``.

    Raises:
        UsageError: ``request.type``.
        InputError: ``adapter.not_found``, ``adapter.invalid``, ``adapter.mismatch``,
            ``adapter.strength``, ``request.not_finite``.
        ResourceError: ``adapter.unreadable``.
    """
    if not isinstance(style, str | os.PathLike):
        raise wrong_type("style", style, "a str or path")
    factor = real_number("style_strength", strength)
    check_range("adapter.strength", "style_strength", factor, STRENGTHS)
    name = os.fspath(style)
    listed = bundle.manifest.adapters.get(name)
    path = Path(name)
    if listed is not None:
        bundle.check_unchanged(listed.path)
        path = bundle.root / listed.path
    file = read_safetensors(path)
    if file.metadata.get("format") != FORMAT:
        raise invalid(path, f"expected format {FORMAT!r} in its metadata")
    base = file.metadata.get("base", "")
    if base not in ("", bundle.manifest.bundle_id):
        raise _mismatch(path, f"made for bundle {base[:60]!r}, got {bundle.manifest.bundle_id}")
    factors, known = _factors(path, file), read_map(bundle, ROLE)
    unknown = sorted(factors.keys() - known.keys())
    if unknown:
        names = ", ".join(target[:80] for target in unknown[:5])
        raise _mismatch(path, f"the U-Net has no {names} ({len(unknown)} of {len(factors)})")
    for target, change in factors.items():
        for weight in known[target]:
            _check_shape(path, target, change, weight)
    return Style(bundle, factor, factors, {target: known[target] for target in factors})


def _factors(path: Path, file: TensorFile) -> dict[str, Factors]:
    """The tensors of a file by module path."""
    parts: dict[str, dict[str, NDArray[np.float32]]] = defaultdict(dict)
    for name, tensor in file.tensors.items():
        suffix = next((s for s in (_DOWN, _UP, _ALPHA) if name.endswith(s)), None)
        if suffix is None or name == suffix:
            raise invalid(path, f"got tensor {name[:80]!r}, expected lora_down, lora_up or alpha")
        parts[name.removesuffix(suffix)][suffix] = tensor
    if not parts:
        raise invalid(path, "got no tensors")
    return {target: _factor(path, target, tensors) for target, tensors in parts.items()}


def _factor(path: Path, target: str, tensors: dict[str, NDArray[np.float32]]) -> Factors:
    down, up, alpha = tensors.get(_DOWN), tensors.get(_UP), tensors.get(_ALPHA)
    if down is None or up is None or down.ndim < 2 or up.ndim < 2:
        raise invalid(path, f"{target[:80]}: expected lora_down and lora_up of rank 2 or more")
    rank = down.shape[0]
    if up.size != up.shape[0] * rank or (alpha is not None and alpha.size != 1):
        raise invalid(
            path, f"{target[:80]}: got down {list(down.shape)}, up {list(up.shape)}, one rank"
        )
    scale = 1.0 if alpha is None else float(alpha.ravel()[0]) / rank
    return Factors(up.reshape(-1, rank), down.reshape(rank, -1), scale)


def _check_shape(path: Path, target: str, change: Factors, weight: Weight) -> None:
    rows = weight.rows or (0, len(change.up))
    per_row = int(np.prod(weight.dims)) // weight.out_channels
    got = [len(change.up), change.down.shape[1]]
    if rows[1] > got[0] or rows[1] - rows[0] != weight.out_channels or per_row != got[1]:
        raise _mismatch(
            path, f"{target[:80]}: got a change of {got}, {weight.name} is {list(weight.dims)}"
        )


def _mismatch(path: Path, problem: str) -> InputError:
    return InputError(
        "adapter.mismatch",
        f"adapter {path.name}: {problem}",
        hint="use a style that was trained for this model",
    )
