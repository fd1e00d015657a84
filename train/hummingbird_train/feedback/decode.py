"""Latents to the frames a reward model sees, with a gradient that fits in memory.

Only the frames a reward asked for are decoded, one at a time, and each block of the decoder is
computed again in backward: memory is that of one block of one frame (Chen et al. 2016). Works with
a full autoencoder and with a tiny decoder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from hummingbird_train.models.autoencoder import AutoencoderKL, Decoder, PatchDecoder
from hummingbird_train.models.tiny_decoder import TinyDecoder

Block = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class DecodeConfig:
    """How frames are decoded."""

    checkpointing: bool = True
    """Compute each block again in backward; the gradient is the same."""
    chunk: int = 1
    """Frames decoded together."""


class FrameDecoder:
    """Scaled latents to frames in [0, 1], through a frozen decoder.

    Args:
        decoder: an ``AutoencoderKL`` or a ``TinyDecoder``; its parameters are frozen here.
        scaling_factor: scaled latent = factor * the decoder's latent.
        config: chunk and checkpointing.
    """

    def __init__(
        self,
        decoder: AutoencoderKL | TinyDecoder,
        scaling_factor: float,
        config: DecodeConfig | None = None,
    ) -> None:
        self.decoder = decoder.requires_grad_(False).eval()
        self.scaling_factor, self.config = scaling_factor, config or DecodeConfig()
        self.blocks = list(decoder_blocks(decoder))

    def to(self, device: torch.device) -> None:
        """Move the decoder."""
        self.decoder.to(device)

    def __call__(self, latents: Tensor, index: NDArray[np.int64]) -> Tensor:
        """Decode chosen frames.

        Args:
            latents: scaled, float (b, c, f, h, w).
            index: [n] frame numbers, from ``FrameSpec.choose``.

        Returns:
            (b, n, 3, H, W) clamped to [0, 1]; outside of it a pixel sends no gradient.
        """
        # an index may repeat: decode a frame once
        unique, back = np.unique(index, return_inverse=True)
        z = latents[:, :, torch.from_numpy(unique).to(latents.device)]  # (b, c, u, h, w)
        flat = z.transpose(1, 2).flatten(0, 1) / self.scaling_factor  # (b * u, c, h, w)
        pixels = torch.cat([self._run(part) for part in flat.split(self.config.chunk)])
        frames = (pixels * 0.5 + 0.5).clamp(0, 1).unflatten(0, (len(latents), len(unique)))
        return frames[:, torch.from_numpy(back).to(frames.device)]

    def _run(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            if self.config.checkpointing and torch.is_grad_enabled():
                x = checkpoint(block, x, use_reentrant=False)
            else:
                x = block(x)
        return x


def decoder_blocks(model: AutoencoderKL | TinyDecoder) -> Iterator[Block]:
    """The decoder as a chain of blocks: run in order they are ``decode`` (or ``forward``)."""
    if isinstance(model, TinyDecoder):
        yield from _tiny_blocks(model)
        return
    decoder = model.decoder
    yield model.post_quant_conv
    assert isinstance(decoder, Decoder | PatchDecoder)
    yield decoder.conv_in
    if isinstance(decoder, PatchDecoder):
        yield from decoder.block
        yield lambda h: F.pixel_shuffle(
            decoder.conv_out(F.silu(decoder.norm_out(h))), decoder.patch
        )
        return
    yield from (decoder.mid.block_1, decoder.mid.attn_1, decoder.mid.block_2)
    for level in reversed(decoder.up):
        yield from level.block
        yield level.upsample
    yield lambda h: decoder.conv_out(F.silu(decoder.norm_out(h)))


def _tiny_blocks(model: TinyDecoder) -> Iterator[Block]:
    config = model.config
    limit = config.latent_limit
    yield lambda z: F.relu(model.conv_in(limit * torch.tanh(z * (config.scaling_factor / limit))))
    yield from model.level[0]
    for up, level in zip(model.up, model.level[1:], strict=True):
        yield up
        yield from level
    if config.patch > 1:
        yield lambda h: F.pixel_shuffle(model.conv_out(h), config.patch)
    else:
        yield model.conv_out
