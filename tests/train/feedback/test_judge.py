"""Learned judges: learn, are stored and read again, and reward what the prompt names."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from hummingbird_runtime.errors import InputError
from hummingbird_train.feedback.judge import Judge, JudgeConfig, load_judge, save_judge
from hummingbird_train.feedback.judge_cli import main
from hummingbird_train.feedback.judge_training import (
    JudgeObjective,
    JudgeTraining,
    accuracy,
    rendered,
)
from hummingbird_train.feedback.prompt_labels import CLASSES, OPEN, scene_labels
from hummingbird_train.feedback.rewards.judge_net import JudgeReward
from hummingbird_train.recipe import Phase
from hummingbird_train.world.scene import sample_scene

SMALL = {"frames": JudgeConfig(width=4, frames=3), "volume": JudgeConfig("volume", 4, 3)}
PHASE = Phase(name="p", steps=2, batch=4, learning_rate=1e-3)


def judge(build: str = "frames") -> Judge:
    torch.manual_seed(0)
    return Judge(SMALL[build])


@pytest.mark.parametrize("build", SMALL)
def test_every_attribute_has_its_logits_and_time_has_a_direction(build: str):
    frames = torch.rand(2, 3, 3, 64, 64)
    net = judge(build)
    logits = net(frames)
    assert {n: tuple(v.shape) for n, v in logits.items()} == {
        n: (2, len(v)) for n, v in CLASSES.items()
    }
    backwards = net(frames.flip(1))
    assert not torch.allclose(logits["motion"], backwards["motion"], atol=1e-4)


@pytest.mark.parametrize("build", SMALL)
def test_a_batch_is_learned(build: str):
    thing = JudgeObjective(SMALL[build], JudgeTraining(strides=(2,)), seed=0)
    optimizer = torch.optim.Adam(thing.judge.parameters(), 1e-2)
    losses = []
    for _ in range(6):
        loss, hits = thing.loss(PHASE, False, np.random.default_rng(0))  # the same batch again
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(sum(np.log(len(v)) for v in CLASSES.values()), rel=0.15)
    assert losses[-1] < 0.95 * losses[0]
    assert set(hits) == set(CLASSES)


def test_a_stored_judge_answers_the_same(tmp_path):
    net = judge()
    path = tmp_path / "judge.safetensors"
    save_judge(path, net)
    again = load_judge(path)
    frames = torch.rand(1, 3, 3, 64, 64)
    assert torch.equal(again(frames)["shape"], net(frames)["shape"])
    assert not any(p.requires_grad for p in again.parameters())


def test_a_file_of_something_else_is_refused(tmp_path):
    path = tmp_path / "judge.safetensors"
    with pytest.raises(InputError) as error:
        load_judge(path)
    assert error.value.code == "checkpoint.missing"
    path.write_bytes(b"x")
    with pytest.raises(InputError) as error:
        load_judge(path)
    assert error.value.code == "checkpoint.corrupt"
    save_file({"a": torch.ones(1)}, str(path), {"model": "unet"})
    with pytest.raises(InputError) as error:
        load_judge(path)
    assert error.value.code == "checkpoint.kind"
    facts = {"model": "judge", "config": json.dumps(SMALL["frames"].to_json())}
    save_file({"a": torch.ones(1)}, str(path), facts)
    with pytest.raises(InputError) as error:
        load_judge(path)
    assert error.value.code == "checkpoint.keys"


def test_the_reward_is_the_mean_log_probability_of_what_is_named():
    net = judge()
    reward = JudgeReward(net)
    frames = torch.rand(3, 3, 3, 64, 64, requires_grad=True)
    text = torch.tensor([[2, 5, 1, 4, 3], [2, OPEN, OPEN, 0, OPEN], [OPEN] * 5])
    got = reward(frames, text)
    logs = [v.log_softmax(1) for v in net(frames).values()]
    full = sum(log[0, i] for log, i in zip(logs, (2, 5, 1, 4, 3), strict=True)) / 5
    part = (logs[0][1, 2] + logs[3][1, 0]) / 2
    assert got.tolist() == pytest.approx([full.item(), part.item(), 0.0], abs=1e-6)
    (slope,) = torch.autograd.grad(got.sum(), frames)
    assert slope[0].abs().sum() > 0
    assert not slope[2].any()
    only = JudgeReward(net, attributes=("motion",))(frames, text)
    assert only[0].item() == pytest.approx(logs[3][0, 4].item(), abs=1e-6)


def test_the_prompt_is_read_into_labels():
    labels = JudgeReward(judge()).encode_text(["a large blue ring on a grey background"])
    named = {a: CLASSES[a][i] for a, i in zip(CLASSES, labels[0].tolist(), strict=True)}
    assert named == {
        "shape": "ring", "colour": "blue", "size": "large", "motion": "still", "background": "grey"
    }  # fmt: skip


def test_accuracy_counts_right_answers():
    net = judge()
    scenes = [sample_scene(np.random.default_rng(i)) for i in range(5)]
    frames = rendered(scenes, 3, 2, np.random.default_rng(0))
    assert frames.shape == (5, 3, 3, 64, 64)
    shares = accuracy(net, frames, scenes)
    answers = net(frames)["colour"].argmax(1)
    assert shares["colour"] == pytest.approx((answers == scene_labels(scenes)[:, 1]).float().mean())


def test_the_verb_trains_measures_and_goes_on(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(JudgeConfig, "b", classmethod(lambda cls: SMALL["volume"]))
    arguments = ["b", "--run", str(tmp_path), "--steps", "2", "--batch", "2", "--clips", "3", "-q"]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert "judge b: finished" in printed
    assert "| tier 1 | 3 |" in printed
    assert load_judge(tmp_path / "b" / "judge.safetensors").config == SMALL["volume"]
