"""Low-rank adaptation of a U-Net (LoRA, Hu et al. 2021, arXiv:2106.09685), and its file.

W becomes W + strength (alpha / r) up down. The change sits on the weight, as a parametrization, not
beside the layer: temporal layers of this U-Net compute with their weight in forms of their own
(Conv3d as Conv2d, Conv1d as Linear), which a layer wrapped from outside would miss. So what is
trained is exactly what is merged, here and in the runtime, whose file format is written.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from hummingbird_runtime.adapters import FORMAT
from hummingbird_runtime.errors import InputError, UsageError
from hummingbird_runtime.safetensors import read_safetensors
from hummingbird_train.models.weights import write_tensors

TARGETS = {
    "all": r".",
    "attention": r"\.attn[12]\.",
    "transformers": r"\.transformer_blocks\.|\.proj_(in|out)$",
    "spatial": r"^(?!.*(temopral_conv|init_attn|embed|\.2\.(proj|transformer)|time_)).*$",
}
"""Named patterns of module paths. ``spatial`` leaves motion alone: no layer over time, no embedding
of time; a stage's third block is its temporal transformer."""

_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
_DOWN, _UP, _ALPHA = ".lora_down.weight", ".lora_up.weight", ".alpha"
_PARAMETRIZED = ".parametrizations.weight.0."


@dataclass(frozen=True)
class LoraConfig:
    """Size and place of the change."""

    rank: int = 16
    """r; a layer takes at most its smaller side."""
    alpha: float | None = None
    """The change counts alpha / r times; None is r, for every layer its own."""
    dropout: float = 0.0
    """Share of the r components that a training step leaves out."""
    targets: str = "all"
    """A name of ``TARGETS``, or a regular expression searched for in module paths."""

    def __post_init__(self) -> None:
        alpha = 1.0 if self.alpha is None else self.alpha
        if self.rank < 1 or not 0 < alpha < math.inf or not 0 <= self.dropout < 1:
            raise UsageError(
                "lora.options",
                f"LoRA, got rank {self.rank}, alpha {self.alpha}, dropout {self.dropout}, "
                "expected rank of 1 or more, alpha above 0, dropout in [0, 1)",
                hint="rank 16 without alpha is a good start",
            )


class LowRank(NamedTuple):
    """A change of rank r of one module's weight."""

    down: Tensor
    """(r, in...), the trailing axes those of the weight: (r, in) or (r, in, kernel...)."""
    up: Tensor
    """(out, r...), what follows r being ones."""
    alpha: float | None = None
    """The change counts alpha / r times; None is r."""


class LowRankWeight(nn.Module):
    """W + strength (alpha / r) up down, a parametrization of one weight; starts as no change.

    Args:
        weight: (out, in...), of the layer.
        config: rank, alpha and dropout.
    """

    def __init__(self, weight: Tensor, config: LoraConfig) -> None:
        super().__init__()
        rank = min(config.rank, weight.shape[0], weight[0].numel())
        self.down = nn.Parameter(torch.randn(rank, *weight.shape[1:]) * weight[0].numel() ** -0.5)
        self.up = nn.Parameter(torch.zeros(weight.shape[0], rank))
        self.alpha = float(rank if config.alpha is None else config.alpha)
        self.dropout, self.strength = config.dropout, 1.0

    def forward(self, weight: Tensor) -> Tensor:
        """(out, in...) -> same."""
        if self.strength == 0:
            return weight
        rank = self.down.shape[0]
        up = self.up * (self.strength * self.alpha / rank)
        if self.training and self.dropout:
            kept = torch.rand(rank, device=up.device) >= self.dropout
            up = up * (kept / (1 - self.dropout))
        change = up @ self.down.flatten(1)
        return weight + change.view(weight.shape)


