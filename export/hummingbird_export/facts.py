"""Model facts of a bundle from a short table: what the networks already know is filled in.

The table (TOML or JSON) holds the choices that only people can make: trained sizes, ranges,
defaults, example prompts. The runtime's ``ModelFacts`` is the result.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from hummingbird_export.latent_rgb import fit_latent_rgb
from hummingbird_runtime.errors import InputError
from hummingbird_runtime.manifest import UPSCALE, ModelFacts
from hummingbird_runtime.strict_json import record
from hummingbird_train.models.autoencoder import AutoencoderKL
from hummingbird_train.models.text_encoder import TextEncoder
from hummingbird_train.models.tiny_decoder import TinyDecoder
from hummingbird_train.models.unet import VideoUNet
from hummingbird_train.models.upscaler import Upscaler


def complete_facts(table: Mapping[str, Any], *, unet: VideoUNet, vae: AutoencoderKL) -> ModelFacts:
    """Facts from a table and the networks that it describes.

    Args:
        table: the fields of ``ModelFacts``; ``latent_channels``, ``vae_scale_factor``,
            ``timestep_cond_dim``, ``scaling_factor``, ``latent_rgb`` and the ``multiple_of`` of
            height and width may be left out.
        unet: gives the latent's channels, the multiple of the sizes and the guidance width.
        vae: gives the scale factors and the preview's linear map.

    Raises:
        InputError: ``bundle.manifest_invalid`` naming a field that is missing or wrong.
    """
    facts = dict(table)
    facts.setdefault("latent_channels", unet.config.in_channels)
    facts.setdefault("vae_scale_factor", vae.config.downscale)
    facts.setdefault("timestep_cond_dim", unet.config.time_cond_proj_dim)
    facts.setdefault("scaling_factor", vae.config.scaling_factor)
    for side in ("height", "width"):
        if isinstance(facts.get(side), Mapping):
            multiple = vae.config.downscale * unet.config.size_multiple
            facts[side] = {"multiple_of": multiple, **facts[side]}
    if "latent_rgb" not in facts:
        facts["latent_rgb"] = fit_latent_rgb(vae)
    return record(ModelFacts, facts, "facts")


@dataclass(frozen=True)
class FixedSizes:
    """The one size of clips that a bundle for a target of fixed sizes draws."""

    frames: int
    height: int
    """Pixels."""
    width: int
    """Pixels."""

    @classmethod
    def default(cls, facts: ModelFacts) -> FixedSizes:
        """The facts' own default."""
        return cls(facts.frames.default, facts.height.default, facts.width.default)

    def letters(self, facts: ModelFacts) -> dict[str, int]:
        """The sizes of graphs by letter.

        Raises:
            InputError: ``export.size`` for a size that the model does not take.
        """
        for what, got, rule in (
            ("frames", self.frames, facts.frames),
            ("height", self.height, facts.height),
            ("width", self.width, facts.width),
        ):
            multiple = getattr(rule, "multiple_of", 1)
            low, high = rule.allowed
            if got % multiple or not low <= got <= high:
                raise InputError(
                    "export.size",
                    f"{what}, got {got}, expected a multiple of {multiple} from {low} to {high}",
                    hint="the U-Net halves the latent, one cell per "
                    f"{facts.vae_scale_factor} pixels, at every level",
                )
        cell = facts.vae_scale_factor
        height, width = self.height // cell, self.width // cell
        return {
            "F": self.frames,
            "N": facts.decode_chunk,
            "h": height,
            "w": width,
            "H": self.height,
            "W": self.width,
        }


def latent_size(facts: ModelFacts) -> tuple[int, int, int]:
    """Frames, rows and columns of the default clip's latent."""
    cell = facts.vae_scale_factor
    return facts.frames.default, facts.height.default // cell, facts.width.default // cell


def narrow(facts: ModelFacts, fixed: Mapping[str, int], *, fewest_frames: int) -> ModelFacts:
    """Facts that allow only what graphs take: fixed sizes, or enough frames to cut in pieces."""
    low, high = facts.frames.allowed
    if not fixed:
        return replace(facts, frames=replace(facts.frames, allowed=(max(low, fewest_frames), high)))
    frames, height, width = fixed["F"], fixed["H"], fixed["W"]
    return replace(
        facts,
        frames=replace(facts.frames, default=frames, allowed=(frames, frames)),
        height=replace(facts.height, default=height, allowed=(height, height)),
        width=replace(facts.width, default=width, allowed=(width, width)),
    )


def check_facts(
    facts: ModelFacts, *, unet: VideoUNet, vae: AutoencoderKL, text_encoder: TextEncoder
) -> None:
    """Refuse facts and networks that do not describe one model.

    Raises:
        InputError: ``export.mismatch`` naming both sides.
    """
    multiple = vae.config.downscale * unet.config.size_multiple
    pairs = {
        "U-Net input channels and facts' latent_channels": (
            unet.config.in_channels,
            facts.latent_channels,
        ),
        "U-Net output and input channels": (unet.config.out_channels, unet.config.in_channels),
        "VAE latent channels and facts' latent_channels": (
            vae.config.latent_channels,
            facts.latent_channels,
        ),
        "VAE downscale and facts' vae_scale_factor": (vae.config.downscale, facts.vae_scale_factor),
        "VAE and facts' scaling_factor": (vae.config.scaling_factor, facts.scaling_factor),
        "size multiple of the networks and facts' height.multiple_of modulo it": (
            0,
            facts.height.multiple_of % multiple,
        ),
        "size multiple of the networks and facts' width.multiple_of modulo it": (
            0,
            facts.width.multiple_of % multiple,
        ),
        "U-Net time_cond_proj_dim and facts' timestep_cond_dim": (
            unet.config.time_cond_proj_dim,
            facts.timestep_cond_dim,
        ),
        "U-Net context_dim and text encoder width": (
            unet.config.context_dim,
            text_encoder.config.width,
        ),
    }
    _check_equal(pairs)


def check_frame_networks(
    facts: ModelFacts, *, tiny_decoder: TinyDecoder | None = None, upscaler: Upscaler | None = None
) -> None:
    """Refuse a small decoder or an upscaler that does not fit the model's latents and frames.

    Raises:
        InputError: ``export.mismatch`` naming both sides.
    """
    pairs: dict[str, tuple[object, object]] = {}
    if tiny_decoder is not None:
        small = tiny_decoder.config
        pairs |= {
            "tiny decoder's latent_channels and facts'": (
                small.latent_channels,
                facts.latent_channels,
            ),
            "tiny decoder's upscale and facts' vae_scale_factor": (
                small.upscale,
                facts.vae_scale_factor,
            ),
            "tiny decoder's out_channels and those of frames": (small.out_channels, 3),
        }
    if upscaler is not None:
        large = upscaler.config
        pairs |= {
            "upscaler's image_channels and those of frames": (large.image_channels, 3),
            "upscaler's scale and the bundle format's": (large.scale, UPSCALE),
        }
    _check_equal(pairs)


def _check_equal(pairs: Mapping[str, tuple[object, object]]) -> None:
    for what, (got, expected) in pairs.items():
        if got != expected:
            raise InputError(
                "export.mismatch",
                f"{what}: got {got} and {expected}, expected them to be equal",
                hint="give networks and facts of one and the same model",
            )
