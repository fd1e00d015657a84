"""The reward mix against closed forms, and its cap on gradients."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from hummingbird_runtime.errors import UsageError
from hummingbird_train.feedback.mix import (
    ROLE_SPLIT,
    MixConfig,
    RewardMix,
    RunningMoments,
    Term,
    capped_scale,
    real_quantile,
    schedule_factor,
)
from hummingbird_train.feedback.reward import FrameSpec, normalised, resized


class Linear:
    """Scores a "clip" (b, 1, 3, 1, 1) by its mean times a gain."""

    differentiable = True

    def __init__(self, name: str, gain: float = 1.0, sampling: str = "strided") -> None:
        self.name, self.gain = name, gain
        self.wants = FrameSpec(1, sampling)

    def encode_text(self, prompts):
        return None

    def __call__(self, frames, text):
        return self.gain * frames.flatten(1).mean(dim=1)


def test_the_weight_waits_rises_and_falls_as_its_schedule_says():
    at = [schedule_factor("constant", s, 100, 0.2, 0.1) for s in (0, 19, 20, 25, 30, 99)]
    assert at == pytest.approx([0, 0, 0, 0.5, 1, 1], abs=1e-12)
    # after the rise: (1 - done) / (1 - warmup)
    assert schedule_factor("linear", 60, 100, 0.2, 0.1) == pytest.approx(0.5, abs=1e-12)
    assert schedule_factor("cosine", 60, 100, 0.2, 0.1) == pytest.approx(0.5, abs=1e-12)
    assert schedule_factor("cosine", 80, 100, 0.2, 0.1) == pytest.approx(
        0.5 * (1 - math.cos(math.pi / 4)), abs=1e-12
    )
    assert schedule_factor("constant", 0, 100, 0.0, 0.0) == 1.0


def test_running_moments_are_the_weighted_moments_of_all_batches():
    moments = RunningMoments(0.9)
    assert moments.deviation == 1.0
    batches = [torch.tensor([1.0, 3.0]), torch.tensor([2.0, 8.0]), torch.tensor([-1.0, 0.0])]
    for batch in batches:
        moments.update(batch)
    weights = np.array([0.9**2, 0.9, 1.0]) * 0.1
    mean = sum(w * b.numpy().mean() for w, b in zip(weights, batches, strict=True)) / weights.sum()
    square = sum(w * (b.numpy() ** 2).mean() for w, b in zip(weights, batches, strict=True))
    expected = math.sqrt(square / weights.sum() - mean**2)
    assert moments.deviation == pytest.approx(expected, abs=1e-6)


def test_equal_rewards_leave_the_scale_alone():
    moments = RunningMoments(0.9)
    moments.update(torch.full((4,), 7.0))
    assert moments.deviation == 1.0


def test_rewards_above_the_clip_earn_and_pull_nothing():
    mix = RewardMix([Term(Linear("a"), clip_at=0.5)], MixConfig(normalise=False))
    rewards = torch.tensor([0.25, 0.75], requires_grad=True)
    loss = mix.term_loss(mix.terms[0], rewards, 2.0)
    (slope,) = torch.autograd.grad(loss, rewards)
    assert loss.item() == pytest.approx(-2.0 * (0.25 + 0.5) / 2, abs=1e-6)
    assert slope.tolist() == pytest.approx([-1.0, 0.0], abs=1e-6)


def test_a_normalised_term_is_divided_by_the_running_deviation():
    mix = RewardMix([Term(Linear("a"))], MixConfig())
    rewards = torch.tensor([1.0, 5.0])
    assert float(mix.term_loss(mix.terms[0], rewards, 3.0)) == pytest.approx(
        -3.0 * 3.0 / 2.0, abs=1e-6
    )  # mean 3, deviation 2


def test_the_quantile_of_real_rewards_interpolates():
    assert real_quantile(torch.arange(5.0), 0.95) == pytest.approx(3.8, abs=1e-6)


def test_a_gradient_is_capped_at_a_share_of_the_anchors():
    assert capped_scale(2.0, 10.0, 0.3) == 1.0
    assert capped_scale(6.0, 10.0, 0.3) == pytest.approx(0.5, abs=1e-12)
    assert capped_scale(6.0, 0.0, 0.3) == 0.0
    assert capped_scale(1e9, 0.0, math.inf) == 1.0


@pytest.mark.parametrize("share", [0.3, math.inf])
def test_the_mixs_gradient_is_the_sum_of_the_capped_gradients(share: float):
    torch.manual_seed(0)
    config = MixConfig(normalise=False, gradient_share=share, warmup=0.0, ramp=0.0)
    mix = RewardMix([Term(Linear("big", 50.0)), Term(Linear("small", 0.01), weight=2.0)], config)
    base = torch.randn(2, 4, 1, 3, 3, requires_grad=True)
    x_0 = base * 1.0
    due = mix.due(0, 10)
    loss, numbers = mix.capped(x_0, 1.0, due, lambda term, leaf: term.model(leaf, None))
    (got,) = torch.autograd.grad(loss, base)
    each = 1.0 / x_0.numel()  # d mean over batch and elements
    norms = [50.0 * each * math.sqrt(x_0.numel()), 0.02 * each * math.sqrt(x_0.numel())]
    scales = [min(1.0, share / n) for n in norms]
    expected = -(scales[0] * 50.0 + scales[1] * 0.02) * each
    assert torch.allclose(got, torch.full_like(got, expected), atol=1e-6)
    mean = float(x_0.detach().mean())
    value = -(scales[0] * 50.0 * mean + scales[1] * 0.02 * mean)
    assert loss.item() == pytest.approx(value, abs=1e-5)
    assert numbers["cap/big"] == pytest.approx(scales[0], abs=1e-6)
    assert numbers["cap/small"] == 1.0


def test_a_term_is_due_every_n_steps_and_by_its_kind():
    config = MixConfig(warmup=0.0, ramp=0.0, **ROLE_SPLIT)
    image, video = Term(Linear("i", sampling="random")), Term(Linear("v"), weight=2.0, every_n=3)
    mix = RewardMix([image, video], config)
    found = [{d.term.model.name: d.weight * d.factor for d in mix.due(s, 9)} for s in range(4)]
    assert found == [{"i": 0.75, "v": 0.5}, {"i": 0.75}, {"i": 0.75}, {"i": 0.75, "v": 0.5}]
    assert config.anchor == 0.75


def test_a_capped_term_still_warms_up_and_may_have_a_share_of_its_own():
    config = MixConfig(normalise=False, warmup=0.0, ramp=0.5)
    slopes = []
    for share, step in ((None, 99), (None, 25), (0.1, 99)):
        mix = RewardMix([Term(Linear("a", 1e3), share=share)], config)
        x_0 = torch.ones(2, 4, 1, 3, 3, requires_grad=True)
        loss, _ = mix.capped(x_0, 1.0, mix.due(step, 100), lambda t, leaf: t.model(leaf, None))
        slopes.append(torch.autograd.grad(loss, x_0)[0].norm().item())
    assert slopes == pytest.approx([0.3, 0.15, 0.1], abs=1e-6)  # step 25: half way up the ramp
    assert mix.due(0, 100) == []


def test_moments_go_on_where_they_stopped():
    first = RewardMix([Term(Linear("a"))], MixConfig())
    first.term_loss(first.terms[0], torch.tensor([1.0, 5.0]), 1.0)
    second = RewardMix([Term(Linear("a"))], MixConfig())
    second.load_state(first.state())
    assert second.moments["a"].deviation == pytest.approx(2.0, abs=1e-9)


@pytest.mark.parametrize(
    "make",
    [
        lambda: MixConfig(warmup=1.5),
        lambda: MixConfig(gradient_share=-1.0),
        lambda: Term(Linear("a"), schedule="sometimes"),
        lambda: Term(Linear("a"), every_n=0),
        lambda: Term(Linear("a"), share=-0.1),
        lambda: Term(Linear("a"), weight=math.nan),
        lambda: RewardMix([Term(Linear("a")), Term(Linear("a"))], MixConfig()),
    ],
)
def test_a_mix_without_meaning_is_refused(make):
    with pytest.raises(UsageError) as error:
        make()
    assert error.value.code == "feedback.mix"


def test_a_reward_without_gradient_is_refused():
    model = Linear("a")
    model.differentiable = False
    with pytest.raises(UsageError, match="without gradient"):
        RewardMix([Term(model)], MixConfig())


def test_frames_are_chosen_inside_the_clip_at_the_widest_even_stride():
    rng = np.random.default_rng(0)
    spec = FrameSpec(8, "strided")
    chosen = [spec.choose(26, rng) for _ in range(50)]
    assert all((np.diff(c) == 3).all() and len(c) == 8 for c in chosen)
    assert {int(c[0]) for c in chosen} == {0, 1, 2, 3, 4}  # 26 - 7 * 3 = 5 phases fit
    assert max(int(c[-1]) for c in chosen) == 25
    assert spec.choose(5, rng).tolist() == [0, 1, 2, 3, 4]
    assert FrameSpec(1, "all").choose(4, rng).tolist() == [0, 1, 2, 3]
    random = FrameSpec(5, "random").choose(3, rng)
    assert len(random) == 5
    assert set(random.tolist()) <= {0, 1, 2}
    with pytest.raises(UsageError) as error:
        FrameSpec(0)
    assert error.value.code == "feedback.frames"


def test_resizing_keeps_flat_colours_and_normalising_is_the_formula():
    frames = torch.full((1, 2, 3, 8, 8), 0.25)
    assert torch.allclose(resized(frames, 5), torch.full((1, 2, 3, 5, 5), 0.25), atol=1e-6)
    assert resized(frames, 8) is frames
    got = normalised(frames, (0.25, 0.5, 0.0), (1.0, 0.5, 0.25))
    assert got[0, 0, :, 0, 0].tolist() == pytest.approx([0.0, -0.5, 1.0], abs=1e-6)
