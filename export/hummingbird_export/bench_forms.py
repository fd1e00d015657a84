"""Two forms of one U-Net: the fair one, and the one in which the original was published.

The original computes temporal convolutions as Conv3d, gives attention 3-D tensors (which PyTorch's
CPU kernels answer with the slow path), copies prompt and time embedding once per frame and keeps
the channels first. Weights and results are the same. The fair form is the model's own ``forward``.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor, nn

from hummingbird_train.models.attention import Attention, TransformerBlock
from hummingbird_train.models.blocks import Conditioning, Stem, TemporalConv
from hummingbird_train.models.unet import VideoUNet


class PublishedTemporalConv(TemporalConv):
    """The convolution over frames as a Conv3d."""

    def forward(self, x: Tensor) -> Tensor:
        return F.conv3d(
            x.unsqueeze(-1).contiguous(), self.weight, self.bias, padding=(1, 0, 0)
        ).squeeze(-1)


class PublishedAttention(Attention):
    """Heads folded into the batch: (n * heads, length, head)."""

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        n, length, width = x.shape
        heads = width // self.head_channels
        q, k, v = (
            y.unflatten(2, (heads, -1)).transpose(1, 2).flatten(0, 1).contiguous()
            for y in (self.to_q(x), self.to_k(context), self.to_v(context))
        )
        h = F.scaled_dot_product_attention(q, k, v).reshape(n, heads, length, -1)
        out: Tensor = self.to_out(h.transpose(1, 2).reshape(n, length, width))
        return out


class PublishedBlock(TransformerBlock):
    """The prompt copied for every frame."""

    def forward(self, x: Tensor, context: Tensor | None) -> Tensor:
        y = self.norm1(x)
        x = x + self.attn1(y, y)
        y = self.norm2(x)
        if context is None:
            own = y
        else:
            own = context.repeat_interleave(x.shape[0] // context.shape[0], dim=0)
        x = x + self.attn2(y, own)
        out: Tensor = x + self.ff(self.norm3(x))
        return out


class PublishedStem(Stem):
    """Channels first from here on."""

    def forward(  # type: ignore[override]
        self, x: Tensor, cond: Conditioning
    ) -> Tensor:
        return super().forward(x.contiguous(), cond)


class PublishedUNet(VideoUNet):
    """The time embedding copied for every frame."""

    def _embedding(
        self,
        timestep: Tensor,
        context: Tensor,
        timestep_cond: Tensor | None,
        fps: Tensor,
        frame_indices: Tensor | None,
        frames: int,
    ) -> Tensor:
        emb = super()._embedding(timestep, context, timestep_cond, fps, frame_indices, frames)
        return emb.expand(-1, frames, -1).contiguous()


_FORMS: dict[type[nn.Module], type[nn.Module]] = {
    TemporalConv: PublishedTemporalConv,
    Attention: PublishedAttention,
    TransformerBlock: PublishedBlock,
    Stem: PublishedStem,
    VideoUNet: PublishedUNet,
}


def as_published(unet: VideoUNet) -> VideoUNet:
    """Bring a U-Net from the fair form into the original's, in place: same weights and results."""
    return _change(unet, _FORMS)


def as_fair(unet: VideoUNet) -> VideoUNet:
    """Undo ``as_published``, in place."""
    return _change(unet, {form: own for own, form in _FORMS.items()})


def _change(unet: VideoUNet, forms: Mapping[type[nn.Module], type[nn.Module]]) -> VideoUNet:
    for module in unet.modules():
        form = forms.get(type(module))
        if form is not None:
            module.__class__ = form
    return unet
