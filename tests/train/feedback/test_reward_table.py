"""A recipe's tables become an objective; the real anchor is left alone without reward."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from affine_networks import AffineUNet, FixedClips, contexts

from hummingbird_runtime.errors import InputError, UsageError
from hummingbird_train.base import world_schedule
from hummingbird_train.consistency import ConsistencyConfig, ConsistencyObjective, student_schedule
from hummingbird_train.feedback.decode import FrameDecoder
from hummingbird_train.feedback.judge import Judge, JudgeConfig, save_judge
from hummingbird_train.feedback.mix import Term
from hummingbird_train.feedback.reward_table import (
    RewardEntry,
    calibrated,
    feedback_objective,
    open_reward,
    world_clips,
)
from hummingbird_train.feedback.rewards.pixel import Redness
from hummingbird_train.feedback.student_clips import StudentClips
from hummingbird_train.models.tiny_decoder import TinyDecoder, TinyDecoderConfig
from hummingbird_train.models.unet import UNetConfig, VideoUNet
from hummingbird_train.recipe import Phase

PHASE = Phase("few", steps=4, batch=2, learning_rate=0.0, frames=2, stride=3)
SHAPE = replace(UNetConfig.tiny(), time_cond_proj_dim=8)
CONFIG = ConsistencyConfig(form="cfg", guidance=(1.0, 4.0), student_steps=4)
SHIPPED = student_schedule(world_schedule(), CONFIG)


def anchor() -> ConsistencyObjective:
    return ConsistencyObjective(
        AffineUNet(0.3, -0.2, 0.5, 0.7), SHAPE, AffineUNet(-0.4, 0.6, 0.1), SHAPE,
        contexts, FixedClips(None), world_schedule(), CONFIG,
    )  # fmt: skip


def decoder() -> TinyDecoder:
    torch.manual_seed(0)
    channels = FixedClips(None).sample(np.random.default_rng(0), 1, 1, 1)[0].shape[1]
    model = TinyDecoder(
        TinyDecoderConfig(latent_channels=channels, channels=(6,), blocks=(1,), patch=8)
    )
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def real(count: int) -> tuple[torch.Tensor, list[str]]:
    torch.manual_seed(1)
    return torch.rand(count, 3, 3, 8, 8), ["a red circle"] * count


def built(weight: float, **table):
    return feedback_objective(
        anchor(),
        {"rewards": [{"name": "redness", "weight": weight}], "phases": [],
         "mix": {"warmup": 0.0, "ramp": 0.0}, **table},
        decoder=decoder(), scaling_factor=0.5, scheduler=SHIPPED, calls=4, real=real, real_clips=8,
    )  # fmt: skip


@pytest.mark.parametrize("through", ["one_step", "last_step"])
def test_without_weight_the_real_anchor_is_itself_bit_for_bit(through: str):
    for weight, same in ((0.0, True), (1.0, False)):
        pure, fed = anchor(), built(weight, config={"through": through})
        for step in range(3):
            expected, _ = pure.loss(PHASE, False, np.random.default_rng(step))
            got, _ = fed.loss(PHASE, False, np.random.default_rng(step))
            one = torch.autograd.grad(expected, list(pure.unet.parameters()))
            other = torch.autograd.grad(got, list(fed.modules["unet"].parameters()))
            assert all(map(torch.equal, one, other)) is same
            assert (expected.item() == got.item()) is same


def test_the_table_says_mix_decoding_and_augmentation():
    thing = built(
        2.0,
        config={"steps": 3, "latest_t": 500},
        decode={"chunk": 4},
        augmentation={"shift": 0, "blur": 0.0},
    )
    assert (thing.config.steps, thing.config.latest_t, thing.config.calls) == (3, 500, 4)
    assert thing.decode.config.chunk == 4
    assert thing.config.augmentation.shift == 0
    assert thing.rewards.terms[0].weight == 2.0
    with pytest.raises(InputError) as error:
        built(1.0, mix={"warm": 1})
    assert error.value.code == "recipe.keys"


def test_a_term_is_clipped_at_the_quantile_of_real_clips():
    frames, captions = real(40)
    term = calibrated(Term(Redness(frames=3)), frames, captions, 0.95, batch=7)
    rng = np.random.default_rng(0)
    picks = [term.model.wants.choose(3, rng) for _ in range(-(-40 // 7))]
    scores = torch.stack(
        [Redness()(clip[None, torch.from_numpy(picks[i // 7])], None)[0]
         for i, clip in enumerate(frames)]
    )  # fmt: skip
    assert term.clip_at == pytest.approx(np.quantile(scores.numpy(), 0.95), abs=1e-6)


def test_the_worlds_real_clips_are_the_same_every_time():
    frames, captions = world_clips(seed=3)(2)
    assert frames.shape == (2, 26, 3, 64, 64)
    assert captions == world_clips(seed=3)(2)[1] != world_clips(seed=4)(2)[1]


def test_every_reward_is_opened_or_named_in_the_refusal(tmp_path):
    path = tmp_path / "a" / "judge.safetensors"
    path.parent.mkdir()
    save_judge(path, Judge(JudgeConfig(width=4, frames=3)))
    judge = open_reward(RewardEntry("judge", weights=str(path), attributes=("motion",)))
    assert judge.wants.count == 3
    assert judge.counted.tolist() == [False, False, False, True, False]
    assert open_reward(RewardEntry("judge"), tmp_path).counted.all()
    assert open_reward(RewardEntry("redness")).name == "redness"
    for name in ("hpsv2.1", "pickscore", "viclip"):
        with pytest.raises(InputError) as error:
            open_reward(RewardEntry(name, weights=str(tmp_path / "none.pt")))
        assert error.value.code == "checkpoint.missing"
    with pytest.raises(InputError) as error:
        open_reward(RewardEntry("internvideo2", checkout=str(tmp_path)))
    assert error.value.code == "feedback.checkout"
    with pytest.raises(UsageError, match="colour, motion, redness"):
        open_reward(RewardEntry("beauty"))


def test_clips_of_the_student_are_those_of_the_runtimes_seeds():
    config = UNetConfig(
        model_channels=16, channel_mult=(1,), num_res_blocks=1, attention_resolutions=(1,),
        middle_block=False, num_head_channels=8, init_attn_heads=1, context_dim=8,
        time_cond_proj_dim=8, temporal_dropout=0.5, norm_num_groups=4,
    )  # fmt: skip
    torch.manual_seed(0)
    unet = VideoUNet(config).train()
    for parameter in unet.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.05)
    decode = FrameDecoder(
        TinyDecoder(TinyDecoderConfig(channels=(4,), blocks=(1,), patch=2)), 0.5
    )  # fmt: skip
    make = StudentClips(
        unet, lambda prompts: torch.stack([torch.full((3, 8), len(p) / 10) for p in prompts]),
        decode, SHIPPED, steps=2, w=2.0, frames=2, size=(4, 4),
    )  # fmt: skip
    latents, frames = make(["a", "bb"], [1, 2])
    assert latents.shape == (2, 4, 2, 4, 4)
    assert frames.shape == (2, 2, 3, 8, 8)
    again, _ = make(["bb"], [2])
    assert torch.allclose(again[0], latents[1], atol=1e-5)  # another batch size, float32
    assert unet.training  # as it was; dropout was off, or seeds would not repeat
    assert not torch.equal(latents[0], latents[1])
