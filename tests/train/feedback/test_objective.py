"""Feedback beside an anchor: weightless it is the anchor, else reward moves the prediction."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from hummingbird_runtime.errors import UsageError
from hummingbird_train.base import torch_generator, world_schedule
from hummingbird_train.feedback.augmentation import Augmentation
from hummingbird_train.feedback.decode import FrameDecoder
from hummingbird_train.feedback.mix import MixConfig, RewardMix, Term
from hummingbird_train.feedback.objective import FeedbackConfig, FeedbackObjective, last_step
from hummingbird_train.feedback.rewards.pixel import Redness
from hummingbird_train.models.tiny_decoder import TinyDecoder, TinyDecoderConfig
from hummingbird_train.recipe import Phase
from hummingbird_train.world.grammar import judging_prompts

PHASE = Phase(name="p", steps=20, batch=2, learning_rate=1e-2, frames=3)
STILL = Augmentation(shift=0, blur=0.0, noise=0.0)


class Net(nn.Module):
    """A "U-Net" that mixes channels and adds what it is told of time."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.mix = nn.Conv3d(4, 4, 1)
        self.calls: list[tuple[int, bool]] = []

    def forward(self, x, t, context, *, fps, frame_indices, timestep_cond=None, images=False):
        self.calls.append((int(t.flatten()[0]), torch.is_grad_enabled()))
        return self.mix(x) + context.mean() + 1e-3 * frame_indices.float().mean()


@dataclass
class AnchorTerms:
    loss: torch.Tensor
    x_0_student: torch.Tensor
    t: torch.Tensor
    context: torch.Tensor
    prompts: list[str]
    numbers: dict[str, float]
    conditions: dict


class Anchor:
    """Pulls the student's latents towards the data."""

    def __init__(self, t=(100, 600)):
        self.unet = Net()
        self.modules = {"unet": self.unet}
        self.t = torch.tensor(t)

    def losses(self, phase, images, rng):
        count, frames = phase.batch, 1 if images else phase.frames
        x = torch.randn(count, 4, frames, 4, 4, generator=torch_generator(rng))
        context = torch.zeros(count, 2, 3)
        conditions = {
            "fps": torch.full((count,), 8), "images": images, "timestep_cond": None,
            "frame_indices": 5 + torch.arange(frames).expand(count, -1),
        }  # fmt: skip
        student = self.unet(x, self.t, context, **conditions)
        loss = (student - x).square().mean()
        prompts = [p for p, _ in judging_prompts(count, seed=1)]
        return AnchorTerms(
            loss, student, self.t, context, prompts, {"clip": loss.item()}, conditions
        )

    def save(self, folder, weights):
        (folder / "saved").write_text(",".join(weights))


def decoder():
    torch.manual_seed(5)
    model = TinyDecoder(TinyDecoderConfig(channels=(6,), blocks=(1,), patch=2, scaling_factor=1.0))
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    return FrameDecoder(model, 1.0)


def objective(weight=1.0, through="one_step", anchor=None, **mix):
    config = MixConfig(**{"warmup": 0.0, "ramp": 0.0, "normalise": False, **mix})
    rewards = RewardMix([Term(Redness(), weight=weight)], config)
    return FeedbackObjective(
        anchor or Anchor(),
        rewards,
        decoder(),
        FeedbackConfig(calls=20, through=through, augmentation=STILL),
        scheduler=world_schedule(),
    )


