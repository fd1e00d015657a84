"""Stage `base`: where objects are, and how much noise clips are trained at."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from hummingbird_train.base import PLACE_MEAN, PLACE_STD, places_of
from hummingbird_train.diffusion import stratified_timesteps
from hummingbird_train.world.scene import FRAMES, sample_scene


def test_places_are_standardised_pixels_of_the_trajectory():
    scene = replace(
        sample_scene(np.random.default_rng(0)),
        motion="left", x=30.0, y=40.0, radius=10.0, amount=20.0,
    )  # fmt: skip
    found = places_of([scene], np.array([[0, FRAMES - 1]]))[0].numpy()
    pixels = found * PLACE_STD + PLACE_MEAN
    np.testing.assert_allclose(pixels, [[40.0, 40.0, 10.0], [20.0, 40.0, 10.0]], atol=1e-4)


def test_places_of_the_world_are_about_standard():
    rng = np.random.default_rng(1)
    scenes = [sample_scene(rng) for _ in range(600)]
    places = places_of(scenes, np.tile(np.arange(FRAMES), (600, 1))).reshape(-1, 3)
    assert places.mean(0).abs().max() < 0.1  # 600 scenes: a standard error of 0.04
    assert (places.std(0) - 1).abs().max() < 0.1


@pytest.mark.parametrize("shift", [1.0, 3.0, 5.0])
def test_shifted_timesteps_follow_the_formula(shift: float):
    t = stratified_timesteps(np.random.default_rng(2), 20_000, shift=shift).double() / 1000
    for share in (0.25, 0.5, 0.9):  # quantiles of u -> shift u / (1 + (shift - 1) u)
        want = shift * share / (1 + (shift - 1) * share)
        assert float(t.quantile(share)) == pytest.approx(want, abs=2e-3)
    assert t.min() >= 0
    assert t.max() < 1
    assert torch.equal(
        stratified_timesteps(np.random.default_rng(2), 50),
        stratified_timesteps(np.random.default_rng(2), 50, shift=1.0),
    )
