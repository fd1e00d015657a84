"""The demonstration's style: outlines on dark ground, told from solid shapes by two numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hummingbird_runtime.errors import UsageError
from hummingbird_train.data.entries import read_entries
from hummingbird_train.world.render import render
from hummingbird_train.world.scene import COLOURS, Scene, sample_scene
from hummingbird_train.world_styles import (
    darkness,
    hollowness,
    object_colour,
    render_style,
    write_style_clips,
)


def scene(shape: str, background: str, radius: float = 18.0) -> Scene:
    return Scene(shape, "yellow", "large", "still", background, 1, 32.0, 32.0, radius)


@pytest.mark.parametrize("shape", ["circle", "square", "triangle", "heart"])
@pytest.mark.parametrize("background", ["black", "white", "grey", "sky", "checker"])
def test_the_numbers_tell_outlines_from_solid_shapes(shape: str, background: str) -> None:
    drawn = scene(shape, background)
    solid, neon = render([drawn], [0])[0], render_style([drawn], [0])[0]
    assert hollowness(solid) < 0.02
    assert hollowness(neon) > 0.2
    assert darkness(neon) > 0.75
    if background != "black":
        assert darkness(neon) > darkness(solid) + 0.2


def test_an_outline_has_the_colour_at_the_edge_and_the_background_inside() -> None:
    frame = render_style([scene("circle", "black")], [0])[0, 0]
    assert np.abs(frame[32, 14].astype(int) - (250, 222, 48)).max() <= 30  # on the edge
    assert frame[32, 32].max() < 10
    assert frame[2, 2].max() < 10


@pytest.mark.parametrize("colour", COLOURS)
def test_the_colour_is_read_in_both_looks(colour: str) -> None:
    drawn = Scene("circle", colour, "large", "still", "checker", 1, 32.0, 32.0, 18.0)
    assert object_colour(render([drawn], [0, 9])[0]) == colour
    assert object_colour(render_style([drawn], [0, 9])[0]) == colour
    assert object_colour(np.zeros((2, 64, 64, 3), np.uint8)) is None


def test_equal_scenes_move_as_in_the_world() -> None:
    rng = np.random.default_rng(3)
    scenes = [sample_scene(rng) for _ in range(3)]
    frames = render_style(scenes, [0, 25])
    assert frames.shape == (3, 2, 64, 64, 3)
    assert (frames[1] == render_style(scenes[1:2], [0, 25])[0]).all()


def test_clips_are_a_source(tmp_path: Path) -> None:
    write_style_clips(tmp_path, clips=2, seed=1)
    entries = read_entries(tmp_path)
    assert [e.key for e in entries] == ["000.npy", "001.npy"]
    assert all(len(e.caption.split()) >= 3 for e in entries)
    assert np.load(tmp_path / "000.npy").shape == (26, 64, 64, 3)


def test_an_unknown_style_and_empty_frames() -> None:
    with pytest.raises(UsageError) as caught:
        render_style([], [0], "cubist")
    assert caught.value.code == "world.style"
    assert np.isnan(hollowness(render([scene("circle", "grey", 1.0)], [0])[0]))
