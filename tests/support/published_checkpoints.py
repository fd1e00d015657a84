"""Small networks under the published names, in every container that publishers use."""

from __future__ import annotations

import contextlib
import functools
import io
import pickle
import sys
import types
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from hummingbird_export.random_models import randomize
from hummingbird_train.models.autoencoder import AutoencoderConfig, AutoencoderKL
from hummingbird_train.models.text_encoder import TextConfig, TextEncoder
from hummingbird_train.models.unet import UNetConfig, VideoUNet

PREFIXES = {
    "unet": "model.diffusion_model.",
    "vae": "first_stage_model.",
    "text": "cond_stage_model.model.",
}

UNET = UNetConfig(
    model_channels=32,
    channel_mult=(1, 2),
    num_res_blocks=1,
    attention_resolutions=(2,),
    middle_block=False,
    num_head_channels=2,
    context_dim=8,
    time_cond_proj_dim=8,
)
VAE = AutoencoderConfig(channels=32, channel_mult=(1, 2), num_res_blocks=1)
TEXT = TextConfig(vocab_size=40, max_length=8, width=8, heads=1, layers=3)
CLIP_TEXT = TextConfig(width=8, heads=1, layers=2)
"""With CLIP's vocabulary and length, for bundles."""
BUNDLE_UNET = replace(UNET, model_channels=64, num_head_channels=64)
BUNDLE_VAE = replace(VAE, channels=64)
"""Two channels a group, so that a latent of one cell can be normalized; few heads."""

Sources = dict[str, Tensor]


@functools.cache
def networks(
    unet: UNetConfig = UNET, vae: AutoencoderConfig = VAE, text: TextConfig = TEXT
) -> dict[str, nn.Module]:
    """Part -> network with every layer random."""
    models = {"unet": VideoUNet(unet), "vae": AutoencoderKL(vae), "text": TextEncoder(text)}
    for seed, model in enumerate(models.values()):
        randomize(model, seed=seed)
    return models


def published(models: Mapping[str, nn.Module] | None = None) -> Sources:
    """Prefixed tensors of networks, and what publishers store beside them."""
    tensors: Sources = OrderedDict()
    for part, model in (networks() if models is None else models).items():
        for name, tensor in model.state_dict().items():
            tensors[PREFIXES[part] + name] = tensor
    for name in ("betas", "alphas_cumprod", "scale_arr"):
        tensors[name] = torch.linspace(0, 1, 10)
    tensors["cond_stage_model.model.attn_mask"] = torch.full((8, 8), float("-inf")).triu(1)
    tensors["cond_stage_model.model.visual.conv1.weight"] = torch.ones(2, 2)
    tensors["first_stage_model.loss.logvar"] = torch.zeros(())
    tensors["model_ema.decay"] = torch.tensor(0.99)
    tensors["model_ema.num_updates"] = torch.tensor(3, dtype=torch.int32)
    return tensors


def _safetensors(path: Path, tensors: Sources) -> None:
    save_file({n: t.contiguous() for n, t in tensors.items()}, path)


def _deepspeed(path: Path, tensors: Sources) -> None:
    named = {f"_forward_module.{name}": tensor for name, tensor in tensors.items()}
    torch.save({"module": named, "global_steps": 7, "dp_world_size": 8}, path)


def _lightning(path: Path, tensors: Sources) -> None:
    torch.save({"epoch": 3, "state_dict": tensors, "hparams": {"lr": 1e-5}}, path)


def _wrapped(path: Path, tensors: Sources) -> None:
    torch.save({f"module.{name}": tensor for name, tensor in tensors.items()}, path)


def _module(path: Path, tensors: Sources) -> None:
    with published_classes() as make:
        torch.save(make(tensors), path)


def _module_in_dict(path: Path, tensors: Sources) -> None:
    with published_classes() as make:
        torch.save({"model": make(tensors), "step": 4}, path)


CONTAINERS: dict[str, Callable[[Path, Sources], None]] = {
    "safetensors": _safetensors,
    "plain": lambda path, tensors: torch.save(tensors, path),
    "lightning": _lightning,
    "deepspeed": _deepspeed,
    "parallel": _wrapped,
    "module": _module,
    "module in a dict": _module_in_dict,
}
"""Name -> writer of named tensors."""


@contextlib.contextmanager
def published_classes(package: str = "lvdm") -> Iterator[Callable[[Sources], nn.Module]]:
    """Inside, a maker of modules whose classes live under a publisher's package name."""
    names = [package, f"{package}.models", f"{package}.models.ddpm3d", f"{package}.attention"]
    modules = {name: types.ModuleType(name) for name in names}

    class LatentDiffusion(nn.Module):
        pass

    class CrossAttention(nn.Module):
        def efficient_forward(self, x: Tensor) -> Tensor:
            return x

    class Schedule(dict):
        pass

    for owner, cls in (
        ("models.ddpm3d", LatentDiffusion),
        ("attention", CrossAttention),
        ("attention", Schedule),
    ):
        cls.__module__ = f"{package}.{owner}"
        cls.__qualname__ = cls.__name__
        setattr(modules[cls.__module__], cls.__name__, cls)

    def make(tensors: Sources) -> nn.Module:
        root = LatentDiffusion()
        for name, tensor in tensors.items():
            *path, leaf = name.split(".")
            module: nn.Module = root
            for word in path:
                if word not in module._modules:
                    module.add_module(word, CrossAttention())
                module = module._modules[word]
            if tensor.is_floating_point() and tensor.ndim:
                module.register_parameter(leaf, nn.Parameter(tensor, requires_grad=False))
            else:
                module.register_buffer(leaf, tensor)
        # what real modules carry besides tensors
        attention = root._modules["model"]
        attention.forward = attention.efficient_forward
        attention.act = functools.partial(torch.nn.functional.gelu, approximate="none")
        attention.register_buffer("cache", torch.ones(3), persistent=False)
        attention.absent = None
        root.betas_source = Schedule(kind="linear")
        root.num_timesteps = np.int64(1000)
        root.steps = np.arange(4)
        root.modes = {"train", "test"}
        root.device_name = torch.device("cpu")
        root.layers = nn.ModuleList([nn.SiLU(), nn.Identity()])
        return root.eval()

    sys.modules.update(modules)
    try:
        yield make
    finally:
        for name in modules:
            del sys.modules[name]


def archive(
    path: Path,
    pickled: bytes,
    storages: Mapping[str, bytes] | None = None,
    *,
    root: str = "archive",
    compression: int = zipfile.ZIP_STORED,
) -> Path:
    """A torch archive around any pickle."""
    with zipfile.ZipFile(path, "w", compression) as file:
        file.writestr(f"{root}/data.pkl", pickled)
        file.writestr(f"{root}/byteorder", b"little")
        for key, data in (storages or {}).items():
            file.writestr(f"{root}/data/{key}", data)
        file.writestr(f"{root}/version", b"3\n")
    return path


def pickled(value: Any, protocol: int = 2) -> bytes:
    """As torch.save pickles, without storages."""
    buffer = io.BytesIO()
    pickle.Pickler(buffer, protocol).dump(value)
    return buffer.getvalue()
