"""Networks on disk: a safetensors file with kind and configuration of the network as metadata."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from hummingbird_runtime.atomic import atomic_file
from hummingbird_runtime.errors import ExecutionError, InputError, UsageError
from hummingbird_train.models.autoencoder import AutoencoderConfig, AutoencoderKL
from hummingbird_train.models.embeddings import sinusoid_table
from hummingbird_train.models.text_encoder import TextConfig, TextEncoder
from hummingbird_train.models.tiny_decoder import TinyDecoder, TinyDecoderConfig
from hummingbird_train.models.unet import UNetConfig, VideoUNet
from hummingbird_train.models.upscaler import Upscaler, UpscalerConfig

Config = UNetConfig | AutoencoderConfig | TextConfig | TinyDecoderConfig | UpscalerConfig
Model = VideoUNet | AutoencoderKL | TextEncoder | TinyDecoder | Upscaler

KINDS: dict[str, tuple[type[Config], type[Model]]] = {
    "unet": (UNetConfig, VideoUNet),
    "autoencoder": (AutoencoderConfig, AutoencoderKL),
    "text_encoder": (TextConfig, TextEncoder),
    "tiny_decoder": (TinyDecoderConfig, TinyDecoder),
    "upscaler": (UpscalerConfig, Upscaler),
}
"""Name in the metadata -> configuration and network."""

STORAGE = (torch.float16, torch.float32)
"""Number formats of stored weights."""


def save_model(
    path: Path, model: nn.Module, config: Config, *, dtype: torch.dtype = torch.float32
) -> None:
    """Write a network; the file is either the old or the new one.

    Args:
        path: the safetensors file.
        model: holds exactly the tensors that ``config`` describes.
        config: stored with the weights, decides the kind of network.
        dtype: storage format, float16 or float32.

    Raises:
        UsageError: ``checkpoint.dtype`` for another format, ``checkpoint.kind`` for another config.
        InputError: ``checkpoint.keys`` or ``checkpoint.shapes`` when model and config disagree.
        ExecutionError: ``checkpoint.not_finite`` when a weight is, or overflows to, inf or NaN.
    """
    if dtype not in STORAGE:
        raise UsageError(
            "checkpoint.dtype",
            f"storage format, got {dtype}, expected one of {[str(d) for d in STORAGE]}",
            hint="pass dtype=torch.float16 or torch.float32",
        )
    kind = next((name for name, (owner, _) in KINDS.items() if type(config) is owner), None)
    if kind is None:
        raise UsageError(
            "checkpoint.kind",
            f"configuration, got {type(config).__name__}, expected one of {_names()}",
            hint="pass the configuration that the model was built from",
        )
    tensors = {n: t.detach().to("cpu", dtype).contiguous() for n, t in model.state_dict().items()}
    check_tensors(path, tensors, skeleton(kind, config).state_dict())
    broken = _not_finite(tensors)
    if broken:
        raise ExecutionError(
            "checkpoint.not_finite",
            f"weights of {path} as {dtype}, got infinite or NaN values in {broken}, "
            "expected finite values",
            hint="store as float32, or look for divergence in training",
        )
    metadata = {"format": "pt", "model": kind, "config": json.dumps(config.to_json())}
    write_tensors(path, tensors, metadata)


def write_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write a safetensors file; it is either the old or the new one.

    Raises:
        ResourceError: an ``output.*`` code for what the system refuses.
    """
    # The library writes beside what it is given, under a name of its own that a kill leaves behind:
    # so it gets a folder.
    with (
        atomic_file(path, overwrite=True) as temporary,
        TemporaryDirectory(prefix=temporary.name, dir=temporary.parent) as folder,
    ):
        written = Path(folder, "weights.safetensors")
        try:
            save_file(tensors, str(written), metadata=metadata)
            os.replace(written, temporary)
        except SafetensorError as error:  # tells the system's error as text only
            number = re.search(r"os error (\d+)", str(error))
            raise OSError(int(number[1]) if number else None, str(error)) from error


