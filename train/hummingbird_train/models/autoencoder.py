"""The image autoencoder: LDM's AutoencoderKL, and a patch variant for small worlds.

Rombach et al. 2022, section 3.1; tensor names are those of the published first-stage checkpoints.
Video frames pass as a batch of independent images. Scaling of latents for the U-Net and sampling
of the posterior happen outside.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hummingbird_train.models.config import ModelConfig, invalid

LOGVAR_RANGE = (-30.0, 20.0)
"""Bounds of the posterior's log variance."""


@dataclass(frozen=True)
class AutoencoderConfig(ModelConfig):
    """Shape of an autoencoder; the defaults are Stable Diffusion's, used by VideoCrafter2."""

    in_channels: int = 3
    """Colour channels of the pixels."""
    latent_channels: int = 4
    """Channels of the latent."""
    stem: Literal["conv", "pixel_shuffle"] = "conv"
    """``conv``: a pyramid of convolutions (the published key names). ``pixel_shuffle``: one patch
    per latent cell, every convolution at the latent's resolution."""
    channels: int = 128
    """Width of the first level; stem "conv" only."""
    channel_mult: tuple[int, ...] = (1, 2, 4, 4)
    """Width of each level over ``channels``; stem "conv" only."""
    num_res_blocks: int = 2
    """Residual blocks per level of the encoder (the decoder has one more); stem "conv" only."""
    stem_patch: int = 8
    """Pixels per latent cell along one side; stem "pixel_shuffle" only."""
    encoder_channels: int = 128
    """Width of the encoder; stem "pixel_shuffle" only."""
    encoder_res_blocks: int = 1
    """Residual blocks of the encoder; stem "pixel_shuffle" only."""
    decoder_channels: int = 160
    """Width of the decoder; stem "pixel_shuffle" only."""
    decoder_res_blocks: int = 2
    """Residual blocks of the decoder; stem "pixel_shuffle" only."""
    norm: Literal["group", "none"] = "group"
    """``none`` keeps the colour of a small object apart from its background's."""
    norm_num_groups: int = 32
    """Groups of every GroupNorm."""
    double_z: bool = True
    """True: the encoder gives mean and log variance. False: a mean, log variance at its floor."""
    scaling_factor: float = 0.18215
    """U-Net latent = scaling_factor * mean; a fact for the callers, not applied here."""

    def __post_init__(self) -> None:
        """Refuse an empty pyramid and widths that GroupNorm cannot divide."""
        super().__post_init__()
        if not self.channel_mult:
            raise invalid("AutoencoderConfig", "channel_mult = []", "one number per level")
        widths = [self.channels * m for m in self.channel_mult]
        if self.stem == "pixel_shuffle":
            widths = [self.encoder_channels, self.decoder_channels]
        if self.norm == "group" and any(w % self.norm_num_groups for w in widths):
            raise invalid(
                "AutoencoderConfig", f"widths {widths}", f"multiples of {self.norm_num_groups}"
            )

    @property
    def downscale(self) -> int:
        """Pixels per latent cell along one side."""
        return (
            self.stem_patch if self.stem == "pixel_shuffle" else 2 ** (len(self.channel_mult) - 1)
        )

    @classmethod
    def videocrafter2(cls) -> AutoencoderConfig:
        """The published autoencoder: 83,653,863 parameters."""
        return cls()

    @classmethod
    def tiny(cls) -> AutoencoderConfig:
        """64 x 64 pixels to 8 x 8 x 4; 1.7 M parameters; no norm, no posterior variance."""
        return cls(stem="pixel_shuffle", norm="none", double_z=False, scaling_factor=1.0)


def _norm(config: AutoencoderConfig, channels: int) -> nn.Module:
    if config.norm == "none":
        return nn.Identity()
    return nn.GroupNorm(config.norm_num_groups, channels, eps=1e-6)


