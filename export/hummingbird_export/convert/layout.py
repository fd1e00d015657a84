"""Configurations of the networks from the names and shapes of their tensors alone.

Two things leave no trace in shapes and are taken as published: the first temporal transformer has
8 heads, and every GroupNorm 32 groups. Heads of the text tower are 64 wide.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from itertools import groupby

from hummingbird_runtime.errors import InputError
from hummingbird_train.models.autoencoder import AutoencoderConfig
from hummingbird_train.models.text_encoder import TextConfig
from hummingbird_train.models.unet import UNetConfig

Shapes = Mapping[str, tuple[int, ...]]

_INIT_HEADS = 8
_TEXT_HEAD = 64
_PROMPT_KEYS = (
    r"(?:(?:in|out)put_blocks\.\d+|middle_block)\.1\.transformer_blocks\.0\.attn2\.to_k\.weight"
)


def unet_config(shapes: Shapes) -> UNetConfig | None:
    """The configuration that explains the tensors of a U-Net, or None when too many are missing."""
    try:
        return _unet(shapes)
    except (KeyError, IndexError, ZeroDivisionError, InputError):
        return None


def vae_config(shapes: Shapes) -> AutoencoderConfig | None:
    """As ``unet_config`` for the autoencoder with a pyramid of convolutions."""
    try:
        return _vae(shapes)
    except (KeyError, IndexError, ZeroDivisionError, InputError):
        return None


def text_config(shapes: Shapes) -> TextConfig | None:
    """As ``unet_config`` for the text tower; the layer that never runs is left out."""
    try:
        return _text(shapes)
    except (KeyError, IndexError, ZeroDivisionError, InputError):
        return None


def published_text() -> TextConfig:
    """The published text tower without the layers that never run."""
    return replace(TextConfig.videocrafter2(), published_extras=False)


def unused_text_names(config: TextConfig) -> tuple[str, ...]:
    """Beginnings of names in a published text tower that our encoder does not hold."""
    last = f"transformer.resblocks.{config.layers - 1}."
    return (last, "text_projection", "logit_scale")


def _unet(shapes: Shapes) -> UNetConfig:
    width = shapes["time_embed.0.weight"][1]
    stem = shapes["input_blocks.0.0.weight"]
    blocks = range(1, _count(shapes, r"input_blocks\.(\d{1,3})\."))
    downs = {i for i in blocks if f"input_blocks.{i}.0.op.weight" in shapes}
    levels = [list(g) for down, g in groupby(blocks, key=downs.__contains__) if not down]
    mult = tuple(
        shapes[f"input_blocks.{ids[0]}.0.out_layers.3.weight"][0] // width for ids in levels
    )
    attended = tuple(
        2**level
        for level, ids in enumerate(levels)
        if f"input_blocks.{ids[0]}.1.norm.weight" in shapes
    )
    contexts = (shape[1] for name, shape in shapes.items() if re.fullmatch(_PROMPT_KEYS, name))
    guidance = shapes.get("time_cond_proj.weight")
    return UNetConfig(
        in_channels=stem[1],
        out_channels=shapes["out.2.weight"][0],
        model_channels=width,
        channel_mult=mult,
        num_res_blocks=len(levels[0]),
        attention_resolutions=attended,
        middle_block=any(name.startswith("middle_block.") for name in shapes),
        num_head_channels=shapes["init_attn.0.proj_in.weight"][0] // _INIT_HEADS,
        context_dim=next(contexts, UNetConfig.context_dim),
        time_cond_proj_dim=None if guidance is None else guidance[1],
        frame_embedding="frame_embedding.0.weight" in shapes,
        pooled_text_embedding="text_embedding.0.weight" in shapes,
        place_planes="place_planes.planes.weight" in shapes,
    )


def _vae(shapes: Shapes) -> AutoencoderConfig:
    width = shapes["encoder.conv_in.weight"][0]
    levels = range(_count(shapes, r"encoder\.down\.(\d{1,3})\."))
    latent = shapes["post_quant_conv.weight"][0]
    return AutoencoderConfig(
        in_channels=shapes["encoder.conv_in.weight"][1],
        latent_channels=latent,
        channels=width,
        channel_mult=tuple(
            shapes[f"encoder.down.{i}.block.0.conv1.weight"][0] // width for i in levels
        ),
        num_res_blocks=_count(shapes, r"encoder\.down\.0\.block\.(\d{1,3})\."),
        double_z=shapes["encoder.conv_out.weight"][0] == 2 * latent,
    )


def _text(shapes: Shapes) -> TextConfig:
    vocabulary, width = shapes["token_embedding.weight"]
    held = _count(shapes, r"transformer\.resblocks\.(\d{1,3})\.")
    published = TextConfig.videocrafter2()
    if width == published.width and held in (published.layers - 1, published.layers):
        layers = published.layers
    else:
        layers = held if "text_projection" in shapes else held + 1
    return TextConfig(
        vocab_size=vocabulary,
        max_length=shapes["positional_embedding"][0],
        width=width,
        heads=max(1, width // _TEXT_HEAD),
        layers=layers,
        published_extras=False,
    )


def _count(shapes: Shapes, pattern: str) -> int:
    """One more than the largest number that a pattern finds at the beginning of a name."""
    found = (re.match(pattern, name) for name in shapes)
    return 1 + max((int(match[1]) for match in found if match), default=-1)
