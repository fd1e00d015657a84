"""Scenes: reproducible, inside the frame, and split so that 5 % of the triples stay unseen."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from hummingbird_runtime.errors import UsageError
from hummingbird_train.world.scene import (
    COLOURS,
    DIRECTIONS,
    MOTIONS,
    NOMINAL_RADII,
    REACH,
    ROUND_REACH,
    SHAPES,
    SIZE,
    SIZES,
    Scene,
    is_held_out,
    place,
    sample_scene,
    trajectory,
    triples,
)

MOMENTS = np.linspace(0, 1, 26)


def scenes(n: int, tier: int, split: str = "train") -> list[Scene]:
    rng = np.random.default_rng(4)
    return [sample_scene(rng, tier=tier, split=split) for _ in range(n)]


def test_one_seed_gives_one_sequence_of_scenes():
    assert scenes(20, 1) == scenes(20, 1)


def test_tier_one_keeps_fourteen_of_its_280_triples_from_training():
    held_out = triples(split="held_out")
    assert (len(held_out), len(triples())) == (14, 266)
    shapes, colours, motions = zip(*held_out, strict=True)
    assert set(shapes) == set(SHAPES[1])
    assert set(motions) == set(MOTIONS[1])
    assert len(set(colours)) >= len(COLOURS) - 1
    assert max(Counter(shapes).values()) <= 4


def test_the_held_out_triples_are_the_ones_every_release_holds_out():
    assert ("heart", "pink", "up") in triples(split="held_out")
    assert ("ring", "orange", "still") in triples(split="held_out")
    assert ("circle", "red", "left") in triples()


@pytest.mark.parametrize("tier", [1, 2])
@pytest.mark.parametrize("split", ["train", "held_out"])
def test_a_split_draws_only_its_own_triples(tier: int, split: str):
    for scene in scenes(200, tier, split):
        assert is_held_out(scene.shape, scene.colour, scene.motion) == (split == "held_out")


@pytest.mark.parametrize("tier", [1, 2])
def test_the_object_stays_inside_the_frame(tier: int):
    drawn = scenes(600, tier)
    x, y, radius, _ = trajectory(drawn, MOMENTS)
    for i, scene in enumerate(drawn):
        reach = ROUND_REACH[scene.shape] if scene.motion == "spinning" else None
        side, up, down = (reach, reach, reach) if reach else REACH[scene.shape]
        assert (x[i] - side * radius[i]).min() >= 1
        assert (x[i] + side * radius[i]).max() <= SIZE - 1
        assert (y[i] - up * radius[i]).min() >= 1
        assert (y[i] + down * radius[i]).max() <= SIZE - 1


def test_travel_is_clear_even_for_large_objects():
    moving = [scene for scene in scenes(600, 1) if scene.motion in DIRECTIONS]
    x, y, _, _ = trajectory(moving, [0.0, 1.0])
    travel = np.hypot(np.diff(x), np.diff(y))
    assert travel.min() >= 18
    assert travel.max() <= 26


def test_size_is_the_geometric_mean_radius_of_a_growing_object():
    growing = [scene for scene in scenes(600, 1) if scene.motion == "growing"]
    _, _, radius, _ = trajectory(growing, MOMENTS)
    mean = np.exp(np.log(radius).mean(axis=1))
    nominal = np.array([NOMINAL_RADII[SIZES.index(scene.size)] for scene in growing])
    assert np.abs(mean / nominal - 1).max() <= 0.05 + 1e-9
    ratio = radius[:, -1] / radius[:, 0]
    assert ratio.min() >= 1.8 - 1e-9
    assert ratio.max() <= 2.2 + 1e-9


def test_unknown_names_are_refused_with_the_known_ones():
    rng = np.random.default_rng(0)
    with pytest.raises(UsageError, match="tier, got 3"):
        sample_scene(rng, tier=3)
    with pytest.raises(UsageError, match="split, got 'test'"):
        sample_scene(rng, split="test")
    with pytest.raises(UsageError, match=r"shape of tier 1, got 'star'.*heart"):
        place(rng, shape="star", colour="red", size="small", motion="up", background="sky")
