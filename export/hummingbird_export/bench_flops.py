"""Work of a torch arm, counted by running its networks' skeletons on the meta device."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hummingbird_export.random_models import Preset
from hummingbird_train.meta_trace import trace
from hummingbird_train.models.autoencoder import AutoencoderKL
from hummingbird_train.models.text_encoder import TextEncoder
from hummingbird_train.models.unet import VideoUNet


def counted_flops(
    shapes: Preset, size: tuple[int, int, int, int], passes: int, texts: int
) -> dict[str, int]:
    """Operations of one clip in the fair form, a multiply-add being two.

    Args:
        shapes: of the networks.
        size: latent frames, channels, height and width.
        passes: of the U-Net.
        texts: prompts read.
    """
    frames, channels, height, width = size
    with torch.device("meta"):
        unet, vae = VideoUNet(shapes.unet), AutoencoderKL(shapes.vae)
        text = TextEncoder(shapes.text)
        one = torch.zeros(1, dtype=torch.int64)
        wide, tokens = shapes.unet.time_cond_proj_dim, shapes.text.max_length
        unet_pass = trace(
            unet,
            torch.zeros(1, channels, frames, height, width),
            one,
            torch.zeros(1, tokens, shapes.unet.context_dim),
            timestep_cond=None if wide is None else torch.zeros(1, wide),
            fps=one,
        ).flop
        decoded = trace(_Decoder(vae), torch.zeros(1, channels, height, width)).flop
        read = trace(text, torch.zeros(1, tokens, dtype=torch.int64)).flop
    return {
        "text": read,
        "texts": texts,
        "unet_pass": unet_pass,
        "passes": passes,
        "decoded_frame": decoded,
        "frames": frames,
        "total": read * texts + unet_pass * passes + decoded * frames,
    }


class _Decoder(nn.Module):
    """The decoding half of an autoencoder."""

    def __init__(self, vae: AutoencoderKL) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, latent: Tensor) -> Tensor:
        return self.vae.decode(latent)
