"""Best-of-n pairs and the preference loss against closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from hummingbird_runtime.errors import InputError, UsageError
from hummingbird_runtime.schedule import SchedulerConfig, to_x0_eps
from hummingbird_train.base import world_schedule
from hummingbird_train.diffusion import ForwardProcess
from hummingbird_train.feedback.dpo import (
    DpoConfig,
    DpoObjective,
    Pairs,
    best_of_n,
    denoising_error,
    dpo_loss,
    make_pairs,
)
from hummingbird_train.models.unet import UNetConfig, VideoUNet
from hummingbird_train.recipe import Phase

UNET = UNetConfig(
    model_channels=16, channel_mult=(1,), num_res_blocks=1, attention_resolutions=(1,),
    middle_block=False, num_head_channels=8, init_attn_heads=1, context_dim=8,
    time_cond_proj_dim=8, temporal_dropout=0.0, norm_num_groups=4,
)  # fmt: skip


def test_the_loss_is_equation_14():
    e_w, e_w_ref, e_l, e_l_ref = (torch.tensor(v) for v in ([0.2, 0.5], [0.3, 0.4], [0.6], [0.5]))
    expected = np.mean(
        [
            -math.log(1 / (1 + math.exp(7.0 * ((w - wr) - (0.6 - 0.5)))))
            for w, wr in ((0.2, 0.3), (0.5, 0.4))
        ]
    )
    got = dpo_loss(e_w, e_w_ref, e_l.expand(2), e_l_ref.expand(2), 7.0)
    assert got.item() == pytest.approx(expected, abs=1e-6)
    same = dpo_loss(e_w, e_w, e_l, e_l, 123.0)
    assert same.item() == pytest.approx(math.log(2), abs=1e-6)


def test_the_loss_falls_when_the_winner_is_denoised_better():
    good = dpo_loss(torch.tensor([0.1]), torch.tensor([0.2]), torch.ones(1), torch.ones(1), 5.0)
    bad = dpo_loss(torch.tensor([0.3]), torch.tensor([0.2]), torch.ones(1), torch.ones(1), 5.0)
    assert good < math.log(2) < bad


@pytest.mark.parametrize("prediction", ["v_prediction", "epsilon"])
def test_errors_of_the_noise_are_those_of_the_noise(prediction: str):
    config = SchedulerConfig(prediction_type=prediction, rescale_betas_zero_snr=False)
    process = ForwardProcess(config)
    torch.manual_seed(0)
    x_0, eps, output = (torch.randn(2, 4, 1, 2, 2) for _ in range(3))
    t = torch.tensor([10, 900])
    x_t = process.noised(x_0, eps, t)
    a2 = process.coefficients(t)[0].square()
    _, said = to_x0_eps(output, x_t, a2, prediction)
    expected = (said - eps).square().flatten(1).mean(1)
    got = denoising_error(output, x_0, eps, t, process, "eps")
    assert torch.allclose(got, expected, rtol=1e-4)  # a, s are float32 roots of float64 products
    native = denoising_error(output, x_0, eps, t, process, "native")
    target = eps if prediction == "epsilon" else process.target(x_0, eps, t)
    assert torch.allclose(native, (output - target).square().flatten(1).mean(1), atol=1e-6)


def test_pairs_are_best_and_worst_of_each_prompt_where_they_differ_enough():
    scores = np.array([[1.0, 3.0, 2.0], [5.0, 5.0, 5.0], [0.0, np.nan, 0.4], [1.0, 1.3, 1.2]])
    assert best_of_n(scores, margin=0.5).tolist() == [[0, 1, 0], [2, 2, 1]]
    assert best_of_n(scores).tolist() == [[0, 1, 0], [2, 2, 1], [3, 1, 0]]
    assert best_of_n(np.full((1, 3), np.nan)).tolist() == []


def test_pairs_come_from_any_score_at_all():
    def make(prompts, seeds):
        latents = torch.tensor([float(s) for s in seeds]).view(-1, 1, 1, 1, 1)
        return latents, latents.view(-1, 1, 1, 1, 1).expand(-1, 1, 3, 1, 1)

    pairs = make_pairs(make, lambda f, p: f[:, 0, 0, 0, 0].numpy() % 3, ["a", "b"], n=3)
    assert pairs.prompts == ("a", "b")
    assert pairs.winners.flatten().tolist() == [2.0, 1001.0]  # 1001 % 3 = 2
    assert pairs.losers.flatten().tolist() == [0.0, 1002.0]
    with pytest.raises(InputError) as error:
        make_pairs(make, lambda f, p: np.zeros(len(f)), ["a"], n=3)
    assert error.value.code == "feedback.no_pairs"


def test_training_on_pairs_prefers_the_winner():
    torch.manual_seed(0)
    unet = VideoUNet(UNET)
    for parameter in unet.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.05)
    pairs = Pairs(torch.full((2, 4, 2, 4, 4), 1.0), torch.full((2, 4, 2, 4, 4), -1.0), ("a", "b"))
    objective = DpoObjective(
        unet, UNET, lambda prompts: torch.ones(len(prompts), 3, 8), pairs,
        ForwardProcess(world_schedule()), DpoConfig(beta=20.0),
    )  # fmt: skip
    phase = Phase(name="p", steps=1, batch=2, learning_rate=1e-3)
    first, numbers = objective.loss(phase, False, np.random.default_rng(0))
    assert first.item() == pytest.approx(math.log(2), abs=1e-5)
    assert numbers["margin"] == pytest.approx(0.0, abs=1e-6)
    optimizer = torch.optim.Adam(unet.parameters(), 5e-3)
    for step in range(4):
        loss, _ = objective.loss(phase, False, np.random.default_rng(step))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    last, numbers = objective.loss(phase, False, np.random.default_rng(99))
    assert last.item() < math.log(2)
    assert numbers["margin"] > 0
    with pytest.raises(UsageError):
        DpoObjective(
            unet, UNET, lambda p: torch.ones(1), pairs, objective.process, DpoConfig(beta=0.0)
        )
