"""Random models: repeatable weights, no layer left at zero, the published tokenizer."""

from __future__ import annotations

import math
from pathlib import Path

import micro_models
import pytest
import torch

from hummingbird_export.facts import complete_facts
from hummingbird_export.latent_rgb import fit_latent_rgb
from hummingbird_export.random_models import PRESETS, preset, randomize, write_clip_tokenizer
from hummingbird_runtime.tokenizer import Tokenizer
from hummingbird_train.models.autoencoder import AutoencoderConfig, AutoencoderKL
from hummingbird_train.models.unet import VideoUNet


def test_the_same_seed_gives_the_same_weights():
    first, again, other = (micro_models.networks(seed=seed)[0] for seed in (1, 1, 2))
    pairs = zip(first.parameters(), again.parameters(), other.parameters(), strict=True)
    for a, b, c in pairs:
        assert torch.equal(a, b)
        assert not torch.equal(a, c)


def test_no_parameter_is_left_constant_and_matrices_keep_the_scale():
    unet = micro_models.networks()[0]
    for name, parameter in unet.named_parameters():
        assert parameter.std() > 0, name
        if parameter.ndim > 1 and parameter.numel() > 500:
            expected = parameter[0].numel() ** -0.5
            # The spread of a standard deviation over n samples is 1 / sqrt(2 n): five of them.
            assert float(parameter.std()) == pytest.approx(
                expected, rel=5 / math.sqrt(2 * parameter.numel())
            ), name


@pytest.mark.parametrize("name", PRESETS)
def test_presets_describe_models_that_fit_together(name: str):
    shapes = preset(name)
    with torch.device("meta"):
        unet, vae = VideoUNet(shapes.unet), AutoencoderKL(shapes.vae)
    facts = complete_facts({**shapes.facts, "latent_rgb": [[0.0] * 5] * 3}, unet=unet, vae=vae)
    assert facts.timestep_cond_dim == shapes.unet.time_cond_proj_dim
    assert (facts.guidance.kind == "cfg") == (name == "vc2")
    assert shapes.unet.context_dim == shapes.text.width
    assert facts.height.default % facts.height.multiple_of == 0


def test_the_clip_tokenizer_gives_the_published_ids(tmp_path: Path):
    tokenizer = Tokenizer.from_files(write_clip_tokenizer(tmp_path / "clip"))
    ids = tokenizer.encode("A drone flying over a snowy forest.").ids[0].tolist()
    known = [49406, 320, 9397, 4610, 962, 320, 14191, 4167, 269, 49407]
    assert ids == known + [0] * 67


def test_the_preview_map_is_exact_for_a_decoder_that_is_linear():
    vae = AutoencoderKL(
        AutoencoderConfig(
            stem="pixel_shuffle", norm="none", double_z=False, scaling_factor=0.5,
            encoder_channels=8, decoder_channels=8, encoder_res_blocks=0, decoder_res_blocks=0,
        )
    )  # fmt: skip
    randomize(vae, seed=0)
    expected = [
        [0.1, -0.2, 0.0, 0.05, 0.3],
        [0.0, 0.1, 0.1, 0.0, -0.1],
        [0.05, 0.0, -0.1, 0.2, 0.0],
    ]

    def decode(latent: torch.Tensor) -> torch.Tensor:
        rows = torch.tensor(expected)
        colour = torch.einsum("rc,nchw->nrhw", rows[:, :4], latent * 0.5) + rows[:, 4].view(3, 1, 1)
        return colour.repeat_interleave(8, 2).repeat_interleave(8, 3)

    vae.decode = decode
    fitted = fit_latent_rgb(vae)
    # Colours beyond [-1, 1] are clipped, as they are on a screen: a few of the samples.
    assert torch.allclose(torch.tensor(fitted), torch.tensor(expected), atol=5e-3)
