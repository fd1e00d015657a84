"""Muon and Adam against closed forms."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from hummingbird_runtime.errors import UsageError
from hummingbird_train.ema import MovingAverage
from hummingbird_train.optim import (
    MuonAdam,
    NamedAdamW,
    OptimizerConfig,
    gradient_norm,
    is_matrix,
    make_optimizer,
    orthogonalize,
    scale_gradients,
)


@pytest.mark.parametrize("shape", [(3, 8, 8), (2, 6, 20), (2, 20, 6)])
def test_orthogonalized_matrices_have_singular_values_near_one(shape: tuple[int, int, int]) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalize(x, 8))
    # the quintic's fixed band is about [0.68, 1.2]; square Gaussians have tiny singular values
    assert values.max() < 1.3
    assert values.median() > 0.65


def test_orthogonalizing_keeps_the_singular_vectors() -> None:
    u, _, v = torch.linalg.svd(torch.randn(5, 9, generator=torch.Generator().manual_seed(1)),
                               full_matrices=False)  # fmt: skip
    x = (u * torch.tensor([5.0, 4.0, 3.0, 2.0, 1.0])) @ v
    aligned = u.T @ orthogonalize(x[None], 8)[0] @ v.T
    off_diagonal = aligned - torch.diag(aligned.diagonal())
    assert off_diagonal.abs().max() < 1e-4  # float32 rounding of eight iterations


def test_vectors_follow_adam() -> None:
    bias = nn.Parameter(torch.tensor([1.0, -2.0, 3.0]))
    twin = nn.Parameter(bias.detach().clone())
    ours = MuonAdam([("bias", bias)])
    theirs = torch.optim.Adam([twin], lr=1e-2, betas=(0.9, 0.99))
    for step in range(5):
        grad = torch.tensor([0.1, -0.3, 2.0]) * (step + 1)
        bias.grad, twin.grad = grad.clone(), grad.clone()
        ours.step(1e-2)
        theirs.step()
    assert torch.allclose(bias, twin, atol=1e-6)


def test_a_muon_step_has_the_stated_size_whatever_the_gradient() -> None:
    for scale in (1e-4, 1e3):
        weight = nn.Parameter(torch.zeros(16, 64))
        optimizer = MuonAdam([("layer.weight", weight)])
        weight.grad = torch.randn(16, 64, generator=torch.Generator().manual_seed(2)) * scale
        optimizer.step(1.0)
        rms = weight.detach().square().mean().sqrt()
        # 0.2 sqrt(64) times a semi-orthogonal 16 x 64 matrix, whose RMS is 1 / sqrt(64)
        assert 0.13 < rms < 0.27


def test_edge_layers_and_vectors_are_left_to_adam() -> None:
    names = {
        "decoder.block.0.conv1.weight": (8, 8, 3, 3),
        "encoder.conv_in.weight": (8, 3, 3, 3),
        "text.token_embedding.weight": (70, 8),
        "unet.out.2.weight": (4, 8, 3, 3),
        "norm.weight": (8,),
    }
    taken = [n for n, shape in names.items() if is_matrix(n, torch.zeros(shape))]
    assert taken == ["decoder.block.0.conv1.weight"]


def test_an_unused_layer_keeps_its_weights() -> None:
    used, unused = nn.Parameter(torch.ones(4, 4)), nn.Parameter(torch.ones(4, 4))
    optimizer = MuonAdam([("a.weight", used), ("b.weight", unused)])
    used.grad = torch.eye(4)
    optimizer.step(0.1)
    assert torch.equal(unused, torch.ones(4, 4))
    assert not torch.equal(used, torch.ones(4, 4))


def test_the_moving_average_warms_up() -> None:
    value = nn.Parameter(torch.zeros(1))
    average = MovingAverage([("x", value)], decay=0.9)
    with torch.no_grad():
        value.fill_(1.0)
    average.update(0)
    assert average.average["x"].item() == pytest.approx(0.9)  # decay 1 / 10 at the first update
    average.update(10_000)
    assert average.average["x"].item() == pytest.approx(0.91)


def test_adamw_is_torchs_and_its_state_goes_on_bit_for_bit() -> None:
    config = OptimizerConfig(kind="adamw", weight_decay=0.1, adam_betas=(0.8, 0.95))
    start = torch.randn(4, 3, generator=torch.Generator().manual_seed(4))
    ours, idle, theirs = (nn.Parameter(start.clone()) for _ in range(3))
    optimizer = make_optimizer([("a", ours), ("idle", idle)], config)
    reference = torch.optim.AdamW([theirs], lr=3e-3, betas=(0.8, 0.95), weight_decay=0.1)
    for step in range(6):
        if step == 3:  # as a resumed run does
            held = {n: t.clone() for n, t in optimizer.state().items()}
            assert set(held) == {"first.a", "second.a", "steps.a"}
            optimizer = make_optimizer([("a", ours), ("idle", idle)], config)
            assert isinstance(optimizer, NamedAdamW)
            optimizer.load_state(held)
        ours.grad = (ours.detach() * (step + 1)).clone()
        theirs.grad = (theirs.detach() * (step + 1)).clone()
        optimizer.step(3e-3)
        reference.step()
    assert torch.equal(ours, theirs)
    assert torch.equal(idle, start)


def test_an_unknown_optimiser_is_named() -> None:
    with pytest.raises(UsageError, match="'sgd'") as caught:
        make_optimizer([], OptimizerConfig(kind="sgd"))  # type: ignore[arg-type]
    assert caught.value.code == "train.optimizer"


def test_clipping_is_torchs() -> None:
    generator = torch.Generator().manual_seed(5)
    ours, theirs = ([nn.Parameter(torch.zeros(s)) for s in ((3, 4), (5,), (2,))] for _ in "ab")
    for a, b in zip(ours[:2], theirs[:2], strict=True):  # the last one has no gradient
        a.grad = torch.randn(a.shape, generator=generator)
        b.grad = a.grad.clone()
    norm = gradient_norm(ours)
    assert norm == pytest.approx(float(torch.nn.utils.clip_grad_norm_(theirs, 0.5)))
    scale_gradients(ours, min(1.0, 0.5 / (norm + 1e-6)))
    assert all(torch.allclose(a.grad, b.grad) for a, b in zip(ours[:2], theirs[:2], strict=True))
    ours[1].grad[2] = float("inf")
    assert gradient_norm(ours) == float("inf")
    ours[0].grad[0, 0] = float("nan")
    assert gradient_norm(ours) != gradient_norm(ours)


def test_averages_take_the_place_of_weights_and_give_it_back() -> None:
    value = nn.Parameter(torch.tensor([1.0, 2.0]))
    average = MovingAverage([("x", value)], decay=0.9)
    with torch.no_grad():
        value.add_(0.1)
    live = value.detach().clone()
    with average.applied():
        assert torch.equal(value, torch.tensor([1.0, 2.0]))
    assert torch.equal(value, live)
