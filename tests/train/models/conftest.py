"""Vectors of the published architectures at small widths; closed-form weights and inputs."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn


def _wave(function: Callable[[Tensor], Tensor], shape: tuple[int, ...]) -> Tensor:
    """function(j) of the flat index j, in float64, then float32."""
    return function(torch.arange(math.prod(shape), dtype=torch.float64)).float().reshape(shape)


def _closed_form(model: nn.Module) -> nn.Module:
    """Every tensor from its place in the sorted key list: s sin(1.7 k + 0.9 j + 0.3)."""
    tensors = {}
    for k, (name, old) in enumerate(sorted(model.state_dict().items())):
        scale = 1 / math.sqrt(old[0].numel()) if old.ndim >= 2 else 0.1
        values = _wave(lambda j, k=k, s=scale: s * (1.7 * k + 0.9 * j + 0.3).sin(), old.shape)
        tensors[name] = values + 1 if old.ndim == 1 and name.endswith(".weight") else values
    model.load_state_dict(tensors)
    return model.eval()


def _digest(model: nn.Module) -> tuple[int, str]:
    """Number of tensors and SHA-256 of the sorted `key:dims` lines."""
    lines = [f"{n}:{','.join(map(str, t.shape))}\n" for n, t in model.state_dict().items()]
    return len(lines), hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()


def _randomize(model: nn.Module, seed: int = 0) -> nn.Module:
    """Replace parameters that start at zero, so that no branch is silent."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                parameter.normal_(std=0.05, generator=generator)
    return model.eval()


def _relative(got: Tensor, expected: Tensor) -> float:
    """Relative L2 error."""
    return float((got - expected).norm() / expected.norm())


def _load_reference(name: str) -> tuple[dict[str, Any], dict[str, Tensor], dict[str, Tensor]]:
    """Configuration, float32 weights, inputs and outputs of one reference network."""
    data = Path(__file__).parent / "data"
    path = data / f"{name}.weights.safetensors"
    with safe_open(str(path), framework="pt") as file:
        config = json.loads(file.metadata()["config"])
    weights = {n: t.float() for n, t in load_file(path).items()}
    return config, weights, load_file(data / f"{name}.io.safetensors")


def _published_shapes(name: str) -> tuple[int, dict[str, tuple[int, ...]]]:
    """Parameter count and shapes of a published U-Net at full size."""
    path = Path(__file__).parent / "data" / f"keys_unet_{name}.tsv"
    first, *lines = path.read_text(encoding="utf-8").splitlines()
    shapes = {}
    for line in lines:
        key, dims = line.split("\t")
        shapes[key] = tuple(int(d) for d in dims.split("x"))
    return int(first.split()[1]), shapes


@pytest.fixture(scope="session")
def vectors() -> SimpleNamespace:
    return SimpleNamespace(
        wave=_wave,
        closed_form=_closed_form,
        digest=_digest,
        randomize=_randomize,
        relative=_relative,
        reference=_load_reference,
        published_shapes=_published_shapes,
    )