def trained(thing, steps=6):
    weights = thing.modules["unet"]
    optimizer = torch.optim.SGD(weights.parameters(), 0.05)
    for step in range(steps):
        rng = np.random.default_rng([7, step])
        loss = (
            thing.loss(PHASE, False, rng)[0]
            if isinstance(thing, FeedbackObjective)
            else thing.losses(PHASE, False, rng).loss
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return [p.detach().clone() for p in weights.parameters()]


@pytest.mark.parametrize("through", ["one_step", "last_step", "both"])
def test_without_weight_the_run_is_the_anchors_bit_for_bit(through: str):
    pure = trained(Anchor())
    assert all(map(torch.equal, trained(objective(0.0, through)), pure))
    assert not all(map(torch.equal, trained(objective(1.0, through)), pure))


def test_during_the_warm_up_the_run_is_the_anchors_bit_for_bit():
    warm = objective(1.0, warmup=0.5)  # 20 calls in all, 6 are made
    assert all(map(torch.equal, trained(warm), trained(Anchor())))


@pytest.mark.parametrize("through", ["one_step", "last_step"])
def test_the_reward_reaches_the_student_and_is_capped_at_its_prediction(through: str):
    thing = objective(1e4, through, gradient_share=0.3)
    rng = np.random.default_rng(3)
    loss, numbers = thing.loss(PHASE, False, rng)
    # the anchor's slope at x_0 is 2 (x_0 - x) / N: the loss says its norm
    n = 2 * 4 * 3 * 4 * 4
    anchor_norm = 2 * (numbers["anchor"] * n) ** 0.5 / n
    assert 0 < numbers["cap/redness"] < 1
    grads = []
    for weight in (1e4, 0.0):
        other = objective(weight, through, gradient_share=0.3)
        found, _ = other.loss(PHASE, False, np.random.default_rng(3))
        found.backward()
        grads.append(other.modules["unet"].mix.bias.grad)
    # bias enters x_0 with factor |s| <= 1 at most: its gradient is bounded through that of x_0
    assert 0 < (grads[0] - grads[1]).norm() <= 0.3 * anchor_norm * (n / 4) ** 0.5 * 1.001
    assert loss.requires_grad


def test_one_step_predictions_late_in_time_earn_nothing():
    late = objective(1.0, anchor=Anchor(t=(900, 999)))
    early = objective(1.0, anchor=Anchor(t=(100, 999)))
    pure = Anchor(t=(900, 999)).losses(PHASE, False, np.random.default_rng(0)).loss
    pure.backward()
    for thing, moved in ((late, False), (early, True)):
        found, _ = thing.loss(PHASE, False, np.random.default_rng(0))
        found.backward()
        reference = Anchor(t=thing.consistency.t.tolist())
        terms = reference.losses(PHASE, False, np.random.default_rng(0))
        terms.loss.backward()
        same = torch.equal(thing.modules["unet"].mix.weight.grad, reference.unet.mix.weight.grad)
        assert same is not moved


def test_the_last_step_alone_has_gradient_and_a_clip_begins_at_frame_0():
    thing = objective(1.0, "last_step")
    thing.loss(PHASE, False, np.random.default_rng(0))
    calls = thing.modules["unet"].calls[1:]  # after the anchor's own
    assert [t for t, _ in calls] == [999, 749, 499, 249]
    assert [grad for _, grad in calls] == [False, False, False, True]


def test_the_last_steps_gradient_is_that_of_the_networks_last_pass():
    scale = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    x_T = torch.randn(1, 4, 1, 2, 2, dtype=torch.float64)
    inputs = []

    def denoise(x, t):
        inputs.append((x.detach(), t))
        return scale * x

    clean = last_step(denoise, x_T, world_schedule(), 3, lambda i: torch.zeros_like(x_T))
    (slope,) = torch.autograd.grad(clean.sum(), scale)
    x, t = inputs[-1]
    from hummingbird_runtime.schedule import alphas_cumprod

    s = (1 - alphas_cumprod(world_schedule())[t]) ** 0.5  # x_0 = a x - s v
    assert float(slope) == pytest.approx(float(-s * x.sum()), abs=1e-9)


def test_single_frames_get_image_rewards_only():
    image, video = Redness(), SimpleNamespace(
        name="video", differentiable=True, wants=SimpleNamespace(sampling="strided", size=None)
    )  # fmt: skip
    mix = RewardMix([Term(image), Term(video)], MixConfig(warmup=0.0, ramp=0.0))
    thing = FeedbackObjective(
        Anchor(), mix, decoder(), FeedbackConfig(calls=5, through="one_step", augmentation=STILL)
    )
    _, numbers = thing.loss(PHASE, True, np.random.default_rng(0))
    assert "reward/redness" in numbers
    assert "reward/video" not in numbers


def test_a_resumed_run_goes_on_bit_for_bit(tmp_path):
    whole = objective(1.0, "both", normalise=True)
    losses = [whole.loss(PHASE, False, np.random.default_rng(i))[0].item() for i in range(4)]
    first, second = (objective(1.0, "both", normalise=True) for _ in range(2))
    for i in range(2):
        first.loss(PHASE, False, np.random.default_rng(i))
    second.load_state(first.state())
    again = [second.loss(PHASE, False, np.random.default_rng(i))[0].item() for i in (2, 3)]
    assert again == losses[2:]
    second.save(tmp_path, {"unet.mix.bias": torch.zeros(1)})
    assert (tmp_path / "saved").read_text() == "unet.mix.bias"


def test_options_without_meaning_are_refused():
    with pytest.raises(UsageError) as error:
        FeedbackConfig(calls=0)
    assert error.value.code == "feedback.config"
    with pytest.raises(UsageError, match="scheduler"):
        FeedbackObjective(
            Anchor(), RewardMix([], MixConfig()), decoder(), FeedbackConfig(5, "last_step")
        )


def test_augmentation_moves_every_frame_of_a_clip_alike():
    frames = torch.rand(2, 1, 3, 8, 8).expand(2, 4, 3, 8, 8)
    moved = Augmentation(shift=2, blur=1.0, noise=0.0)(frames, np.random.default_rng(2))
    assert not torch.equal(moved, frames)
    assert torch.allclose(moved[:, 0], moved[:, 3])
    noisy = Augmentation(0, 0.0, 0.1)(torch.full((1, 2, 3, 8, 8), 0.5), np.random.default_rng(0))
    assert noisy.std().item() == pytest.approx(0.1, rel=0.25)  # 384 draws
    assert torch.equal(STILL(frames, np.random.default_rng(0)), frames)
    shifted = Augmentation(1, 0.0, 0.0)(frames, np.random.default_rng(4))
    best = min(
        (torch.roll(frames, m, (3, 4))[..., 2:-2, 2:-2] - shifted[..., 2:-2, 2:-2])[0].abs().max()
        for m in [(a, b) for a in (-1, 0, 1) for b in (-1, 0, 1)]
    )
    assert best == 0
    with pytest.raises(UsageError) as error:
        Augmentation(shift=-1)
    assert error.value.code == "feedback.augmentation"