def load_model(path: Path, *, dtype: torch.dtype = torch.float32) -> Model:
    """Read a network that ``save_model`` wrote, in evaluation mode on the CPU.

    Args:
        path: the safetensors file.
        dtype: number format of the loaded weights.

    Raises:
        InputError: ``checkpoint.missing``, ``checkpoint.corrupt``, ``checkpoint.kind``,
            ``checkpoint.config``, ``checkpoint.dtype``, ``checkpoint.keys``,
            ``checkpoint.shapes`` or ``checkpoint.not_finite``.
    """
    kind, config, stored = read(path)
    model = skeleton(kind, config)
    check_tensors(path, stored, model.state_dict())
    broken = _not_finite(stored)
    if broken:
        raise InputError(
            "checkpoint.not_finite",
            f"weights of {path}, got infinite or NaN values in {broken}, expected finite values",
            hint="get the file again or train again",
        )
    model.load_state_dict({n: t.to(dtype) for n, t in stored.items()}, strict=True, assign=True)
    if isinstance(model, VideoUNet):  # not stored: it is the same for every model of that width
        model.sinusoids = sinusoid_table(model.config.model_channels).to(dtype)
    return model.eval()


def read(path: Path) -> tuple[str, Config, dict[str, Tensor]]:
    """Kind, configuration and stored tensors of a file.

    Raises:
        InputError: as ``load_model``, short of comparing tensors with the configuration.
    """
    if not path.is_file():
        raise InputError(
            "checkpoint.missing",
            f"weights {path}, got no such file, expected a safetensors file",
            hint="check the path",
        )
    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise InputError(
            "checkpoint.corrupt",
            f"weights {path}, got {error}, expected a safetensors file",
            hint="get the file again",
        ) from error
    kind = metadata.get("model", "nothing")
    if kind not in KINDS:
        raise InputError(
            "checkpoint.kind",
            f"weights {path}, got metadata for {kind!r}, expected one of {_names()}",
            hint="load a file that save_model wrote",
        )
    try:
        values = json.loads(metadata.get("config", ""))
    except ValueError:
        values = None
    if not isinstance(values, dict):
        raise InputError(
            "checkpoint.config",
            f"configuration in {path}, got no JSON object, expected the fields of a {kind}",
            hint="load a file that save_model wrote",
        )
    odd = sorted(n for n, t in tensors.items() if t.dtype not in STORAGE)
    if odd:
        raise InputError(
            "checkpoint.dtype",
            f"weights {path}, got {tensors[odd[0]].dtype} in {_some(odd)}, "
            f"expected one of {[str(d) for d in STORAGE]}",
            hint="store as float16 or float32",
        )
    return kind, KINDS[kind][0].from_json(values), tensors


def skeleton(kind: str, config: Config) -> Model:
    """The network on the meta device: names and shapes without memory."""
    with torch.device("meta"):
        return KINDS[kind][1](config)  # type: ignore[arg-type]


def check_tensors(path: Path, got: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Compare names and shapes.

    Raises:
        InputError: ``checkpoint.keys`` or ``checkpoint.shapes``.
    """
    missing, unexpected = sorted(expected.keys() - got.keys()), sorted(got.keys() - expected.keys())
    if missing or unexpected:
        raise InputError(
            "checkpoint.keys",
            f"weights {path}, got {len(got)} tensors with {len(missing)} missing {_some(missing)} "
            f"and {len(unexpected)} unexpected {_some(unexpected)}, expected the {len(expected)} "
            "of its configuration",
            hint="use the configuration that the weights were trained with",
        )
    wrong = sorted(n for n, t in expected.items() if got[n].shape != t.shape)
    if wrong:
        name = wrong[0]
        raise InputError(
            "checkpoint.shapes",
            f"weights {path}, got {len(wrong)} other shapes, the first "
            f"{name} {list(got[name].shape)}, expected {list(expected[name].shape)}",
            hint="use the configuration that the weights were trained with",
        )


def count_parameters(model: nn.Module) -> int:
    """Number of parameters, trained or not."""
    return sum(p.numel() for p in model.parameters())


def _not_finite(tensors: dict[str, Tensor]) -> str:
    broken = sorted(n for n, t in tensors.items() if not bool(torch.isfinite(t).all()))
    return _some(broken) if broken else ""


def _some(names: list[str]) -> str:
    return f"[{', '.join(names[:4])}{', ...' if len(names) > 4 else ''}]"


def _names() -> str:
    return ", ".join(KINDS)
