"""Random models: the whole path from networks to clips without a checkpoint.

Every weight is drawn from N(0, 1 / fan_in), also in layers that training starts at zero, so that no
part of a network is hidden from a comparison. What such a model draws is noise. Gaussian weights
are the easy case of quantization; ``harden`` gives them the spread and outliers of trained ones.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from hummingbird_runtime.bytepairs import build_vocabulary
from hummingbird_runtime.schedule import SchedulerConfig
from hummingbird_runtime.scheduler_config import DynamicRescale
from hummingbird_runtime.tokenizer import CLIP_SPECIAL, parse_merges
from hummingbird_train.models.autoencoder import AutoencoderConfig, AutoencoderKL
from hummingbird_train.models.embeddings import sinusoid_table
from hummingbird_train.models.text_encoder import TextConfig, TextEncoder
from hummingbird_train.models.tiny_decoder import TinyDecoder, TinyDecoderConfig
from hummingbird_train.models.unet import UNetConfig, VideoUNet
from hummingbird_train.world.tokenizer_files import VOCABULARY, write_tokenizer

M = TypeVar("M", bound=nn.Module)

LCM = SchedulerConfig()
"""Hummingbird's published sampler: 4 steps."""

VIDEOCRAFTER2_DDIM = SchedulerConfig(
    sampler="ddim",
    timestep_spacing="leading+1",
    eta=1.0,
    dynamic_rescale=DynamicRescale(),
)
"""VideoCrafter2's published sampler: 50 steps with dynamic rescale."""

TINY_DDIM = SchedulerConfig(
    sampler="ddim",
    timestep_spacing="trailing",
    prediction_type="v_prediction",
    rescale_betas_zero_snr=True,
)
"""The tiny world's sampler."""


@dataclass(frozen=True)
class Preset:
    """Shapes, schedule, tokenizer and facts of one kind of model."""

    unet: UNetConfig
    vae: AutoencoderConfig
    text: TextConfig
    tiny_decoder: TinyDecoderConfig
    scheduler: SchedulerConfig
    write_tokenizer: Callable[[Path], Path]
    """Writes vocab.json, merges.txt and tokenizer_config.json into a folder."""
    facts: dict[str, Any]
    """Table for ``facts.complete_facts``."""


def preset(name: str) -> Preset:
    """One of ``PRESETS``: tiny, 07b, 09b, vc2."""
    if name == "tiny":
        return Preset(
            UNetConfig.tiny(),
            AutoencoderConfig.tiny(),
            TextConfig.tiny(len(VOCABULARY)),
            TinyDecoderConfig.tiny(),
            TINY_DDIM,
            write_tokenizer,
            TINY_FACTS,
        )
    videocrafter = name == "vc2"
    unets = {
        "07b": UNetConfig.hummingbird_07b,
        "09b": UNetConfig.hummingbird_09b,
        "vc2": UNetConfig.videocrafter2,
    }
    return Preset(
        unets[name](),
        AutoencoderConfig.videocrafter2(),
        replace(TextConfig.videocrafter2(), published_extras=False),
        TinyDecoderConfig.videocrafter2(),
        VIDEOCRAFTER2_DDIM if videocrafter else LCM,
        write_clip_tokenizer,
        VIDEOCRAFTER2_FACTS if videocrafter else HUMMINGBIRD_FACTS,
    )


def random_networks(
    shapes: Preset, *, seed: int = 0, hard: bool = False
) -> tuple[VideoUNet, AutoencoderKL, TextEncoder]:
    """The three networks of a preset with weights drawn from ``seed``, in evaluation mode.

    Args:
        shapes: sizes of the networks.
        seed: the same seed gives the same weights.
        hard: ``harden`` them.
    """
    unet = random_unet(shapes.unet, seed=3 * seed, hard=hard)
    vae = _fill(_unfilled(lambda: AutoencoderKL(shapes.vae)), 3 * seed + 1, hard)
    text = _fill(_unfilled(lambda: TextEncoder(shapes.text)), 3 * seed + 2, hard)
    return unet, vae, text


def random_unet(config: UNetConfig, *, seed: int, hard: bool = False) -> VideoUNet:
    """One U-Net with weights drawn from ``seed``, in evaluation mode."""
    unet = _unfilled(lambda: VideoUNet(config))
    unet.sinusoids = sinusoid_table(config.model_channels)
    return _fill(unet, seed, hard)


def random_tiny_decoder(shapes: Preset, *, seed: int = 0) -> TinyDecoder:
    """The small decoder of a preset with weights drawn from ``seed``, in evaluation mode."""
    return _fill(_unfilled(lambda: TinyDecoder(shapes.tiny_decoder)), 3 * seed, hard=False)


def _unfilled(build: Callable[[], M]) -> M:
    """A network whose tensors hold no numbers yet: initial ones would only cost time."""
    with torch.device("meta"):
        network = build()
    return network.to_empty(device="cpu")


def _fill(network: M, seed: int, hard: bool) -> M:
    randomize(network, seed=seed)
    if hard:
        harden(network, seed=seed)
    return network


def randomize(network: nn.Module, *, seed: int) -> None:
    """Draw every parameter anew, in place; then evaluation mode.

    Matrices and kernels from N(0, 1 / fan_in), embeddings from N(0, 1), norm weights around 1 and
    biases around 0 with a standard deviation of 0.1, so that each of them matters.
    """
    generator = torch.Generator().manual_seed(seed)
    tables = {id(m.weight) for m in network.modules() if isinstance(m, nn.Embedding)}
    with torch.no_grad():
        for name, parameter in sorted(network.named_parameters()):
            parameter.normal_(generator=generator)
            if parameter.ndim < 2:
                parameter.mul_(0.1)
                if name.endswith("weight"):  # of a norm
                    parameter.add_(1.0)
            elif id(parameter) not in tables:
                parameter.mul_(parameter[0].numel() ** -0.5)
    network.eval()


