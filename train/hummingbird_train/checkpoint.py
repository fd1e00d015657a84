"""Training state on disk: one safetensors file, replaced atomically, that resumes bit for bit."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from hummingbird_runtime.errors import InputError
from hummingbird_train.models.weights import write_tensors


def save_state(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write tensors and JSON facts so that the file is either the old or the new one."""
    flat = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    write_tensors(path, flat, {"facts": json.dumps(dict(facts))})


def load_state(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what ``save_state`` wrote.

    Raises:
        InputError: ``checkpoint.corrupt`` when the file cannot be read as such.
    """
    try:
        with safe_open(str(path), framework="pt") as file:
            facts = json.loads((file.metadata() or {})["facts"])
            return {name: file.get_tensor(name) for name in file.keys()}, facts  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise InputError(
            "checkpoint.corrupt",
            f"training state {path}: {error}",
            hint="remove it to start this stage again",
        ) from error
