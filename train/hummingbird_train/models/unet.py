"""The video U-Net: VideoCrafter2's architecture; both Hummingbird students are smaller cases of it.

One rule builds the 1.4 B teacher, the 0.9 B and 0.7 B students (Hummingbird, section 3.1: one
residual block per level, then no middle block) and the tiny model trained here. Tensor names equal
the published ones. What the output means (noise or velocity) is a matter of the scheduler.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hummingbird_train.models.attention import SpatialTransformer, TemporalTransformer
from hummingbird_train.models.blocks import (
    Conditioning,
    Downsample,
    ResBlock,
    Stage,
    Stem,
    Upsample,
    zeroed,
)
from hummingbird_train.models.config import ModelConfig, invalid
from hummingbird_train.models.embeddings import EmbeddingMLP, sinusoid_table
from hummingbird_train.models.place import PlacePlanes


@dataclass(frozen=True)
class UNetConfig(ModelConfig):
    """Shape of a video U-Net; the defaults are VideoCrafter2's."""

    in_channels: int = 4
    """Latent channels of the input."""
    out_channels: int = 4
    """Latent channels of the output."""
    model_channels: int = 320
    """Width of the first level and of the sinusoids; even."""
    channel_mult: tuple[int, ...] = (1, 2, 4, 4)
    """Width of each level over ``model_channels``; each further level halves height and width."""
    num_res_blocks: int = 2
    """Residual blocks per level on the way down; one more on the way up."""
    attention_resolutions: tuple[int, ...] = (1, 2, 4)
    """Downsampling factors of the levels that have transformers."""
    middle_block: bool = True
    """Residual block, transformers, residual block at the lowest level."""
    num_head_channels: int = 64
    """Width of one attention head."""
    init_attn_heads: int = 8
    """Heads of the temporal transformer behind the first convolution."""
    context_dim: int = 1024
    """Width of the prompt's tokens."""
    time_cond_proj_dim: int | None = None
    """Width of the guidance-scale embedding, None for a model without one."""
    dropout: float = 0.0
    """Inside residual blocks, in training only."""
    temporal_dropout: float = 0.1
    """Inside temporal convolutions, in training only."""
    norm_num_groups: int = 32
    """Groups of every GroupNorm; 32 on narrow layers erases the amplitude of channels."""
    frame_embedding: bool = False
    """Adds an embedding of the frame's index to the time embedding."""
    pooled_text_embedding: bool = False
    """Adds an embedding of the prompt's mean token to the time embedding."""
    place_planes: bool = False
    """Adds planes over height and width to the first features: where the prompt says that the
    object is in a frame. Motion words are not learnt without them (``PlacePlanes``)."""

    def __post_init__(self) -> None:
        """Refuse an empty pyramid and widths that heads, groups or sinusoids cannot divide."""
        super().__post_init__()
        if not self.channel_mult:
            raise invalid("UNetConfig", "channel_mult = []", "one number per level")
        if self.model_channels % 2:
            raise invalid("UNetConfig", f"model_channels {self.model_channels}", "an even number")
        for mult in self.channel_mult:
            width = self.model_channels * mult
            if width % self.num_head_channels or width % self.norm_num_groups:
                raise invalid(
                    "UNetConfig",
                    f"a level of width {width}",
                    f"a multiple of num_head_channels {self.num_head_channels} "
                    f"and of norm_num_groups {self.norm_num_groups}",
                )

    @property
    def size_multiple(self) -> int:
        """Latent height and width must be multiples of this."""
        return int(2 ** (len(self.channel_mult) - 1))

    @classmethod
    def videocrafter2(cls) -> UNetConfig:
        """The teacher: 1,413,284,420 parameters."""
        return cls()

    @classmethod
    def hummingbird_09b(cls) -> UNetConfig:
        """945,209,220 parameters: one residual block per level."""
        return cls(num_res_blocks=1, time_cond_proj_dim=256)

    @classmethod
    def hummingbird_07b(cls) -> UNetConfig:
        """772,091,780 parameters: the 0.9 B model without its middle block."""
        return cls(num_res_blocks=1, time_cond_proj_dim=256, middle_block=False)

    @classmethod
    def tiny(cls) -> UNetConfig:
        """The shape of the built-in model: 8 x 8 latents, two levels."""
        return cls(
            model_channels=64,
            channel_mult=(1, 2),
            num_res_blocks=1,
            attention_resolutions=(1, 2),
            middle_block=False,
            num_head_channels=32,
            init_attn_heads=2,
            context_dim=96,
            time_cond_proj_dim=64,
            temporal_dropout=0.0,
            norm_num_groups=8,
            frame_embedding=True,
            pooled_text_embedding=True,
            place_planes=True,
        )


