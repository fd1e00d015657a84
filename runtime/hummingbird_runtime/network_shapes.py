"""Shapes of a bundle's networks: what its config.json files say, as far as memory depends on it.

A graph without a readable configuration is taken for the published network of its role, made
narrower or wider until it has as many weights: parameters grow with the square of the width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from hummingbird_runtime.bundle import Bundle
from hummingbird_runtime.bundle_files import read_small
from hummingbird_runtime.errors import InputError
from hummingbird_runtime.strict_json import MAX_BYTES, parse_json

BYTES_PER_WEIGHT = {"fp32": 4.0, "fp16": 2.0, "fp16-storage": 2.0, "w4": 0.6}
"""By precision; the others take about one byte."""


@dataclass(frozen=True)
class UNetShape:
    """A video U-Net; the defaults are those of the published 0.7 B model."""

    model_channels: int = 320
    """Width of the finest level."""
    channel_mult: tuple[int, ...] = (1, 2, 4, 4)
    """Width of each level over ``model_channels``."""
    num_res_blocks: int = 1
    """Residual blocks per level on the way down; one more on the way up."""
    attention_resolutions: tuple[int, ...] = (1, 2, 4)
    """Downsampling factors of the levels that have transformers."""
    num_head_channels: int = 64
    """Width of one attention head."""
    init_attn_heads: int = 8
    """Heads of the transformer behind the first convolution."""


@dataclass(frozen=True)
class DecoderShape:
    """A decoder, or the upscaler: levels from coarse to fine, each twice the size of the last."""

    widths: tuple[int, ...] = (512, 512, 256, 128)
    """Channels of each level."""
    patch: int = 1
    """Pixels along one side that a cell of the last level becomes."""
    blocks: Literal["normed", "plain", "patch"] = "normed"
    """Residual blocks with norms and SiLU, or without; ``patch``: all at the latent's size."""
    attention: bool = True
    """Cells of a frame attend to each other at the coarsest level."""


PUBLISHED_WEIGHTS = {
    "unet": 772_091_780,
    "vae_decoder": 49_490_199,
    "vae_decoder_tiny": 2_290_000,
    "upscaler": 51_760,
}
"""Parameters of the published network of each role."""

_PUBLISHED = {
    "vae_decoder": DecoderShape(),
    "vae_decoder_tiny": DecoderShape((128, 96, 64, 32), blocks="plain", attention=False),
    "upscaler": DecoderShape((32,), patch=4, blocks="plain", attention=False),
}


def graph_bytes(bundle: Bundle, role: str) -> tuple[int, int]:
    """Bytes of a graph's file, and of the weights that lie beside it."""
    files, path = bundle.manifest.files, bundle.graph(role).path
    beside = files.get(f"{path}_data")
    return files[path].bytes, 0 if beside is None else beside.bytes


def unet_shape(bundle: Bundle) -> UNetShape:
    """The shape of the bundle's U-Net."""
    config = _config(bundle, "unet")
    try:
        return UNetShape(
            model_channels=_positive(config["model_channels"]),
            channel_mult=_positives(config["channel_mult"]),
            num_res_blocks=_positive(config["num_res_blocks"]),
            attention_resolutions=_positives(config["attention_resolutions"]),
            num_head_channels=_positive(config["num_head_channels"]),
            init_attn_heads=_positive(config["init_attn_heads"]),
        )
    except (KeyError, TypeError, ValueError):
        width = max(1, round(320 * _relative_width(bundle, "unet")))
        return UNetShape(model_channels=width, num_head_channels=max(1, width // 5))


def decoder_shape(bundle: Bundle, role: str) -> DecoderShape:
    """The shape of a decoder or of the upscaler."""
    config = _config(bundle, role)
    try:
        return _read_decoder(config)
    except (KeyError, TypeError, ValueError):
        published, scale = _PUBLISHED[role], _relative_width(bundle, role)
        widths = tuple(max(1, round(width * scale)) for width in published.widths)
        return replace(published, widths=widths)


def _read_decoder(config: Mapping[str, Any]) -> DecoderShape:
    if config["_class_name"] == "AutoencoderKL":
        if config["stem"] == "pixel_shuffle":
            width = (_positive(config["decoder_channels"]),)
            patch = _positive(config["stem_patch"])
            return DecoderShape(width, patch, blocks="patch", attention=False)
        channels = _positive(config["channels"])
        widths = [channels * mult for mult in _positives(config["channel_mult"])]
        return DecoderShape(tuple(reversed(widths)))
    if config["_class_name"] == "TinyDecoder":
        widths, patch = list(_positives(config["channels"])), _positive(config["patch"])
    else:  # Upscaler
        widths, patch = [_positive(config["channels"])], _positive(config["scale"])
    return DecoderShape(tuple(widths), patch, blocks="plain", attention=False)


def _config(bundle: Bundle, role: str) -> Mapping[str, Any]:
    """The configuration of a network; empty when the bundle has none that can be read."""
    path = f"{role}/config.json"
    if path not in bundle.manifest.files:
        return {}
    bundle.check_unchanged(path)
    try:
        config = parse_json(read_small(bundle.root / path, MAX_BYTES + 1), what=path)
    except InputError:
        return {}
    return config if isinstance(config, dict) else {}


def _relative_width(bundle: Bundle, role: str) -> float:
    """Width over that of the published network with the same number of levels."""
    bytes_each = BYTES_PER_WEIGHT.get(bundle.graph(role).precision, 1.0)
    return math.sqrt(sum(graph_bytes(bundle, role)) / bytes_each / PUBLISHED_WEIGHTS[role])


def _positives(values: object) -> tuple[int, ...]:
    if not isinstance(values, list) or not 0 < len(values) <= 16:
        raise ValueError
    return tuple(_positive(value) for value in values)


def _positive(value: object) -> int:
    if type(value) is not int or not 0 < value < 1 << 20:
        raise ValueError
    return value
