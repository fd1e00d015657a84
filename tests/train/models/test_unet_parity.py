"""The U-Net against vectors of the published architecture: names, shapes and numbers."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from hummingbird_runtime.guidance import guidance_embedding
from hummingbird_train.models.unet import UNetConfig, VideoUNet

DIGESTS = {
    "videocrafter2": (1484, "957212d47c79d8b4a7c471883dfb1c08b3c24679caf293f85e34d94805947068"),
    "hummingbird_09b": (957, "d5870d5f7b10ff5ee2cdeeb9c4d77bb89482977b035582842fc47be6b5726ddc"),
    "hummingbird_07b": (853, "6bae22da370e90888392460a73ff971c20bab91f683307154d40217c05378486"),
}
POSITIONS = [0, 1, 63, 64, 191, 192, 400, 767]
CLOSED_FORM = {
    True: [-0.068370, -0.060686, -0.073299, -0.060651, -0.060668, -0.094269, -0.058735, 0.014155],
    False: [-0.007492, -0.042340, 0.091711, -0.009915, 0.013031, -0.037674, -0.166081, -0.054478],
}
MEANS = {True: [-0.050996, 0.075568], False: [-0.050748, 0.087260]}  # of y and of |y|


def full_size(config: UNetConfig) -> VideoUNet:
    with torch.device("meta"):
        return VideoUNet(config)


@pytest.mark.parametrize("name", DIGESTS)
def test_full_size_has_the_published_tensors(name: str, vectors: SimpleNamespace) -> None:
    model = full_size(getattr(UNetConfig, name)())
    count, shapes = vectors.published_shapes(name)
    assert {n: tuple(t.shape) for n, t in model.state_dict().items()} == shapes
    assert sum(p.numel() for p in model.parameters()) == count
    assert vectors.digest(model) == DIGESTS[name]


def test_teacher_with_guidance_embedding_has_the_published_tensors(
    vectors: SimpleNamespace,
) -> None:
    model = full_size(replace(UNetConfig.videocrafter2(), time_cond_proj_dim=256))
    digest = "8cd64f2a5575a8e9a752c7155150af6b3445f072c53889a0bf96e450930b53c1"
    assert vectors.digest(model) == (1485, digest)
    assert sum(p.numel() for p in model.parameters()) == 1_413_366_340


@pytest.mark.parametrize("name", ["unet_hummingbird_07b_mini", "unet_videocrafter2_mini"])
def test_matches_the_reference_network(name: str, vectors: SimpleNamespace) -> None:
    published, weights, io = vectors.reference(name)
    config = UNetConfig(
        model_channels=published["model_channels"],
        channel_mult=tuple(published["channel_mult"]),
        num_res_blocks=published["num_res_blocks"],
        attention_resolutions=tuple(published["attention_resolutions"]),
        middle_block="videocrafter2" in name,
        num_head_channels=published["num_head_channels"],
        context_dim=published["context_dim"],
        time_cond_proj_dim=published.get("time_cond_proj_dim"),
    )
    model = VideoUNet(config).eval()
    model.load_state_dict(weights)
    with torch.no_grad():
        output = model(
            io["sample"],
            io["timestep"],
            io["context"],
            timestep_cond=io.get("timestep_cond"),
            fps=io["fps"],
        )
    # float32 sums in another order; measured 1.8e-6.
    assert vectors.relative(output, io["output"]) <= 1e-5


@pytest.fixture(scope="module", params=[True, False], ids=["middle block", "no middle block"])
def closed_form(request: pytest.FixtureRequest, vectors: SimpleNamespace) -> VideoUNet:
    config = UNetConfig(
        model_channels=64,
        channel_mult=(1, 2),
        num_res_blocks=1,
        attention_resolutions=(1,),
        middle_block=request.param,
        num_head_channels=32,
        context_dim=48,
        time_cond_proj_dim=16,
    )
    return vectors.closed_form(VideoUNet(config))


@torch.no_grad()
def run(
    model: VideoUNet, vectors: SimpleNamespace, t: int = 519, fps: int = 8, w: float = 7.5
) -> Tensor:
    return model(
        vectors.wave(lambda j: (0.5 * j + 0.2).sin(), (1, 4, 3, 8, 8)),
        torch.tensor([t]),
        vectors.wave(lambda j: (0.3 * j).cos(), (1, 5, 48)),
        timestep_cond=torch.from_numpy(guidance_embedding(w, 16)),
        fps=torch.tensor([fps]),
    )


def test_matches_the_closed_form_values(closed_form: VideoUNet, vectors: SimpleNamespace) -> None:
    middle = closed_form.config.middle_block
    assert len(closed_form.state_dict()) == (471 if middle else 367)
    count = sum(p.numel() for p in closed_form.parameters())
    assert count == (6_352_132 if middle else 4_592_900)
    y = run(closed_form, vectors)
    got = torch.stack([*y.flatten()[POSITIONS], y.mean(), y.abs().mean()])
    expected = torch.tensor(CLOSED_FORM[middle] + MEANS[middle])
    # Six published decimals and float32 sums in another order; the smallest plausible fault
    # (a guidance scale of 5 for 7.5) moves the output by 8e-5.
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=0)
    if middle:
        for change, published in (
            ({"fps": 28}, 1.0e-3),
            ({"w": 5.0}, 7.8e-5),
            ({"t": 279}, 5.5e-4),
        ):
            moved = float((run(closed_form, vectors, **change) - y).abs().max())
            # Two published digits, and float32 noise of about 1e-6 on the smallest.
            assert moved == pytest.approx(published, rel=0.06), change
