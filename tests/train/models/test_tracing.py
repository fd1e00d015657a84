"""torch.export takes each network with dynamic sizes, and the result holds at other sizes."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram, export

from hummingbird_train.models.autoencoder import AutoencoderConfig, AutoencoderKL
from hummingbird_train.models.text_encoder import TextConfig, TextEncoder
from hummingbird_train.models.unet import UNetConfig, VideoUNet

# torch.export's own use of a deprecated name in its pytree code.
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")


class Decoder(nn.Module):
    def __init__(self, model: AutoencoderKL) -> None:
        super().__init__()
        self.model = model

    def forward(self, latent: Tensor) -> Tensor:
        return self.model.decode(latent)


def check(program: ExportedProgram, model: nn.Module, *args: Tensor, **kwargs: Tensor) -> None:
    with torch.no_grad():
        got, expected = program.module()(*args, **kwargs), model(*args, **kwargs)
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


def test_text_encoder_takes_any_batch_and_length() -> None:
    model = TextEncoder(TextConfig.tiny(50)).eval().requires_grad_(False)
    ids = torch.arange(20).reshape(2, 10)
    dims = ({0: Dim("batch"), 1: Dim("length", min=2, max=24)},)
    program = export(model, (ids,), dynamic_shapes=dims, strict=False)
    check(program, model, torch.arange(24)[None])
    check(program, model, torch.arange(12).reshape(4, 3))


@pytest.mark.parametrize(
    "config",
    [
        replace(AutoencoderConfig.tiny(), decoder_channels=8),
        AutoencoderConfig(channels=32, channel_mult=(1, 1), num_res_blocks=1),
    ],
    ids=["pixel_shuffle", "conv"],
)
def test_decoder_takes_any_batch_height_and_width(config: AutoencoderConfig) -> None:
    model = Decoder(AutoencoderKL(config).eval().requires_grad_(False))
    dims = ({0: Dim("frames"), 2: Dim("height", min=1), 3: Dim("width", min=1)},)
    program = export(model, (torch.randn(2, 4, 5, 6),), dynamic_shapes=dims, strict=False)
    check(program, model, torch.randn(1, 4, 8, 3))
    check(program, model, torch.randn(3, 4, 2, 7))


@pytest.mark.slow
def test_unet_takes_any_frames_height_width_and_prompt_length(vectors: SimpleNamespace) -> None:
    config = replace(
        UNetConfig.tiny(), model_channels=16, num_head_channels=8, norm_num_groups=4, context_dim=12
    )
    model = vectors.randomize(VideoUNet(config)).requires_grad_(False)

    def inputs(frames: int, height: int, width: int, length: int) -> dict[str, Tensor]:
        return {
            "sample": torch.randn(1, 4, frames, height, width),
            "timestep": torch.tensor(519),
            "encoder_hidden_states": torch.randn(1, length, 12),
            "timestep_cond": torch.randn(1, 64),
            "fps": torch.tensor([8]),
        }

    # Height and width must halve once: multiples of two.
    sizes = {2: Dim("frames", min=1, max=104), 3: 2 * Dim("h", min=1), 4: 2 * Dim("w", min=1)}
    dims = {
        "sample": sizes,
        "timestep": None,
        "encoder_hidden_states": {1: Dim("length", min=2)},
        "timestep_cond": None,
        "fps": None,
    }
    program = export(model, (), inputs(5, 8, 6, 7), dynamic_shapes=dims, strict=False)
    check(program, model, **inputs(1, 8, 8, 24))
    check(program, model, **inputs(26, 4, 10, 3))
