"""Low-rank updates of a U-Net, merged into its weights: W' = W + s * (alpha / r) * up @ down.

Two forms are read: T2V-Turbo's flat list [up0, down0, up1, ...] without names, in the order in
which the published U-Net registers its layers, and files with ``<module>.lora_up.weight``,
``<module>.lora_down.weight`` and optionally ``<module>.alpha``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from hummingbird_export.convert.container import Checkpoint
from hummingbird_export.convert.keys import PREFIXES
from hummingbird_runtime.errors import InputError

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]

_UP, _DOWN, _ALPHA = ".lora_up.weight", ".lora_down.weight", ".alpha"
_FLOATS = ("float16", "bfloat16", "float32", "float64")
_GUIDANCE = "time_cond_proj.weight"

_CHILDREN = ("norm", "proj_in", "transformer_blocks", "proj_out")
_INNER = ("", "attn1", "ff", "attn2", "norm1", "norm2", "norm3")
_TRANSFORMER = re.compile(
    rf"(.+?\.\d+)\.({'|'.join(_CHILDREN)})\.(?:0\.({'|'.join(_INNER[1:])})\.)?(?=[a-z])"
)
"""A tensor of a transformer: its owner, the child, and the layer inside the block."""


@dataclass(frozen=True)
class Pair:
    """Names of one update in its file."""

    up: str
    down: str
    alpha: str | None = None


@dataclass(frozen=True)
class Lora:
    """A LoRA file whose pairs are known and whose layers may be."""

    checkpoint: Checkpoint
    pairs: tuple[Pair, ...]
    modules: tuple[str, ...] | None
    """Module of each pair as the file names it, None for a list."""

    @property
    def ranks(self) -> tuple[int, int]:
        """Smallest and largest rank."""
        ranks = [self._shape(pair.down)[0] for pair in self.pairs]
        return min(ranks), max(ranks)

    def fits(self, expected: Shapes) -> bool:
        """Whether every pair finds a layer of its shape in a U-Net."""
        try:
            self.targets(expected)
        except InputError:
            return False
        return True

    def targets(self, expected: Shapes) -> dict[str, Pair]:
        """The weight that each pair changes.

        Args:
            expected: name -> shape of every tensor of the U-Net.

        Raises:
            InputError: ``lora.layers`` when there are other layers than the U-Net's, ``lora.base``
                when the U-Net lacks the guidance embedding that the LoRA changes, ``lora.shapes``.
        """
        if self.modules is None:
            found = self._listed_targets(expected)
        else:
            found = self._named_targets(expected)
        for weight, pair in found.items():
            up, down = self._shape(pair.up), self._shape(pair.down)
            if not _fits(up, down, expected[weight]):
                raise InputError(
                    "lora.shapes",
                    f"LoRA {self.checkpoint.path}: got up {_dims(up)} and down {_dims(down)} for "
                    f"{weight}, expected an update of {_dims(expected[weight])}",
                    hint="give the LoRA together with the checkpoint that it was trained on",
                )
        return found

    def merge(self, weight: Tensor, pair: Pair, strength: float) -> Tensor:
        """float32 W + strength * (alpha / r) * up @ down, of the shape of W."""
        up, down = (self.checkpoint.read(name).float() for name in (pair.up, pair.down))
        scale = strength
        if pair.alpha is not None:
            scale *= float(self.checkpoint.read(pair.alpha)) / down.shape[0]
        update = up.flatten(1) @ down.flatten(1)  # (out, r) @ (r, in * kernel)
        return weight.float() + scale * update.reshape(weight.shape)

    def _listed_targets(self, expected: Shapes) -> dict[str, Pair]:
        order = lora_order(expected)
        if len(self.pairs) == len(order):
            return dict(zip(order, self.pairs, strict=True))
        if len(self.pairs) == len(order) + 1 and _GUIDANCE not in expected:
            raise InputError(
                "lora.base",
                f"LoRA {self.checkpoint.path}: got {len(self.pairs)} pairs, one more than the "
                f"{len(order)} layers of this U-Net, expected a base with the guidance embedding "
                "time_cond_proj that the LoRA was trained on",
                hint="its random base weight is in the merged checkpoint only; convert that one",
            )
        raise InputError(
            "lora.layers",
            f"LoRA {self.checkpoint.path}: got {len(self.pairs)} pairs, expected {len(order)}: one "
            "for every linear layer and every 2-D and 3-D convolution of this U-Net",
            hint="a list has no names, so it must be complete; name the layers in a safetensors "
            "file (<module>.lora_up.weight, <module>.lora_down.weight)",
        )

    def _named_targets(self, expected: Shapes) -> dict[str, Pair]:
        found: dict[str, Pair] = {}
        strangers = []
        for module, pair in zip(self.modules or (), self.pairs, strict=True):
            prefix = next((p for p in PREFIXES["unet"] if module.startswith(p)), "")
            weight = f"{module.removeprefix(prefix)}.weight"
            if weight in expected and len(expected[weight]) > 1:
                found[weight] = pair
            else:
                strangers.append(module)
        if strangers:
            raise InputError(
                "lora.layers",
                f"LoRA {self.checkpoint.path}: got {len(strangers)} updates of no layer of this "
                f"U-Net, the first {strangers[0]}, expected names of its modules",
                hint="give the LoRA together with the checkpoint that it was trained on",
            )
        return found

    def _shape(self, name: str) -> Shape:
        return self.checkpoint.tensors[name].shape


def read_lora(checkpoint: Checkpoint) -> Lora | None:
    """The pairs of a LoRA file, or None for a file that is none.

    Raises:
        InputError: ``lora.pairs`` for an update without its other half, or no update at all;
            ``checkpoint.dtype`` for numbers that are no floats.
    """
    names = list(checkpoint.tensors)
    if checkpoint.container == "list of tensors":
        if len(names) % 2:
            raise _unpaired(checkpoint, f"a list of {len(names)} tensors")
        pairs = tuple(Pair(a, b) for a, b in zip(names[::2], names[1::2], strict=True))
        return _checked(Lora(checkpoint, pairs, None))
    modules = [name.removesuffix(_UP) for name in names if name.endswith(_UP)]
    if not modules and not any(name.endswith(_DOWN) for name in names):
        return None
    present = set(names)
    wanted = {f"{module}{end}" for module in modules for end in (_UP, _DOWN)}
    optional = {f"{module}{_ALPHA}" for module in modules}
    odd = sorted((wanted - present) | (present - wanted - optional))
    if odd:
        raise _unpaired(checkpoint, f"{odd[0]} without its other half")
    found = tuple(
        Pair(f"{m}{_UP}", f"{m}{_DOWN}", f"{m}{_ALPHA}" if f"{m}{_ALPHA}" in present else None)
        for m in modules
    )
    return _checked(Lora(checkpoint, found, tuple(modules)))


def lora_order(expected: Shapes) -> list[str]:
    """Weights of the layers that a list changes, in the order of the published U-Net.

    The order is that of the published state dict, which is the order of registration. Conv1d layers
    are left out.

    Args:
        expected: name -> shape in the order of our modules, which differs inside transformers only.
    """
    first: dict[str, int] = {}
    keyed = []
    for i, name in enumerate(expected):
        found = _TRANSFORMER.match(name)
        if found is None:
            keyed.append((i, 0, 0, i, name))
            continue
        owner, child, inner = found.groups()
        start = first.setdefault(owner, i)
        keyed.append((start, _CHILDREN.index(child), _INNER.index(inner or ""), i, name))
    published = [name for *_, name in sorted(keyed)]
    return [n for n in published if n.endswith(".weight") and len(expected[n]) in (2, 4, 5)]


def _fits(up: Shape, down: Shape, weight: Shape) -> bool:
    if len(up) < 2 or len(down) < 2:
        return False
    flat = (math.prod(weight[1:]),)
    ranks = math.prod(up[1:]) == down[0]
    return up[0] == weight[0] and ranks and down[1:] in (weight[1:], flat)


def _checked(lora: Lora) -> Lora:
    tensors = lora.checkpoint.tensors
    if not lora.pairs:
        raise _unpaired(lora.checkpoint, "no update")
    odd = [name for name, info in tensors.items() if info.dtype not in _FLOATS]
    if odd:
        raise InputError(
            "checkpoint.dtype",
            f"LoRA {lora.checkpoint.path}: got {tensors[odd[0]].dtype} in {odd[0]}, expected one "
            f"of {', '.join(_FLOATS)}",
            hint="store it as float16 or float32",
        )
    return lora


def _unpaired(checkpoint: Checkpoint, got: str) -> InputError:
    return InputError(
        "lora.pairs",
        f"LoRA {checkpoint.path}: got {got}, expected up and down of every layer",
        hint="give a list [up0, down0, up1, ...] or <module>.lora_up.weight and .lora_down.weight",
    )


def _dims(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) or "a scalar"
