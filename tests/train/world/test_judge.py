"""The judge: right on rendered clips, sensible on damaged ones, silent on empty ones."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from hummingbird_runtime.errors import InputError
from hummingbird_train.world.accuracy import Accuracy, accuracies, chance, markdown
from hummingbird_train.world.grammar import judging_prompts
from hummingbird_train.world.judge import ATTRIBUTES, JUDGE_VERSION, Judgement, judge
from hummingbird_train.world.render import background_images, render
from hummingbird_train.world.scene import BACKGROUNDS, Scene, place

SCENES = [scene for _, scene in judging_prompts(60, seed=11)]


def clip(scene: Scene, stride: int = 1) -> NDArray[np.uint8]:
    return render([scene], range(0, 26, stride))[0]


def shares(clips: list[NDArray[np.uint8]]) -> dict[str, float]:
    table = accuracies([(s, judge(c)) for s, c in zip(SCENES, clips, strict=False)])
    return {name: table[name].share for name in ATTRIBUTES}


@pytest.mark.parametrize("stride", [1, 3])  # 26 and 9 frames
def test_rendered_clips_are_read_without_a_mistake(stride: int) -> None:
    # n = 60 and the gate is 0.99: one mistake in 60 would already miss it
    assert set(shares([clip(s, stride) for s in SCENES]).values()) == {1.0}


def test_noise_of_eight_levels_changes_little() -> None:
    rng = np.random.default_rng(0)
    noisy = [
        (clip(s, 3) + rng.normal(0, 8, (9, 64, 64, 3))).round().clip(0, 255).astype(np.uint8)
        for s in SCENES[:40]
    ]
    assert min(shares(noisy).values()) >= 0.95


def test_a_mild_blur_keeps_everything_but_small_outlines() -> None:
    blurred = [ndimage.gaussian_filter(clip(s, 3), (0, 0.8, 0.8, 0)) for s in SCENES[:40]]
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


def test_a_bar_has_no_shape() -> None:
    frames = np.full((9, 64, 64, 3), 12, np.uint8)
    frames[:, 26:38, 8:56] = (226, 36, 44)  # a long bar: the outline of no shape
    read = judge(frames)
    assert (read.shape, read.colour, read.motion) == (None, "red", "still")


@pytest.mark.parametrize("second", [(226, 36, 44), (38, 70, 226)])
def test_two_objects_leave_only_the_background(second: tuple[int, int, int]) -> None:
    frames = np.full((9, 64, 64, 3), 12, np.uint8)
    frames[:, 10:26, 8:24] = (226, 36, 44)
    frames[:, 34:48, 36:50] = second
    assert judge(frames) == Judgement(None, None, None, None, "black")


def test_an_object_missing_from_a_few_frames_is_still_read() -> None:
    scene = SCENES[0]
    frames = clip(scene)
    empty = background_images()[scene.background].transpose(1, 2, 0).round().astype(np.uint8)
    frames[[3, 11, 12]] = empty
    assert judge(frames) == judge(clip(scene))
    frames[:20] = empty
    assert judge(frames) == Judgement(None, None, None, None, scene.background)


def test_tier_two_is_read_at_nine_frames() -> None:
    for _, scene in judging_prompts(40, seed=11, tier=2):
        read = judge(clip(scene, 3), tier=2)
        assert all(getattr(read, name) == getattr(scene, name) for name in ATTRIBUTES), scene


def test_what_tier_one_lacks_is_undecided_in_tier_one() -> None:
    scene = place(
        np.random.default_rng(0),
        shape="star",
        colour="green",
        size="medium",
        motion="up-left",
        background="sunset",
        tier=2,
    )
    assert judge(clip(scene), tier=2) == Judgement("star", "green", "medium", "up-left", "sunset")
    assert judge(clip(scene), tier=1) == Judgement(None, "green", "medium", None, None)


def test_four_frames_are_too_few_for_motion() -> None:
    frames = clip(SCENES[0])[[0, 8, 16, 25]]
    assert judge(frames).motion is None
    assert judge(frames).shape == SCENES[0].shape


def test_frames_of_another_kind_are_refused() -> None:
    with pytest.raises(InputError, match=r"got float64 \[9, 64, 64, 3\], expected uint8"):
        judge(np.zeros((9, 64, 64, 3)))  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"got uint8 \[9, 32, 32, 3\]"):
        judge(np.zeros((9, 32, 32, 3), np.uint8))


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
    assert Accuracy(0, 10).interval[0] == pytest.approx(0.0)


def test_an_undecided_attribute_counts_as_wrong() -> None:
    scene = SCENES[0]
    table = accuracies([(scene, Judgement(scene.shape, scene.colour, None, None, None))])
    assert [table[name].right for name in (*ATTRIBUTES, "all")] == [1, 1, 0, 0, 0, 0]
    assert chance()["all"] == pytest.approx(1 / (5 * 8 * 3 * 7 * 5))


def test_the_table_carries_version_and_chance() -> None:
    table = markdown({"rendered": accuracies([(SCENES[0], judge(clip(SCENES[0], 3)))])})
    assert f"judge v{JUDGE_VERSION}" in table
    assert f"{chance()['motion']:.3f}" in table.splitlines()[-1]
