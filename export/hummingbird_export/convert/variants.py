"""The published models by name: what tells them apart, how each is sampled, and its facts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from hummingbird_export.random_models import (
    HUMMINGBIRD_FACTS,
    LCM,
    VIDEOCRAFTER2_DDIM,
    VIDEOCRAFTER2_FACTS,
)
from hummingbird_runtime.schedule import SchedulerConfig
from hummingbird_train.models.unet import UNetConfig


@dataclass(frozen=True)
class Variant:
    """A U-Net that the publishers have, or a relative of one."""

    name: str
    """For flags and files."""
    title: str
    """For people."""
    unet: UNetConfig
    published: bool = True
    """Whether weights of exactly this shape are published."""

    @property
    def guided(self) -> bool:
        """Whether the guidance scale is an input of the network."""
        return self.unet.time_cond_proj_dim is not None

    @property
    def scheduler(self) -> SchedulerConfig:
        """4 consistency steps with embedded guidance, VideoCrafter2's 50 DDIM steps without."""
        return LCM if self.guided else VIDEOCRAFTER2_DDIM

    @property
    def facts(self) -> Mapping[str, Any]:
        """Table for ``complete_facts``: trained sizes, ranges, defaults."""
        if not self.guided:
            return VIDEOCRAFTER2_FACTS
        if self.unet.num_res_blocks == UNetConfig.videocrafter2().num_res_blocks:
            return T2V_TURBO_FACTS
        return HUMMINGBIRD_FACTS


T2V_TURBO_FACTS: dict[str, Any] = {
    **HUMMINGBIRD_FACTS,
    "frames": {"trained": 16, "default": 16, "allowed": [1, 104]},
    "fps_condition": {"default": 16, "trained": [8, 16], "allowed": [1, 60]},
    "playback_fps": 8,
}
"""VideoCrafter2 with a T2V-Turbo LoRA merged: 16 frames."""

_GUIDANCE = 256

VARIANTS = (
    Variant(
        "hummingbird-0.7b",
        "Hummingbird 0.7B (no middle block, guidance embedded)",
        UNetConfig.hummingbird_07b(),
    ),
    Variant(
        "hummingbird-0.9b",
        "Hummingbird 0.9B (middle block, guidance embedded)",
        UNetConfig.hummingbird_09b(),
    ),
    Variant("videocrafter2", "VideoCrafter2 (no guidance embedding)", UNetConfig.videocrafter2()),
    Variant(
        "t2v-turbo",
        "T2V-Turbo (VideoCrafter2 with guidance embedded)",
        replace(UNetConfig.videocrafter2(), time_cond_proj_dim=_GUIDANCE),
    ),
    Variant(
        "hummingbird-0.9b-unguided",
        "Hummingbird 0.9B without guidance embedding (a student before consistency distillation)",
        replace(UNetConfig.hummingbird_09b(), time_cond_proj_dim=None),
        published=False,
    ),
    Variant(
        "hummingbird-0.7b-unguided",
        "Hummingbird 0.7B without guidance embedding (a student before consistency distillation)",
        replace(UNetConfig.hummingbird_07b(), time_cond_proj_dim=None),
        published=False,
    ),
)

NAMES = tuple(variant.name for variant in VARIANTS)


def variant_of(config: UNetConfig) -> Variant:
    """The variant of a configuration; one of other widths is named after the layout it shares."""
    for variant in VARIANTS:
        if variant.unet == config:
            return variant
    for variant in VARIANTS:
        if _layout(variant.unet) == _layout(config):
            return Variant(
                f"{variant.name}-layout",
                f"the layout of {variant.name} at other widths ({config.model_channels} channels)",
                config,
                published=False,
            )
    return Variant(
        "custom", f"a U-Net of {config.model_channels} channels", config, published=False
    )


def _layout(config: UNetConfig) -> tuple[int, bool, bool]:
    return config.num_res_blocks, config.middle_block, config.time_cond_proj_dim is not None