class ResnetBlock(nn.Module):
    """x + conv(swish(norm(conv(swish(norm(x)))))), with a 1x1 shortcut where the width changes."""

    def __init__(self, config: AutoencoderConfig, channels_in: int, channels: int) -> None:
        super().__init__()
        self.norm1 = _norm(config, channels_in)
        self.conv1 = nn.Conv2d(channels_in, channels, 3, padding=1)
        self.norm2 = _norm(config, channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.nin_shortcut = (
            nn.Conv2d(channels_in, channels, 1) if channels_in != channels else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        return self.nin_shortcut(x) + h


class AttnBlock(nn.Module):
    """Self-attention with one head over the cells of an image."""

    def __init__(self, config: AutoencoderConfig, channels: int) -> None:
        super().__init__()
        self.norm = _norm(config, channels)
        self.q, self.k, self.v, self.proj_out = (nn.Conv2d(channels, channels, 1) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        # (n, c, h, w) -> (n, 1 head, h*w, c)
        q, k, v = (m(h).flatten(2).transpose(1, 2).unsqueeze(1) for m in (self.q, self.k, self.v))
        h = F.scaled_dot_product_attention(q, k, v)
        return x + self.proj_out(h.squeeze(1).transpose(1, 2).reshape(x.shape))


class Downsample(nn.Module):
    """Half size by a strided convolution padded on the right and at the bottom only."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Double size by nearest neighbour, then a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class Middle(nn.Module):
    """Residual block, attention, residual block at the lowest resolution."""

    def __init__(self, config: AutoencoderConfig, channels: int) -> None:
        super().__init__()
        self.block_1 = ResnetBlock(config, channels, channels)
        self.attn_1 = AttnBlock(config, channels)
        self.block_2 = ResnetBlock(config, channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.block_2(self.attn_1(self.block_1(x)))


class Level(nn.Module):
    """Residual blocks of one resolution, then the resampling that the pyramid puts there."""

    def __init__(
        self, config: AutoencoderConfig, channels_in: int, channels: int, blocks: int
    ) -> None:
        super().__init__()
        widths = [channels_in] + [channels] * blocks
        self.block = nn.ModuleList(ResnetBlock(config, a, b) for a, b in pairwise(widths))
        self.downsample: nn.Module = nn.Identity()
        self.upsample: nn.Module = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        for block in self.block:
            x = block(x)
        return self.upsample(self.downsample(x))


class Encoder(nn.Module):
    """Pyramid encoder: [N,3,H,W] -> moments [N,Z,H/d,W/d] with d = 2^(levels-1)."""

    def __init__(self, config: AutoencoderConfig, out_channels: int) -> None:
        super().__init__()
        widths = [config.channels * m for m in config.channel_mult]
        self.conv_in = nn.Conv2d(config.in_channels, config.channels, 3, padding=1)
        self.down = nn.ModuleList()
        for i, (a, b) in enumerate(zip([config.channels, *widths[:-1]], widths, strict=True)):
            level = Level(config, a, b, config.num_res_blocks)
            if i < len(widths) - 1:
                level.downsample = Downsample(b)
            self.down.append(level)
        self.mid = Middle(config, widths[-1])
        self.norm_out = _norm(config, widths[-1])
        self.conv_out = nn.Conv2d(widths[-1], out_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv_in(x)
        for level in self.down:
            h = level(h)
        return self.conv_out(F.silu(self.norm_out(self.mid(h))))


class Decoder(nn.Module):
    """Pyramid decoder: [N,C,h,w] -> [N,3,h*d,w*d]. ``up`` is indexed by level and run downwards."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        widths = [config.channels * m for m in config.channel_mult]
        self.conv_in = nn.Conv2d(config.latent_channels, widths[-1], 3, padding=1)
        self.mid = Middle(config, widths[-1])
        self.up = nn.ModuleList()
        for i, (a, b) in enumerate(zip([*widths[1:], widths[-1]], widths, strict=True)):
            level = Level(config, a, b, config.num_res_blocks + 1)
            if i > 0:
                level.upsample = Upsample(b)
            self.up.append(level)
        self.norm_out = _norm(config, widths[0])
        self.conv_out = nn.Conv2d(widths[0], config.in_channels, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        h = self.mid(self.conv_in(z))
        for level in reversed(self.up):
            h = level(h)
        return self.conv_out(F.silu(self.norm_out(h)))


class PatchEncoder(nn.Module):
    """Patch encoder: pixel-unshuffle, then every convolution at the latent's resolution."""

    def __init__(self, config: AutoencoderConfig, out_channels: int) -> None:
        super().__init__()
        width = config.encoder_channels
        self.patch = config.stem_patch
        self.conv_in = nn.Conv2d(config.in_channels * self.patch**2, width, 3, padding=1)
        blocks = range(config.encoder_res_blocks)
        self.block = nn.ModuleList(ResnetBlock(config, width, width) for _ in blocks)
        self.norm_out = _norm(config, width)
        self.conv_out = nn.Conv2d(width, out_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv_in(F.pixel_unshuffle(x, self.patch))
        for block in self.block:
            h = block(h)
        return self.conv_out(F.silu(self.norm_out(h)))


class PatchDecoder(nn.Module):
    """Patch decoder: every convolution at the latent's resolution, then pixel-shuffle."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        width = config.decoder_channels
        self.patch = config.stem_patch
        self.conv_in = nn.Conv2d(config.latent_channels, width, 3, padding=1)
        blocks = range(config.decoder_res_blocks)
        self.block = nn.ModuleList(ResnetBlock(config, width, width) for _ in blocks)
        self.norm_out = _norm(config, width)
        self.conv_out = nn.Conv2d(width, config.in_channels * self.patch**2, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        h = self.conv_in(z)
        for block in self.block:
            h = block(h)
        return F.pixel_shuffle(self.conv_out(F.silu(self.norm_out(h))), self.patch)


class AutoencoderKL(nn.Module):
    """Encoder and decoder of one configuration.

    Args:
        config: shape of both halves.
    """

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        z = config.latent_channels
        moments = 2 * z if config.double_z else z
        if config.stem == "pixel_shuffle":  # conv_out and conv_in are linear already: no 1x1 convs
            self.encoder: nn.Module = PatchEncoder(config, moments)
            self.decoder: nn.Module = PatchDecoder(config)
            self.quant_conv: nn.Module = nn.Identity()
            self.post_quant_conv: nn.Module = nn.Identity()
        else:
            self.encoder, self.decoder = Encoder(config, moments), Decoder(config)
            self.quant_conv = nn.Conv2d(moments, moments, 1)
            self.post_quant_conv = nn.Conv2d(z, z, 1)

    def encode(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Posterior of the latent.

        Args:
            pixels: float [N,3,H,W] in -1..1; H and W multiples of ``config.downscale``.

        Returns:
            mean and log variance (natural log, clamped to -30..20), each [N,C,H/d,W/d].
        """
        moments = self.quant_conv(self.encoder(pixels))
        if not self.config.double_z:
            return moments, torch.full_like(moments, LOGVAR_RANGE[0])
        mean, logvar = moments.chunk(2, dim=1)
        return mean, logvar.clamp(*LOGVAR_RANGE)

    def decode(self, latent: Tensor) -> Tensor:
        """Pixels of a latent.

        Args:
            latent: float [N,C,h,w], unscaled (divided by ``config.scaling_factor``).

        Returns:
            float [N,3,h*d,w*d], nominally -1..1, not clipped.
        """
        return self.decoder(self.post_quant_conv(latent))

    def forward(self, pixels: Tensor) -> Tensor:
        """Reconstruction through the posterior's mean: [N,3,H,W] -> [N,3,H,W]."""
        return self.decode(self.encode(pixels)[0])