class VideoUNet(nn.Module):
    """Predicts noise or velocity of a latent clip.

    Args:
        config: shape of the network.
    """

    sinusoids: Tensor

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        width = config.model_channels
        emb = 4 * width
        self.register_buffer("sinusoids", sinusoid_table(width), persistent=False)
        self.time_embed = EmbeddingMLP(width, emb)
        self.fps_embedding = EmbeddingMLP(width, emb)
        if config.time_cond_proj_dim is not None:
            self.time_cond_proj = nn.Linear(config.time_cond_proj_dim, width, bias=False)
        if config.frame_embedding:
            self.frame_embedding = EmbeddingMLP(width, emb)
        if config.pooled_text_embedding:
            self.text_embedding = EmbeddingMLP(config.context_dim, emb)
        if config.place_planes:
            self.place_planes = PlacePlanes(config.context_dim, width)

        self.input_blocks = nn.ModuleList([Stage(Stem(config.in_channels, width))])
        self.init_attn = Stage(
            TemporalTransformer(
                width,
                inner=config.init_attn_heads * config.num_head_channels,
                head_channels=config.num_head_channels,
                groups=config.norm_num_groups,
                conv_projections=True,
            )
        )
        levels = range(len(config.channel_mult))
        skips = [width]
        for level in levels:
            for _ in range(config.num_res_blocks):
                channels = config.channel_mult[level] * width
                self.input_blocks.append(Stage(*self._blocks(skips[-1], channels, level)))
                skips.append(channels)
            if level != levels[-1]:
                self.input_blocks.append(Stage(Downsample(skips[-1])))
                skips.append(skips[-1])
        channels = skips[-1]
        if config.middle_block:
            self.middle_block = Stage(
                self._res(channels, channels),
                *self._transformers(channels),
                self._res(channels, channels),
            )
        self.output_blocks = nn.ModuleList()
        for level in reversed(levels):
            for i in range(config.num_res_blocks + 1):
                channels_in = channels + skips.pop()
                channels = config.channel_mult[level] * width
                stage = self._blocks(channels_in, channels, level)
                if level and i == config.num_res_blocks:
                    stage.append(Upsample(channels))
                self.output_blocks.append(Stage(*stage))
        self.out = nn.Sequential(
            nn.GroupNorm(config.norm_num_groups, width),
            nn.SiLU(),
            zeroed(nn.Conv2d(width, config.out_channels, 3, padding=1)),
        )

    def _res(self, channels_in: int, channels: int) -> ResBlock:
        return ResBlock(
            channels_in,
            channels,
            emb_channels=4 * self.config.model_channels,
            groups=self.config.norm_num_groups,
            dropout=self.config.dropout,
            temporal_dropout=self.config.temporal_dropout,
        )

    def _transformers(self, channels: int) -> list[nn.Module]:
        head, groups = self.config.num_head_channels, self.config.norm_num_groups
        return [
            SpatialTransformer(
                channels,
                head_channels=head,
                context_channels=self.config.context_dim,
                groups=groups,
            ),
            TemporalTransformer(channels, inner=channels, head_channels=head, groups=groups),
        ]

    def _blocks(self, channels_in: int, channels: int, level: int) -> list[nn.Module]:
        blocks: list[nn.Module] = [self._res(channels_in, channels)]
        if 2**level in self.config.attention_resolutions:
            blocks += self._transformers(channels)
        return blocks

    def _embedding(
        self,
        timestep: Tensor,
        context: Tensor,
        timestep_cond: Tensor | None,
        fps: Tensor,
        frame_indices: Tensor | None,
        frames: int,
    ) -> Tensor:
        """Time embedding (b, 1 or t, e)."""
        table = self.sinusoids
        t_emb = nn.functional.embedding(timestep.reshape(-1), table)  # (1 or b, model_channels)
        if timestep_cond is not None:
            t_emb = t_emb + self.time_cond_proj(timestep_cond)
        emb = self.time_embed(t_emb) + self.fps_embedding(nn.functional.embedding(fps, table))
        if self.config.pooled_text_embedding:
            emb = emb + self.text_embedding(context.mean(dim=1))
        emb = emb[:, None]
        if self.config.frame_embedding:
            if frame_indices is None:
                rows = table[:frames]
            else:
                rows = nn.functional.embedding(frame_indices, table)
            emb = emb + self.frame_embedding(rows)
        return emb

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        *,
        timestep_cond: Tensor | None = None,
        fps: Tensor,
        frame_indices: Tensor | None = None,
        images: bool = False,
    ) -> Tensor:
        """One evaluation of the network.

        Args:
            sample: noisy latent [B,C,F,h,w]; h and w multiples of ``config.size_multiple``.
            timestep: int64 [] or [B], 0..999.
            encoder_hidden_states: prompt [B,L,D].
            timestep_cond: guidance-scale embedding [B,W], or None to leave it out.
            fps: int64 [B], 0..999: the frame rate that the clip is to have.
            frame_indices: int64 [F] or [B,F], 0..999: position of each frame in its clip, 0..F-1
                when None; read by models with ``frame_embedding`` or ``place_planes``.
            images: treat frames as unrelated images: every layer over time is left out. For
                pre-training on single frames.

        Returns:
            Prediction [B,C,F,h,w].
        """
        batch, _, frames, _, _ = sample.shape
        emb = self._embedding(
            timestep, encoder_hidden_states, timestep_cond, fps, frame_indices, frames
        )
        cond = Conditioning(batch, frames, emb, encoder_hidden_states, images)
        h = sample.transpose(1, 2).flatten(0, 1)  # (b*t, c, h, w)
        h = h.contiguous(memory_format=torch.channels_last)
        h = self.input_blocks[0](h, cond)
        if self.config.place_planes:
            planes = self.place_planes(encoder_hidden_states, frame_indices, sample.shape[2:])
            h = h + planes.expand(batch, -1, -1, -1, -1).flatten(0, 1)
        h = self.init_attn(h, cond)
        skips = [h]
        for stage in self.input_blocks[1:]:
            h = stage(h, cond)
            skips.append(h)
        if self.config.middle_block:
            h = self.middle_block(h, cond)
        for stage in self.output_blocks:
            h = stage(torch.cat([h, skips.pop()], dim=1), cond)
        return self.out(h).unflatten(0, (batch, frames)).transpose(1, 2)