GAIN_SIGMA = 1.0
"""Spread of ``harden``'s gains of output channels: the standard deviation of their logarithm."""

SPIKES = 0.001
"""Share of a matrix's or kernel's weights that ``harden`` makes ``SPIKE`` times larger."""

SPIKE = 20.0

SPIKED_CHANNELS = 4
"""Channels of a norm that ``harden`` makes ``SPIKE`` times larger; one of 16 where norms are
narrower than 64."""


def harden(network: nn.Module, *, seed: int) -> None:
    """Give random weights, in place, what makes trained ones hard to quantize.

    Output channels of every matrix and kernel get log-normal gains, some of its weights and some
    channels of every norm become ``SPIKE`` times larger. Every tensor keeps its root mean square
    (that of its gains is brought to 1 exactly, the rest by its expected value): ratios inside a
    tensor are as asked, while activations stay as large as with plain random weights. Dividing by
    the mean of the gains, exp(sigma^2 / 2), instead would make each layer's output 1.6 times
    larger, through more than a hundred layers. Biases and embeddings stay as they are.

    Args:
        network: after ``randomize``.
        seed: the same seed gives the same weights.
    """
    generator = torch.Generator().manual_seed(seed)
    tables = {id(m.weight) for m in network.modules() if isinstance(m, nn.Embedding)}
    with torch.no_grad():
        for name, parameter in sorted(network.named_parameters()):
            if id(parameter) in tables or not name.endswith("weight"):
                continue  # biases, tables of tokens and positions
            if parameter.ndim < 2:
                count = min(SPIKED_CHANNELS, max(1, parameter.numel() // 16))
                spiked = torch.randperm(parameter.numel(), generator=generator)[:count]
                parameter[spiked] *= SPIKE
                parameter.mul_(_root_mean_square(parameter).reciprocal())
            else:
                gains = torch.empty(parameter.shape[0]).normal_(generator=generator)
                gains = (GAIN_SIGMA * gains).exp()
                gains /= _root_mean_square(gains) * (1 + SPIKES * (SPIKE**2 - 1)) ** 0.5
                parameter.mul_(gains.view(-1, *[1] * (parameter.ndim - 1)))
                size = parameter.numel()
                places = torch.randint(size, (round(SPIKES * size),), generator=generator)
                parameter.view(-1)[places] *= SPIKE


def _root_mean_square(values: Tensor) -> Tensor:
    return values.square().mean().sqrt()


def write_clip_tokenizer(folder: Path) -> Path:
    """Write CLIP's tokenizer as open_clip uses it: 49408 tokens, length 77, padded with 0."""
    data = files("hummingbird_export").joinpath("data", "clip_merges.txt.gz").read_bytes()
    text = gzip.decompress(data)
    vocabulary = build_vocabulary(parse_merges(text), CLIP_SPECIAL)
    config = {
        "model_max_length": 77,
        "bos_token_id": vocabulary[CLIP_SPECIAL[0]],
        "eos_token_id": vocabulary[CLIP_SPECIAL[1]],
        "pad_token_id": 0,
        "unknown_words": "encode",
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "merges.txt").write_bytes(text)
    for name, value in (("vocab.json", vocabulary), ("tokenizer_config.json", config)):
        encoded = json.dumps(value, indent=1, ensure_ascii=False).encode("utf-8")
        (folder / name).write_bytes(encoded + b"\n")
    return folder


def _published_facts(
    *, frames: int, fps: int, playback: int, guidance: dict[str, Any], steps: dict[str, Any]
) -> dict[str, Any]:
    return {
        "frames": {"trained": frames, "default": frames, "allowed": [1, 104]},
        "height": {"trained": 320, "default": 320, "allowed": [64, 1024]},
        "width": {"trained": 512, "default": 512, "allowed": [64, 1024]},
        "fps_condition": {"default": fps, "trained": [fps], "allowed": [1, 60]},
        "playback_fps": playback,
        "guidance": guidance,
        "num_inference_steps": steps,
        "vocabulary_examples": ["A drone flying over a snowy forest."],
        "grammar": "",
        "decode_chunk": 1,
    }


HUMMINGBIRD_FACTS = _published_facts(
    frames=26,
    fps=8,
    playback=8,
    guidance={"kind": "embedded", "default": 7.5, "trained": [5.0, 15.0], "allowed": [0.0, 30.0]},
    steps={"default": 4, "trained": [4, 8], "allowed": [1, 50]},
)

VIDEOCRAFTER2_FACTS = _published_facts(
    frames=16,
    fps=28,
    playback=10,
    guidance={"kind": "cfg", "default": 12.0, "trained": [1.0, 12.0], "allowed": [1.0, 30.0]},
    steps={"default": 50, "trained": [50], "allowed": [1, 999]},
)

TINY_FACTS: dict[str, Any] = {
    "frames": {"trained": 26, "default": 26, "allowed": [1, 104]},
    "height": {"trained": 64, "default": 64, "allowed": [32, 256]},
    "width": {"trained": 64, "default": 64, "allowed": [32, 256]},
    "fps_condition": {"default": 8, "trained": [8], "allowed": [1, 60]},
    "playback_fps": 8,
    "guidance": {"kind": "embedded", "default": 3.0, "trained": [1.0, 5.0], "allowed": [0.0, 15.0]},
    "num_inference_steps": {"default": 8, "trained": [8], "allowed": [1, 100]},
    "vocabulary_examples": ["a red ball moving to the left"],
    "grammar": "Random weights: every prompt draws noise.",
    "decode_chunk": 26,
}

PRESETS = ("tiny", "07b", "09b", "vc2")
