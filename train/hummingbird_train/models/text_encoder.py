"""The prompt's encoder: OpenCLIP's causal text tower, read at the penultimate layer.

Radford et al. 2021 with the tensor names of OpenCLIP; VideoCrafter2 uses ViT-H-14's tower. All
tokens come out, padding included; nothing is pooled. Tokenizing happens outside.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hummingbird_train.models.config import ModelConfig, invalid


@dataclass(frozen=True)
class TextConfig(ModelConfig):
    """Shape of a text tower; the defaults are ViT-H-14's."""

    vocab_size: int = 49408
    """Number of tokens."""
    max_length: int = 77
    """Longest sequence, start and end tokens included."""
    width: int = 1024
    """Width of tokens."""
    heads: int = 16
    """Attention heads per layer."""
    layers: int = 24
    """Layers of the tower, the last one included although it never runs."""
    published_extras: bool = True
    """Hold last layer, text projection and logit scale: in the published files, never used."""

    def __post_init__(self) -> None:
        """Refuse a width that heads cannot divide and a tower without a penultimate layer."""
        super().__post_init__()
        if self.width % self.heads:
            raise invalid("TextConfig", f"width {self.width}", f"a multiple of heads {self.heads}")
        if self.layers < 2:
            raise invalid("TextConfig", f"layers {self.layers}", "at least 2")

    @classmethod
    def videocrafter2(cls) -> TextConfig:
        """ViT-H-14: 354,032,641 parameters."""
        return cls()

    @classmethod
    def tiny(cls, vocab_size: int) -> TextConfig:
        """The shape of the built-in model: 24 tokens of width 96, two layers run."""
        return cls(
            vocab_size=vocab_size,
            max_length=24,
            width=96,
            heads=4,
            layers=3,
            published_extras=False,
        )


class CausalAttention(nn.Module):
    """Multi-head self-attention in which a token sees itself and those before it."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(b, l, c) -> (b, l, c)."""
        projected = F.linear(x, self.in_proj_weight, self.in_proj_bias)
        q, k, v = (
            y.unflatten(2, (self.heads, -1)).transpose(1, 2)  # (b, heads, l, head)
            for y in projected.chunk(3, dim=2)
        )
        h = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out_proj(h.transpose(1, 2).flatten(2))


class MLP(nn.Module):
    """Four times the width and back, exact GELU."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.c_fc = nn.Linear(width, 4 * width)
        self.c_proj = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.c_proj(F.gelu(self.c_fc(x)))


class ResidualAttentionBlock(nn.Module):
    """Pre-norm attention and MLP."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = CausalAttention(width, heads)
        self.mlp = MLP(width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class TextEncoder(nn.Module):
    """Token ids to the context of the U-Net.

    Args:
        config: shape of the tower.
    """

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.token_embedding = nn.Embedding(config.vocab_size, width)
        self.positional_embedding = nn.Parameter(torch.empty(config.max_length, width))
        held = config.layers if config.published_extras else config.layers - 1
        self.transformer = nn.Module()
        self.transformer.resblocks = nn.ModuleList(
            ResidualAttentionBlock(width, config.heads) for _ in range(held)
        )
        self.ln_final = nn.LayerNorm(width)
        if config.published_extras:
            self.text_projection = nn.Parameter(torch.zeros(width, width), requires_grad=False)
            self.logit_scale = nn.Parameter(torch.zeros(()), requires_grad=False)
        self._initialize()

    def _initialize(self) -> None:
        """CLIP's initialisation: small embeddings, residual branches scaled by the depth."""
        width, layers = self.config.width, self.config.layers
        nn.init.normal_(self.token_embedding.weight, std=0.02)
        nn.init.normal_(self.positional_embedding, std=0.01)
        branch = width**-0.5 * (2 * layers) ** -0.5
        for block in self.transformer.resblocks:
            nn.init.normal_(block.attn.in_proj_weight, std=width**-0.5)
            nn.init.normal_(block.attn.out_proj.weight, std=branch)
            nn.init.normal_(block.mlp.c_fc.weight, std=(2 * width) ** -0.5)
            nn.init.normal_(block.mlp.c_proj.weight, std=branch)

    def forward(self, input_ids: Tensor) -> Tensor:
        """Context of a prompt.

        Args:
            input_ids: int64 [B,L], L <= ``config.max_length``.

        Returns:
            float [B,L,D]: hidden states before the last layer, after the final norm.
        """
        x = self.token_embedding(input_ids) + self.positional_embedding[: input_ids.shape[1]]
        for block in self.transformer.resblocks[: self.config.layers - 1]:
            x = block(x)
        return self.ln_final(x)