def add_lora(model: nn.Module, config: LoraConfig, *, seed: int = 0) -> tuple[str, ...]:
    """Freeze a network and put a change of low rank, still zero, on its chosen layers.

    Args:
        model: its Linear and convolution layers are candidates.
        config: which of them, and how large.
        seed: of the initial ``down``.

    Returns:
        The changed module paths.

    Raises:
        UsageError: ``lora.targets`` for a pattern that names no layer or is no pattern.
    """
    pattern = TARGETS.get(config.targets, config.targets)
    try:
        chosen = [
            (name, module)
            for name, module in model.named_modules()
            if isinstance(module, _LAYERS) and re.search(pattern, name)
        ]
    except re.error as error:
        raise _no_layers(config.targets, f"got {error}") from error
    if not chosen:
        raise _no_layers(config.targets, "got no layer that it names")
    model.requires_grad_(False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for _, module in chosen:
            change = LowRankWeight(module.weight, config).to(module.weight)
            parametrize.register_parametrization(module, "weight", change)
    return tuple(name for name, _ in chosen)


def changes(model: nn.Module) -> Iterator[tuple[str, LowRankWeight]]:
    """The changes of a network by module path."""
    for name, module in model.named_modules():
        if isinstance(module, LowRankWeight):
            yield name.removesuffix(_PARAMETRIZED.rstrip(".")), module


def set_strength(model: nn.Module, strength: float) -> None:
    """How much every change counts; 0 is the base, bit for bit."""
    for _, change in changes(model):
        change.strength = float(strength)


def remove_lora(model: nn.Module, *, merge: bool) -> None:
    """Make every layer plain again, with the change added to its weight or without it."""
    for name, _ in list(changes(model)):
        module = model.get_submodule(name)
        parametrize.remove_parametrizations(module, "weight", leave_parametrized=merge)


def low_ranks(
    model: nn.Module, weights: Mapping[str, Tensor] | None = None, *, prefix: str = ""
) -> dict[str, LowRank]:
    """The factors of a network's changes by module path.

    Args:
        model: after ``add_lora``.
        weights: averages to take in place of the live factors, by parameter name.
        prefix: of those names.
    """
    found = {}
    for name, change in changes(model):
        parts = {"down": change.down, "up": change.up}
        for key in parts:
            full = f"{prefix}{name}{_PARAMETRIZED}{key}"
            parts[key] = (weights or {}).get(full, parts[key]).detach().float().cpu().clone()
        up = parts["up"].reshape(*parts["up"].shape, *[1] * (change.down.ndim - 2))
        found[name] = LowRank(parts["down"], up, change.alpha)
    return found


def save_adapter(
    path: Path, pairs: Mapping[str, LowRank], *, base: str = "", name: str = ""
) -> None:
    """Write an adapter that the runtime applies; the file is either the old or the new one.

    Args:
        path: the safetensors file.
        pairs: changes by module path; float16 or float32.
        base: id of the bundle that it is for; empty fits any of that shape.
        name: for people.

    Raises:
        UsageError: ``adapter.factors`` for factors that make no change of a weight.
        ResourceError: an ``output.*`` code for what the system refuses.
    """
    if not pairs:
        raise UsageError(
            "adapter.factors", "adapter: got no modules, expected one or more", hint="name some"
        )
    tensors: dict[str, Tensor] = {}
    for target, pair in pairs.items():
        _check_pair(target, pair)
        tensors[target + _DOWN] = pair.down.detach().cpu().contiguous().clone()
        tensors[target + _UP] = pair.up.detach().cpu().contiguous().clone()
        if pair.alpha is not None:
            tensors[target + _ALPHA] = torch.tensor(float(pair.alpha))
    write_tensors(path, tensors, {"format": FORMAT, "base": base, "name": name})


def load_adapter(path: Path) -> dict[str, LowRank]:
    """Changes of a file by module path, float32.

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
            hint="use a file that `hummingbird train style` wrote",
        )
    found = {}
    for target in targets:
        alpha = file.tensors.get(target + _ALPHA)
        found[target] = LowRank(
            torch.from_numpy(file.tensors[target + _DOWN]),
            torch.from_numpy(file.tensors[target + _UP]),
            None if alpha is None else float(alpha.ravel()[0]),
        )
    return found


def merge_adapter(model: nn.Module, path: Path, strength: float = 1.0) -> None:
    """Add an adapter to the weights of a network, in place.

    Args:
        model: float32; its layers are named as the adapter's targets.
        path: the adapter.
        strength: factor of the whole change; 0 changes nothing.

    Raises:
        InputError: ``adapter.mismatch`` when a module is missing or of another shape, and the
            codes of ``load_adapter``; then nothing is changed.
    """
    modules = dict(model.named_modules())
    updates = []
    for target, pair in load_adapter(path).items():
        weight = getattr(modules.get(target), "weight", None)
        wanted = (pair.up.shape[0], *pair.down.shape[1:])
        if not isinstance(weight, nn.Parameter) or weight.shape != wanted:
            got = "no such layer" if weight is None else f"a weight {list(weight.shape)}"
            raise InputError(
                "adapter.mismatch",
                f"adapter {path.name}: {target}: got {got} in the U-Net, expected one of "
                f"{list(wanted)}",
                hint="use a style that was trained for this model",
            )
        rank = pair.down.shape[0]
        scale = 1.0 if pair.alpha is None else pair.alpha / rank
        updates.append((weight, pair, strength * scale))
    if strength == 0:
        return
    with torch.no_grad():
        for weight, pair, factor in updates:
            rank = pair.down.shape[0]
            change = (pair.up.reshape(-1, rank) * factor) @ pair.down.reshape(rank, -1)
            weight.add_(change.view(weight.shape))


def _no_layers(targets: str, got: str) -> UsageError:
    return UsageError(
        "lora.targets",
        f"LoRA targets {targets[:80]!r}: {got}, expected a pattern of module paths",
        hint=f"use {', '.join(TARGETS)}, or a regular expression such as 'attn2'",
    )


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
