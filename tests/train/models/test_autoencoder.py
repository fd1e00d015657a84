from types import SimpleNamespace

import pytest
import torch

from hummingbird_train.models.autoencoder import AutoencoderConfig, AutoencoderKL

SMALL = AutoencoderConfig(channels=32, channel_mult=(1, 2), num_res_blocks=1)


def test_matches_the_reference_network(vectors: SimpleNamespace) -> None:
    _, weights, io = vectors.reference("vae_mini")
    model = AutoencoderKL(SMALL).eval()
    model.load_state_dict(weights)
    with torch.no_grad():
        mean, logvar = model.encode(io["pixels"])
        decoded = model.decode(io["latent"])
    # float32 sums in another order; measured 1.2e-6.
    assert vectors.relative(mean, io["moments_mean"]) <= 2e-5
    assert vectors.relative(logvar, io["moments_logvar"]) <= 2e-5
    assert vectors.relative(decoded, io["decoded"]) <= 2e-5


@torch.no_grad()
def test_matches_the_closed_form_values(vectors: SimpleNamespace) -> None:
    model = vectors.closed_form(AutoencoderKL(SMALL))
    assert len(model.state_dict()) == 124
    decoded = model.decode(vectors.wave(lambda j: (0.5 * j + 0.2).sin(), (1, 4, 6, 8)))
    assert decoded.shape == (1, 3, 12, 16)
    got = [*decoded.flatten()[[0, 1, 288, 575]], decoded.mean(), decoded.abs().mean()]
    expected = [-0.035559, 0.007880, -0.476508, -0.139220, -0.066844, 0.288824]
    # Both float32 runs are up to 3e-6 off the float64 result (measured).
    torch.testing.assert_close(torch.stack(got), torch.tensor(expected), atol=1e-5, rtol=0)

    moments = torch.cat(model.encode(vectors.wave(lambda j: (0.3 * j).cos(), (1, 3, 12, 16))), 1)
    assert moments.shape == (1, 8, 6, 8)
    got = [*moments.flatten()[[0, 1, 192, 383]], moments.mean(), moments.abs().mean()]
    expected = [-0.031982, -0.030943, 0.034769, -0.044332, -0.006270, 0.028964]
    torch.testing.assert_close(torch.stack(got), torch.tensor(expected), atol=5e-6, rtol=0)


def test_full_size_has_the_published_tensors(vectors: SimpleNamespace) -> None:
    with torch.device("meta"):
        model = AutoencoderKL(AutoencoderConfig.videocrafter2())
    assert vectors.digest(model) == (
        248,
        "534574cfe4be5d1f7387e8632caa062613958fa32952a440c7cd1313a3b51534",
    )
    assert sum(p.numel() for p in model.parameters()) == 83_653_863


def test_log_variance_is_clamped() -> None:
    model = AutoencoderKL(SMALL)
    with torch.no_grad():
        model.quant_conv.bias[4:] = torch.tensor([-100.0, 100.0, 0.0, 0.0])
        _, logvar = model.encode(torch.zeros(1, 3, 8, 8))
    assert logvar[:, 0].max() == -30
    assert logvar[:, 1].min() == 20


@pytest.mark.parametrize("norm", ["group", "none"])
@pytest.mark.parametrize("double_z", [True, False])
def test_patch_variant_trains_at_the_latent_resolution(norm: str, double_z: bool) -> None:
    config = AutoencoderConfig(
        stem="pixel_shuffle",
        encoder_channels=16,
        decoder_channels=24,
        norm=norm,
        norm_num_groups=8,
        double_z=double_z,
    )
    model = AutoencoderKL(config)
    pixels = torch.randn(2, 3, 16, 32, generator=torch.Generator().manual_seed(0))
    mean, logvar = model.encode(pixels)
    assert mean.shape == logvar.shape == (2, 4, 2, 4)
    assert double_z or (logvar == -30).all()
    output = model.decode(mean)
    assert output.shape == pixels.shape
    (output - pixels).square().mean().backward()
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())


def test_patch_variant_sees_a_patch_and_its_neighbours_only() -> None:
    model = AutoencoderKL(AutoencoderConfig.tiny()).eval()
    pixels = torch.zeros(1, 3, 128, 128)
    with torch.no_grad():
        before = model.encode(pixels)[0]
        pixels[..., 64:72, 64:72] = 1.0
        changed = (model.encode(pixels)[0] != before).any(1)[0].nonzero()
    # Four 3x3 convolutions reach four cells; a norm over the image would reach all of them.
    assert changed.min() == 4
    assert changed.max() == 12


def test_downscale_is_pixels_per_latent_cell() -> None:
    assert AutoencoderConfig.videocrafter2().downscale == 8
    assert AutoencoderConfig.tiny().downscale == 8
    assert SMALL.downscale == 2


def test_tiny_preset_has_the_planned_size() -> None:
    model = AutoencoderKL(AutoencoderConfig.tiny())
    assert sum(p.numel() for p in model.parameters()) == 1_725_924
