"""Style adapters on the export side: written to a file, merged into a torch U-Net.

An adapter changes W to W + strength (alpha / r) up down (LoRA, arXiv:2106.09685). The runtime does
the same to the weights of a bundle when it opens it; merging here and exporting is what that must
equal. The file's format is the runtime's, and so is the reader.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from hummingbird_runtime.adapters import FORMAT
from hummingbird_runtime.errors import InputError, UsageError
from hummingbird_runtime.safetensors import read_safetensors
from hummingbird_train.models.unet import VideoUNet
from hummingbird_train.models.weights import write_tensors

_DOWN, _UP, _ALPHA = ".lora_down.weight", ".lora_up.weight", ".alpha"


class LowRank(NamedTuple):
    """A change of rank r of one module's weight."""

    down: Tensor
    """(r, in...), the trailing axes those of the weight: (r, in) or (r, in, kernel...)."""
    up: Tensor
    """(out, r...), what follows r being ones."""
    alpha: float | None = None
    """The change counts alpha / r times; None is r."""


def save_adapter(
    path: Path, pairs: Mapping[str, LowRank], *, base: str = "", name: str = ""
) -> None:
    """Write an adapter; the file is either the old or the new one.

    Args:
        path: the safetensors file.
        pairs: changes by module path, such as ``input_blocks.1.1.transformer_blocks.0.attn1.to_q``;
            float16 or float32.
        base: id of the bundle that it is for; empty fits any of that shape.
        name: for people.

    Raises:
        UsageError: ``adapter.factors`` for factors that make no change of a weight.
        ResourceError: an ``output.*`` code for what the system refuses.
    """
    tensors: dict[str, Tensor] = {}
    for target, pair in pairs.items():
        _check_pair(target, pair)
        tensors[target + _DOWN] = pair.down.detach().cpu().contiguous()
        tensors[target + _UP] = pair.up.detach().cpu().contiguous()
        if pair.alpha is not None:
            tensors[target + _ALPHA] = torch.tensor(float(pair.alpha))
    if not tensors:
        raise UsageError(
            "adapter.factors", "adapter: got no modules, expected one or more", hint="name some"
        )
    write_tensors(path, tensors, {"format": FORMAT, "base": base, "name": name})


def load_adapter(path: Path) -> dict[str, LowRank]:
    """Changes by module path, float32.

    Raises:
        InputError: ``adapter.not_found``, ``adapter.invalid``.
        ResourceError: ``adapter.unreadable``.
    """
    file = read_safetensors(path)
    targets = sorted({name.removesuffix(_DOWN) for name in file.tensors if name.endswith(_DOWN)})
    known = {target + suffix for target in targets for suffix in (_DOWN, _UP, _ALPHA)}
    odd = sorted(set(file.tensors) - known)
    odd += [target + _UP for target in targets if target + _UP not in file.tensors]
    if odd or not targets or file.metadata.get("format") != FORMAT:
        raise InputError(
            "adapter.invalid",
            f"adapter {path.name}: got tensors {odd[:4]} that do not pair up or another format, "
            f"expected lora_down and lora_up by module, in a file of format {FORMAT}",
            hint="use a file that save_adapter wrote",
        )
    return {
        target: LowRank(
            torch.from_numpy(file.tensors[target + _DOWN]),
            torch.from_numpy(file.tensors[target + _UP]),
            _alpha(file.tensors.get(target + _ALPHA)),
        )
        for target in targets
    }


def merge_adapter(unet: VideoUNet, path: Path, strength: float = 1.0) -> None:
    """Add an adapter to the weights of a U-Net, in place.

    Args:
        unet: float32; its layers are named as the adapter's targets.
        path: the adapter.
        strength: factor of the whole change; 0 changes nothing.

    Raises:
        InputError: ``adapter.mismatch`` when a module is missing or of another shape, and the
            codes of ``load_adapter``; then nothing is changed.
    """
    changes = load_adapter(path)
    modules = dict(unet.named_modules())
    updates = []
    for target, pair in changes.items():
        weight = getattr(modules.get(target), "weight", None)
        rank = pair.down.shape[0]
        if not isinstance(weight, nn.Parameter) or weight.shape != (
            pair.up.shape[0],
            *pair.down.shape[1:],
        ):
            got = "no such layer" if weight is None else f"a weight {list(weight.shape)}"
            raise InputError(
                "adapter.mismatch",
                f"adapter {path.name}: {target}: got {got} in the U-Net, expected one of "
                f"{[pair.up.shape[0], *pair.down.shape[1:]]}",
                hint="use a style that was trained for this model",
            )
        scale = 1.0 if pair.alpha is None else pair.alpha / rank
        updates.append((weight, pair, strength * scale))
    with torch.no_grad():
        for weight, pair, factor in updates:
            rank = pair.down.shape[0]
            change = pair.up.reshape(-1, rank) @ pair.down.reshape(rank, -1)
            weight.add_(factor * change.reshape(weight.shape))


def _check_pair(target: str, pair: LowRank) -> None:
    down, up, alpha = pair
    rank = down.shape[0] if down.ndim >= 2 else 0
    fits = up.ndim >= 2 and rank and up.shape[1] == rank and math.prod(up.shape[2:]) == 1
    types = {down.dtype, up.dtype} <= {torch.float16, torch.float32}
    finite = bool(torch.isfinite(down).all()) and bool(torch.isfinite(up).all())
    if not (fits and types and finite and (alpha is None or math.isfinite(alpha))):
        raise UsageError(
            "adapter.factors",
            f"{target}: got lora_down {list(down.shape)} {down.dtype} and lora_up "
            f"{list(up.shape)} {up.dtype}, expected (r, in...) and (out, r), finite, float16 or "
            "float32",
            hint="r is the first axis of one and the second of the other",
        )


def _alpha(stored: np.ndarray | None) -> float | None:
    return None if stored is None else float(stored.ravel()[0])
