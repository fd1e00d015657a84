"""Programmatic rewards rank rendered clips as a person would, and have gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hummingbird_train.feedback.prompt_labels import CLASSES, OPEN, prompt_labels, scene_labels
from hummingbird_train.feedback.rewards.pixel import Redness, SoftColour, SoftMotion, soft_mask
from hummingbird_train.world.grammar import TEMPLATE_SETS, caption
from hummingbird_train.world.render import render
from hummingbird_train.world.scene import place, sample_scene


def clip(frames=(0, 5, 10, 15, 20, 25), **changes) -> torch.Tensor:
    """(1, f, 3, 64, 64) of a large red circle moving left on grey, or as changed."""
    scene = {
        "shape": "circle", "colour": "red", "size": "large", "motion": "left", "background": "grey"
    }  # fmt: skip
    drawn = render([place(np.random.default_rng(1), **{**scene, **changes})], frames)
    return torch.from_numpy(drawn).permute(0, 1, 4, 2, 3).float() / 255


@pytest.mark.parametrize("templates", ["train", "judge"])
def test_a_full_caption_names_the_scene_it_describes(templates: str):
    rng = np.random.default_rng(0)
    scenes = [sample_scene(rng, tier=1 + i % 2) for i in range(300)]
    prompts = [caption(s, rng, templates=templates) for s in scenes]
    assert torch.equal(prompt_labels(prompts), scene_labels(scenes))


def test_a_partial_caption_names_nothing_that_is_not_so():
    rng = np.random.default_rng(0)
    scenes = [sample_scene(rng, tier=2) for _ in range(300)]
    labels = prompt_labels([caption(s, rng, templates="partial") for s in scenes])
    truth = scene_labels(scenes)
    assert bool(((labels == truth) | (labels == OPEN)).all())
    assert (labels == OPEN).float().mean() > 0.2
    assert bool((labels[:, :2] == truth[:, :2]).all())  # shape and colour are always there


def test_the_empty_prompt_leaves_everything_open():
    assert prompt_labels([""]).tolist() == [[OPEN] * len(CLASSES)]
    assert set(TEMPLATE_SETS) == {"train", "partial", "judge"}


def test_the_mask_covers_the_object():
    for background in ("black", "white", "grey", "sky", "checker"):
        area = soft_mask(clip(background=background)).sum(dim=(2, 3)).mean().item()
        # radius 17.1 to 18.9: pi r^2 from 918 to 1122, half a pixel of soft edge either way
        assert 870 < area < 1180, background


def test_the_right_colour_scores_higher_than_every_other():
    reward = SoftColour()
    clips = {c: clip(colour=c) for c in CLASSES["colour"]}
    for wanted in CLASSES["colour"]:
        text = reward.encode_text([f"a {wanted} circle"])
        scores = {c: reward(frames, text).item() for c, frames in clips.items()}
        assert max(scores, key=scores.__getitem__) == wanted
        assert scores[wanted] > 0.8
    assert reward(clips["red"], reward.encode_text(["a circle"])).item() == 0.0


def test_the_right_motion_scores_higher_than_every_other():
    reward = SoftMotion()
    names = ("still", "left", "right", "up", "down", "growing", "shrinking")
    clips = {m: clip(size="medium", motion=m) for m in names}
    prompts = {m: caption(place(np.random.default_rng(0), shape="ring", colour="blue", size="small",
                                motion=m, background="black"), np.random.default_rng(0))
               for m in names}  # fmt: skip
    for wanted in names:
        text = reward.encode_text([prompts[wanted]])
        scores = {m: reward(frames, text).item() for m, frames in clips.items()}
        assert max(scores, key=scores.__getitem__) == wanted, scores
        assert scores[wanted] > (0.7 if wanted != "still" else -0.2)


def test_redness_is_the_mean_of_red_less_the_others():
    frames = torch.zeros(2, 1, 3, 4, 4)
    frames[0, :, 0] = 1.0
    frames[1, :, 1] = 0.5
    assert Redness()(frames, None).tolist() == pytest.approx([1.0, -0.25], abs=1e-6)


@pytest.mark.parametrize("reward", [SoftColour(), SoftMotion(), Redness()])
def test_the_gradient_is_the_finite_difference(reward):
    torch.manual_seed(0)
    frames = clip().double() * 0.9 + 0.05
    way = torch.randn_like(frames) * soft_mask(clip()).double()[:, :, None]
    text = reward.encode_text(["a large red circle moving left on a grey background"])
    frames.requires_grad_(True)
    (slope,) = torch.autograd.grad(reward(frames, text).sum(), frames)
    h = 1e-6
    with torch.no_grad():
        numeric = (reward(frames + h * way, text) - reward(frames - h * way, text)).item() / (2 * h)
    exact = (slope * way).sum().item()
    assert abs(exact) > 1e-4
    assert numeric == pytest.approx(exact, rel=1e-2)
