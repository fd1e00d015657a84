"""Transformers of the video U-Net: over the cells of a frame and its prompt, and over frames.

VideoCrafter's design: the temporal transformer has two self-attentions, no mask and no positions.
Attention goes through ``scaled_dot_product_attention`` on (n, heads, length, head) tensors.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from hummingbird_train.models.blocks import Conditioning, to_clip, to_frames, zeroed


class Attention(nn.Module):
    """Multi-head attention, heads split as (heads, head channels) along the width.

    Args:
        channels: width of the queries and of the output, a multiple of ``head_channels``.
        head_channels: width of one head.
        context_channels: width of keys' and values' source.
    """

    def __init__(self, channels: int, head_channels: int, context_channels: int) -> None:
        super().__init__()
        self.head_channels = head_channels
        self.to_q = nn.Linear(channels, channels, bias=False)
        self.to_k = nn.Linear(context_channels, channels, bias=False)
        self.to_v = nn.Linear(context_channels, channels, bias=False)
        self.to_out = nn.Sequential(nn.Linear(channels, channels))

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """(n, l, c) attends to (n, m, d) -> (n, l, c)."""
        q, k, v = (
            y.unflatten(2, (-1, self.head_channels)).transpose(1, 2)  # (n, heads, length, head)
            for y in (self.to_q(x), self.to_k(context), self.to_v(context))
        )
        return self.to_out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class GEGLU(nn.Module):
    """value * gelu(gate), the value being the first half of the projection."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.proj = nn.Linear(channels, 2 * hidden)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.proj(x).chunk(2, dim=-1)
        return value * F.gelu(gate)


class FeedForward(nn.Module):
    """GEGLU of four times the width and back: tensors ``net.0.proj`` and ``net.2``."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            GEGLU(channels, 4 * channels), nn.Identity(), nn.Linear(4 * channels, channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class TransformerBlock(nn.Module):
    """Pre-norm attention, second attention, feed-forward."""

    def __init__(self, channels: int, head_channels: int, context_channels: int) -> None:
        super().__init__()
        self.attn1 = Attention(channels, head_channels, channels)
        self.attn2 = Attention(channels, head_channels, context_channels)
        self.ff = FeedForward(channels)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(channels) for _ in range(3))

    def forward(self, x: Tensor, context: Tensor | None) -> Tensor:
        """Tokens (n, l, c); context (b, m, d) with n a multiple of b, or None for x itself."""
        y = self.norm1(x)
        x = x + self.attn1(y, y)
        y = self.norm2(x)
        if context is None:
            x = x + self.attn2(y, y)
        else:
            # All frames of a clip ask one copy of its prompt: (b*t, l, c) -> (b, t*l, c) -> back.
            together = y.reshape(context.shape[0], -1, y.shape[2])
            x = x + self.attn2(together, context).reshape(x.shape)
        return x + self.ff(self.norm3(x))


class SpatialTransformer(nn.Module):
    """Cells of each frame attend to each other and to the prompt."""

    def __init__(
        self, channels: int, *, head_channels: int, context_channels: int, groups: int
    ) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels, eps=1e-6)
        self.proj_in = nn.Linear(channels, channels)
        block = TransformerBlock(channels, head_channels, context_channels)
        self.transformer_blocks = nn.ModuleList([block])
        self.proj_out = zeroed(nn.Linear(channels, channels))

    def forward(self, x: Tensor, cond: Conditioning) -> Tensor:
        h = self.proj_in(self.norm(x).flatten(2).transpose(1, 2))  # (b*t, h*w, c)
        for block in self.transformer_blocks:
            h = block(h, cond.context)
        return x + self.proj_out(h).transpose(1, 2).reshape(x.shape)


class TemporalTransformer(nn.Module):
    """Frames of each cell attend to each other; the norm takes statistics over t, h and w jointly.

    Args:
        channels: channels of the features.
        inner: width of the tokens.
        head_channels: width of one head.
        groups: groups of the norm.
        conv_projections: projections stored as 1-tap Conv1d weights, as in the published init_attn.
    """

    def __init__(
        self,
        channels: int,
        *,
        inner: int,
        head_channels: int,
        groups: int,
        conv_projections: bool = False,
    ) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels, eps=1e-6)
        block = TransformerBlock(inner, head_channels, inner)
        self.transformer_blocks = nn.ModuleList([block])
        if conv_projections:
            self.proj_in: nn.Conv1d | nn.Linear = nn.Conv1d(channels, inner, 1)
            self.proj_out: nn.Conv1d | nn.Linear = nn.Conv1d(inner, channels, 1)
        else:
            self.proj_in, self.proj_out = nn.Linear(channels, inner), nn.Linear(inner, channels)
        zeroed(self.proj_out)

    def forward(self, x: Tensor, cond: Conditioning) -> Tensor:
        if cond.images:
            return x
        h = self.norm(to_clip(x, cond)).permute(0, 3, 2, 1)  # (b, h*w, t, c)
        cells = h.shape[:2]
        # A 1-tap Conv1d is a Linear: flatten(1) drops the tap and leaves a matrix alone.
        h = F.linear(h.flatten(0, 1), self.proj_in.weight.flatten(1), self.proj_in.bias)
        for block in self.transformer_blocks:
            h = block(h, None)
        h = F.linear(h, self.proj_out.weight.flatten(1), self.proj_out.bias)
        return x + to_frames(h.reshape(*cells, *h.shape[1:]).permute(0, 3, 2, 1), x)
