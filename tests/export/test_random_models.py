"""Random models: repeatable weights, no layer left at zero, the published tokenizer."""

from __future__ import annotations

import math
from pathlib import Path

import micro_models
import numpy as np
import pytest
import torch

from hummingbird_export.facts import complete_facts
from hummingbird_export.latent_rgb import fit_latent_rgb
from hummingbird_export.random_models import (
    GAIN_SIGMA,
    LCM,
    PRESETS,
    SPIKE,
    harden,
    preset,
    random_networks,
    random_tiny_decoder,
    random_unet,
    randomize,
    write_clip_tokenizer,
)
from hummingbird_runtime.guidance import guidance_embedding
from hummingbird_runtime.sampler import sample
from hummingbird_runtime.tokenizer import Tokenizer
from hummingbird_train.models.autoencoder import AutoencoderConfig, AutoencoderKL
from hummingbird_train.models.unet import UNetConfig, VideoUNet


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
            assert float(parameter.detach().std()) == pytest.approx(
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
            encoder_channels=8, decoder_channels=8, encoder_res_blocks=1, decoder_res_blocks=1,
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


def test_hard_weights_have_the_spread_and_the_outliers_asked_for():
    torch.manual_seed(0)
    layer, norm = torch.nn.Linear(400, 600), torch.nn.GroupNorm(4, 320)
    network = torch.nn.ModuleDict({"layer": layer, "norm": norm})
    randomize(network, seed=1)
    plain = layer.weight.detach().clone()
    harden(network, seed=1)
    ratio = layer.weight.detach() / plain
    gains = ratio.median(dim=1).values  # outliers are too few to move a median
    # The spread of a standard deviation over 600 samples is 3 %: five of them.
    assert float(gains.log().std()) == pytest.approx(GAIN_SIGMA, rel=0.15)
    spiked = (ratio / gains[:, None] - SPIKE).abs() < 1e-3
    # 240 places, drawn with replacement.
    assert 235 <= int(spiked.sum()) <= 240
    assert torch.all(spiked | ((ratio / gains[:, None] - 1).abs() < 1e-3))
    weights = norm.weight.detach().sort().values
    assert float(weights[-4] / weights[-5]) > 8
    assert float(weights[-4:].mean() / weights[:-4].mean()) == pytest.approx(SPIKE, rel=0.2)


def test_hard_weights_keep_the_root_mean_square_of_every_tensor():
    unet = micro_models.networks()[0]
    before = {name: p.detach().square().mean() for name, p in unet.named_parameters()}
    harden(unet, seed=3)
    for name, parameter in unet.named_parameters():
        after = float(parameter.detach().square().mean())
        if not name.endswith("weight"):
            assert after == pytest.approx(float(before[name])), name
        elif parameter.ndim == 1:
            assert after == pytest.approx(1), name
        elif parameter.numel() > 5000:  # few enough spikes to reckon with
            assert after == pytest.approx(float(before[name]), rel=0.6), name


def test_hard_weights_are_repeatable_and_leave_tables_alone():
    shapes = preset("tiny")
    first, again = (random_networks(shapes, seed=2, hard=True) for _ in range(2))
    plain = random_networks(shapes, seed=2)
    for a, b in zip(first, again, strict=True):
        for one, two in zip(a.parameters(), b.parameters(), strict=True):
            assert torch.equal(one, two)
    assert torch.equal(first[2].token_embedding.weight, plain[2].token_embedding.weight)
    assert torch.equal(first[2].positional_embedding, plain[2].positional_embedding)
    assert not torch.equal(first[0].out[2].weight, plain[0].out[2].weight)
    assert torch.equal(first[0].sinusoids, plain[0].sinusoids)


def test_hard_networks_give_ordinary_numbers():
    shapes = preset("tiny")
    unet, vae, text = random_networks(shapes, seed=1, hard=True)
    torch.manual_seed(0)
    with torch.inference_mode():
        context = text(torch.randint(shapes.text.vocab_size, (1, shapes.text.max_length)))
        latent = unet(
            torch.randn(1, 4, 2, 8, 8),
            torch.tensor(999),
            context,
            timestep_cond=torch.randn(1, shapes.unet.time_cond_proj_dim),
            fps=torch.tensor([8]),
        )
        pixels = vae.decode(latent[0].transpose(0, 1))
        small = random_tiny_decoder(shapes, seed=1)(latent[0].transpose(0, 1))
    for values in (context, latent, pixels, small):
        assert torch.isfinite(values).all()
        assert 0.01 < float(values.std()) < 100


@pytest.mark.slow
def test_hard_weights_of_a_full_size_model_survive_the_sampler():
    unet = random_unet(UNetConfig.hummingbird_07b(), seed=0, hard=True)
    generator = torch.Generator().manual_seed(0)
    context = torch.randn(1, 77, 1024, generator=generator)
    scale = torch.from_numpy(guidance_embedding(7.5, 256))

    def denoise(x_t: np.ndarray, t: int) -> np.ndarray:
        with torch.inference_mode():
            out = unet(
                torch.from_numpy(x_t),
                torch.tensor(t),
                context,
                timestep_cond=scale,
                fps=torch.tensor([8]),
            )
        assert torch.isfinite(out).all()
        assert 0.01 < float(out.std()) < 100
        return out.numpy()

    def noise(_: int = 0) -> np.ndarray:
        return torch.randn(1, 4, 2, 8, 8, generator=generator).numpy()

    for step in sample(denoise, noise(), LCM, 4, noise):
        assert 0.01 < float(np.std(step.denoised)) < 100
