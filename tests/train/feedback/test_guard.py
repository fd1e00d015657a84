"""Monitors against closed forms, and a gamed reward that trips the guard."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from torch import nn

from hummingbird_runtime.errors import ExecutionError, UsageError
from hummingbird_train.feedback.decode import FrameDecoder
from hummingbird_train.feedback.guard import (
    Guard,
    GuardConfig,
    GuardedSamples,
    Health,
    Probe,
    diversity,
    motion_energy,
    saturation,
)
from hummingbird_train.feedback.rewards.pixel import Redness, SoftColour
from hummingbird_train.models.tiny_decoder import TinyDecoder, TinyDecoderConfig

FINE = Health(held_out=-0.5, diversity=1.0, motion=0.01, saturation=0.3)


def test_diversity_is_the_mean_distance_between_seeds():
    latents = torch.zeros(2, 3, 1, 1, 2, 2)
    latents[0, 1] = 3.0  # root-mean-square distances: 3, 0, 3 and 0, 0, 0
    assert diversity(latents) == pytest.approx((3 + 0 + 3) * 2 / 6 / 2, abs=1e-9)
    with pytest.raises(UsageError):
        diversity(latents[:, :1])


def test_motion_energy_is_the_mean_squared_step():
    frames = torch.zeros(1, 3, 3, 2, 2)
    frames[0, 1] = 0.5
    assert motion_energy(frames) == pytest.approx(0.25, abs=1e-9)


def test_saturation_is_that_of_hsv():
    frames = torch.tensor([0.8, 0.2, 0.4]).view(1, 1, 3, 1, 1)
    assert saturation(frames) == pytest.approx(0.75, abs=1e-6)
    assert saturation(torch.full((1, 1, 3, 2, 2), 0.4)) == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"diversity": 0.89}, "diversity"),
        ({"motion": 0.0089}, "motion"),
        ({"saturation": 0.32}, "saturation"),
        ({"saturation": 0.28}, "saturation"),
    ],
)
def test_a_monitor_out_of_range_is_named_at_once(change, word):
    reasons = Guard(FINE).check(dataclasses.replace(FINE, **change))
    assert len(reasons) == 1
    assert reasons[0].startswith(word)


def test_monitors_in_range_are_silent():
    near = Health(held_out=-0.515, diversity=0.91, motion=0.0091, saturation=0.312)
    assert Guard(FINE).check(near) == []


def test_the_held_out_judge_is_given_patience_and_is_held_to_its_best():
    guard = Guard(FINE, GuardConfig(judge_drop=0.1, patience=2))
    at = lambda value: guard.check(dataclasses.replace(FINE, held_out=value))  # noqa: E731
    assert at(-0.2) == []  # the new best
    assert at(-0.35) == []
    assert at(-0.25) == []  # recovered: counting starts again
    assert at(-0.35) == []
    (reason,) = at(-0.36)
    assert reason.startswith("held-out judge")


def test_limits_that_nothing_can_meet_are_refused():
    with pytest.raises(UsageError) as error:
        GuardConfig(patience=0)
    assert error.value.code == "feedback.guard_config"


class Painter(nn.Module):
    """Makes clips of seeded noise plus a learned offset: the smallest model that can be spoilt."""

    def __init__(self):
        super().__init__()
        self.offset = nn.Parameter(torch.zeros(3, 1, 1, 1))
        self.gain = nn.Parameter(torch.ones(()))

    def forward(self, seeds):
        drawn = [torch.randn(3, 4, 4, 4, generator=torch.Generator().manual_seed(s)) for s in seeds]
        return self.gain * 0.5 * torch.stack(drawn) + self.offset  # (n, 3, f, h, w)


def pixel_decoder() -> FrameDecoder:
    """Latents of three channels that are colours."""
    config = TinyDecoderConfig(
        latent_channels=3, channels=(6,), blocks=(1,), patch=16, head_kernel=1, scaling_factor=1.0
    )
    model = TinyDecoder(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        for c in range(3):  # relu(x) - relu(-x) = x, into every pixel of a patch
            model.conv_in.weight[c, c, 1, 1], model.conv_in.weight[3 + c, c, 1, 1] = 1.0, -1.0
            model.conv_out.weight[256 * c : 256 * (c + 1), c] = 1.0
            model.conv_out.weight[256 * c : 256 * (c + 1), 3 + c] = -1.0
    return FrameDecoder(model, 1.0)


def test_a_gamed_reward_trips_the_guard_and_the_best_weights_stay(tmp_path):
    painter, decode = Painter(), pixel_decoder()
    everything = np.arange(4)

    def make(prompts, seeds):
        latents = painter(seeds)
        return latents, decode(latents, everything)

    prompts = ["a blue circle", "a green ring"]
    probe = Probe(make, prompts, [0, 1], SoftColour(), batch=3)
    before = probe()
    guarded = GuardedSamples(
        probe, Guard(before), lambda folder: (folder / "kept").write_text(str(painter.offset[0]))
    )
    guarded(tmp_path, 0)  # nothing changed: no reason to stop
    assert (tmp_path / "best" / "kept").exists()
    reward, optimizer = Redness(), torch.optim.SGD(painter.parameters(), 1.0)
    gained = []

    def train():
        for step in range(1, 20):
            score = reward(decode(painter([2, 3]), everything), None).mean()
            gained.append(score.item())
            optimizer.zero_grad()
            (-score).backward()
            optimizer.step()
            guarded(tmp_path, step)

    with pytest.raises(ExecutionError) as error:
        train()
    assert error.value.code == "feedback.guard"
    assert "saturation" in str(error.value) or "diversity" in str(error.value)
    rows = [json.loads(line) for line in (tmp_path / "guard.jsonl").read_text().splitlines()]
    assert rows[0]["reasons"] == []
    assert rows[-1]["reasons"]
    assert reward(decode(painter([2, 3]), everything), None).mean().item() > gained[0]


def test_a_check_without_change_is_the_same_check():
    painter, decode = Painter(), pixel_decoder()

    def make(prompts, seeds):
        return painter(seeds), decode(painter(seeds), np.arange(4))

    probe = Probe(make, ["a red circle"], [0, 1, 2], SoftColour(), batch=2)
    assert probe() == probe()
    whole = dataclasses.replace(probe())
    probe.batch = 8
    assert probe().diversity == pytest.approx(whole.diversity, abs=1e-9)


def test_a_resumed_run_remembers_its_checks(tmp_path):
    healths = [dataclasses.replace(FINE, held_out=v) for v in (-0.2, -0.35, -0.35)]
    kept = []

    def guarded(rest):
        return GuardedSamples(lambda: rest.pop(0), Guard(FINE, GuardConfig(judge_drop=0.1)),
                              lambda folder: kept.append(folder.name))  # fmt: skip

    first = guarded(healths[:2])
    first(tmp_path, 10)
    first(tmp_path, 20)
    again = guarded([healths[1], healths[2]])
    again(tmp_path, 20)  # the state was older than the check: step 20 is made again
    with pytest.raises(ExecutionError, match="held-out judge"):
        again(tmp_path, 30)  # below the best of step 10 twice in a row, across the restart
    lines = (tmp_path / "guard.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [0, 10, 20, 30]
    assert kept == ["best"]  # nothing after the restart was better than step 10
