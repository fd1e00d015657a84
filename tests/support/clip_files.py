"""Small clips and every way in which this project writes a file or a folder."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hummingbird_runtime.atomic import atomic_folder
from hummingbird_runtime.video import Video


@dataclass(frozen=True)
class Writer:
    """Writes variant number 0, 1, .. of something under a name; equal variants, equal bytes."""

    name: str
    """Of the file or folder."""
    write: Callable[[Path, int], None]
    needs: str = "numpy"
    """The package without which it cannot be tested."""


def clip(variant: int, frames: int = 3, side: int = 16) -> Video:
    pixels = np.random.default_rng(variant).integers(0, 256, (frames, side, side, 3), np.uint8)
    return Video(pixels, 8, seed=variant, prompt="a red ball")


def _video(path: Path, variant: int) -> None:
    clip(variant).save(path)


def _folder(path: Path, variant: int) -> None:
    with atomic_folder(path, overwrite=True) as partial:
        (partial / "graph").mkdir()
        (partial / "graph" / "model.onnx").write_bytes(bytes([variant]) * 70_000)
        (partial / "manifest.json").write_bytes(b'{"variant": %d}' % variant)


def _state(path: Path, variant: int) -> None:
    import torch

    from hummingbird_train.checkpoint import save_state

    save_state(path, {"a": torch.full((200, 50), float(variant))}, {"step": variant})


def _model(path: Path, variant: int) -> None:
    import torch

    from hummingbird_train.models.text_encoder import TextConfig, TextEncoder
    from hummingbird_train.models.weights import save_model

    config = TextConfig(vocab_size=20, max_length=6, width=8, heads=2, layers=2)
    torch.manual_seed(variant)
    save_model(path, TextEncoder(config), config)


WRITERS = {
    "mp4": Writer("clip.mp4", _video, "av"),
    "gif": Writer("clip.gif", _video, "PIL"),
    "webp": Writer("clip.webp", _video, "PIL"),
    "png": Writer("clip.png", _video),
    "y4m": Writer("clip.y4m", _video),
    "npz": Writer("clip.npz", _video),
    "folder": Writer("bundle", _folder),
    "state": Writer("state.safetensors", _state, "torch"),
    "model": Writer("model.safetensors", _model, "torch"),
}
TORCH = [name for name, writer in WRITERS.items() if writer.needs == "torch"]
LIGHT = [name for name in WRITERS if name not in TORCH]


def installed(name: str) -> bool:
    """Whether the writer of that name can work here."""
    return importlib.util.find_spec(WRITERS[name].needs) is not None


def content(path: Path) -> dict[str, bytes] | None:
    """Everything under a name, by relative path; None for nothing at all."""
    if path.is_dir():
        files = (found for found in path.rglob("*") if found.is_file())
        return {str(found.relative_to(path)): found.read_bytes() for found in files}
    if not path.exists():
        return None
    data = path.read_bytes()
    if path.suffix == ".safetensors":  # its metadata have another order in every file
        end = 8 + int.from_bytes(data[:8], "little")
        data = repr(sorted(json.loads(data[8:end])["__metadata__"].items())).encode() + data[end:]
    return {"": data}
