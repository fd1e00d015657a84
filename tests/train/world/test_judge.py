"""The judge: right on rendered clips, sensible on damaged ones, silent on empty ones."""

from __future__ import annotations

import numpy as np
import pytest
from hummingbird_train.world.accuracy import Accuracy, accuracies, chance, markdown
from hummingbird_train.world.grammar import judging_prompts
from hummingbird_train.world.judge import ATTRIBUTES, Judgement, judge
from hummingbird_train.world.render import background_images, render
from hummingbird_train.world.scene import BACKGROUNDS, Scene
from numpy.typing import NDArray
from scipy import ndimage

SCENES = [scene for _, scene in judging_prompts(60, seed=11)]


def clip(scene: Scene, stride: int = 1) -> NDArray[np.uint8]:
    return render([scene], range(0, 26, stride))[0]


def shares(clips: list[NDArray[np.uint8]]) -> dict[str, float]:
    table = accuracies([(s, judge(c)) for s, c in zip(SCENES, clips, strict=True)])
    return {name: table[name].share for name in ATTRIBUTES}


@pytest.mark.parametrize("stride", [1, 3])  # 26 and 9 frames
def test_rendered_clips_are_read_without_a_mistake(stride: int) -> None:
    # n = 60 and the gate is 0.99: one mistake in 60 would already miss it
    assert set(shares([clip(s, stride) for s in SCENES]).values()) == {1.0}


def test_noise_of_eight_levels_changes_little() -> None:
    rng = np.random.default_rng(0)
    noisy = [
        (clip(s, 3) + rng.normal(0, 8, (9, 64, 64, 3))).round().clip(0, 255).astype(np.uint8)
        for s in SCENES
    ]
    assert min(shares(noisy).values()) >= 0.95


def test_a_mild_blur_keeps_everything_but_small_outlines() -> None:
    blurred = [ndimage.gaussian_filter(clip(s, 3), (0, 0.8, 0.8, 0)) for s in SCENES]
    read = shares(blurred)
    assert read.pop("shape") >= 0.85
    assert min(read.values()) >= 0.97


@pytest.mark.parametrize("name", BACKGROUNDS[1])
def test_an_empty_background_has_no_object(name: str) -> None:
    picture = background_images()[name].transpose(1, 2, 0).round().astype(np.uint8)
    read = judge(np.repeat(picture[None], 9, axis=0))
    assert read == Judgement(None, None, None, None, name)


def test_noise_shows_nothing() -> None:
    frames = np.random.default_rng(1).integers(0, 256, (9, 64, 64, 3), dtype=np.uint8)
    assert judge(frames).shape is None


def test_two_blobs_have_no_shape() -> None:
    frames = np.full((9, 64, 64, 3), 12, np.uint8)
    frames[:, 26:38, 8:56] = (226, 36, 44)  # a long bar: the outline of no shape
    read = judge(frames)
    assert (read.shape, read.colour, read.motion) == (None, "red", "still")


def test_a_reversed_clip_reads_the_opposite_motion() -> None:
    opposite = {"left": "right", "right": "left", "up": "down", "down": "up",
                "growing": "shrinking", "shrinking": "growing", "still": "still"}  # fmt: skip
    for scene in SCENES[:20]:
        assert judge(clip(scene, 3)[::-1]).motion == opposite[scene.motion]


def test_the_wilson_interval_has_its_closed_form() -> None:
    low, high = Accuracy(8, 10).interval
    assert low == pytest.approx(0.4902, abs=1e-4)  # Wilson 1927, worked by hand
    assert high == pytest.approx(0.9433, abs=1e-4)
    assert Accuracy(10, 10).interval[1] == pytest.approx(1.0)


def test_the_table_carries_version_and_chance() -> None:
    table = markdown({"rendered": accuracies([(SCENES[0], judge(clip(SCENES[0], 3)))])})
    assert "judge v1" in table
    assert f"{chance()['motion']:.3f}" in table.splitlines()[-1]
