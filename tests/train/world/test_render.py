"""Rendering: exact areas, clean outlines, and frames that do not depend on what is beside them."""

from __future__ import annotations

import numpy as np
import pytest

from hummingbird_runtime.errors import UsageError
from hummingbird_train.world.render import background_images, render, shape_distance
from hummingbird_train.world.scene import (
    PALETTE,
    REACH,
    ROUND_REACH,
    SHAPES,
    Scene,
    sample_scene,
)

GRID = ((np.arange(800) + 0.5) / 800 * 2.6 - 1.3).astype(np.float32)
U, V = np.meshgrid(GRID, GRID)
CELL = 2.6 / 800


def scenes(n: int, tier: int = 2) -> list[Scene]:
    rng = np.random.default_rng(8)
    return [sample_scene(rng, tier=tier) for _ in range(n)]


@pytest.mark.parametrize("shape", SHAPES[2])
def test_a_distance_is_centred_and_reaches_as_far_as_declared(shape: str):
    distance = shape_distance(shape, U, V)
    inside = distance < 0
    assert abs(U[inside].mean()) < CELL
    assert abs(V[inside].mean()) < CELL
    side, up, down = REACH[shape]
    reached = (U[inside].max(), -U[inside].min(), -V[inside].min(), V[inside].max())
    np.testing.assert_allclose(reached, (side, side, up, down), atol=2 * CELL)
    if shape in ROUND_REACH:
        assert np.hypot(U[inside], V[inside]).max() <= ROUND_REACH[shape]


@pytest.mark.parametrize("shape", SHAPES[2])
def test_a_distance_grows_by_one_per_unit(shape: str):
    slope = np.hypot(*np.gradient(shape_distance(shape, U, V), CELL))
    assert np.quantile(np.abs(slope - 1), 0.99) < 0.01  # not on the ridges, where it bends


@pytest.mark.parametrize(("shape", "area"), [("circle", np.pi), ("ring", np.pi * (1 - 0.52**2))])
def test_anti_aliasing_keeps_the_area(shape: str, area: float):
    scene = Scene(shape, "red", "medium", "still", "black", 1, 31.3, 30.8, 14.0)
    red = render([scene], [0])[0, 0, :, :, 0].astype(float)
    cover = ((red - 12) / (PALETTE["red"][0] - 12)).sum()
    assert cover == pytest.approx(area * 14**2, rel=0.01)  # the light evens out


@pytest.mark.parametrize("tier", [1, 2])
def test_the_edge_of_the_frame_shows_only_background(tier: int):
    backdrops = background_images()
    drawn = scenes(100, tier)
    for scene, clip in zip(drawn, render(drawn, range(0, 26, 5)), strict=True):
        empty = (backdrops[scene.background].transpose(1, 2, 0) + 0.5).astype(np.uint8)
        for edge in (np.s_[0], np.s_[-1], np.s_[:, 0], np.s_[:, -1]):
            assert (clip[(slice(None), *np.index_exp[edge])] == empty[edge]).all()


def test_a_frame_is_the_same_whatever_is_drawn_with_it():
    drawn = scenes(30)
    together = render(drawn, range(26))
    assert together.shape == (30, 26, 64, 64, 3)
    assert together.dtype == np.uint8
    np.testing.assert_array_equal(render(drawn[7:9], [25, 3]), together[7:9][:, [25, 3]])


def test_a_larger_picture_is_the_same_scene():
    drawn = scenes(6, tier=1)
    large = render(drawn, [0, 25], size=256).reshape(6, 2, 64, 4, 64, 4, 3).mean(axis=(3, 5))
    assert np.abs(large - render(drawn, [0, 25])).mean() < 1.0  # levels; outlines only


def test_nothing_to_draw_gives_an_empty_array():
    assert render([], [0]).shape == (0, 1, 64, 64, 3)
    assert render(scenes(2), []).shape == (2, 0, 64, 64, 3)


def test_colours_stand_out_from_each_other_and_from_every_background():
    palette = np.array(list(PALETTE.values()), float)
    between = np.linalg.norm(palette[:, None] - palette, axis=2)
    assert between[~np.eye(len(palette), dtype=bool)].min() > 90  # RGB distance
    for image in background_images().values():
        pixels = image.reshape(3, -1).T
        assert np.linalg.norm(pixels[:, None] - palette, axis=2).min() > 70


def test_frames_outside_the_clip_and_tiny_pictures_are_refused():
    with pytest.raises(UsageError, match=r"frame number outside the clip, got 0\.\.26"):
        render(scenes(1), [0, 26])
    with pytest.raises(UsageError, match="picture too small, got 4"):
        render(scenes(1), [0], size=4)
