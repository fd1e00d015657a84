"""Pictures of decoded frames: exact sizes, halved ones, and their colours."""

from __future__ import annotations

import numpy as np
import pytest

from hummingbird_train.curation.clip import make_clip
from hummingbird_train.curation.decode import Frames
from hummingbird_train.curation.scaler import Scaler, Size, exact_size, rough_size
from hummingbird_train.curation.stage import FramePlan
from hummingbird_train.curation.stages.plans import ALL

av = pytest.importorskip("av")
pytest.importorskip("cv2")


def _smooth(height: int, width: int) -> np.ndarray:
    """Slow waves in all three colours: uint8 [h, w, 3]."""
    rows, columns = np.mgrid[:height, :width]
    waves = [np.sin(rows / 29 + k) * np.cos(columns / (31 + 7 * k)) for k in range(3)]
    return np.clip(128 + 90 * np.stack(waves, axis=2), 0, 255).astype(np.uint8)


def _frame(height: int, width: int, kind: str = "yuv420p"):
    return av.VideoFrame.from_ndarray(_smooth(height, width), format="rgb24").reformat(format=kind)


@pytest.mark.parametrize(
    ("height", "width", "least", "size"),
    [
        (336, 596, 72, Size(84, 148, 2)),
        (1080, 1920, 72, Size(134, 240, 3)),
        (192, 192, 72, Size(96, 96, 1)),
        (143, 200, 72, Size(143, 200)),  # one halving would leave 71
        (144, 201, 72, Size(72, 100, 1)),
        (600, 3, 72, Size(600, 3)),  # as narrow as that nothing is halved
    ],
)
def test_rough_sizes_are_halvings_that_leave_enough(
    height: int, width: int, least: int, size: Size
) -> None:
    assert rough_size(height, width, least) == size


def test_exact_sizes_keep_the_proportions_and_never_grow() -> None:
    assert exact_size(336, 596, 144) == Size(144, 256)
    assert exact_size(336, 596, None) == exact_size(336, 596, 400) == Size(336, 596)


@pytest.mark.parametrize("kind", ["yuv420p", "yuvj420p", "yuv444p", "yuv420p10le", "gray"])
@pytest.mark.parametrize(("height", "width"), [(336, 592), (288, 400), (192, 192)])
def test_a_rough_picture_shows_what_an_exact_one_does(kind: str, height: int, width: int) -> None:
    size = rough_size(height, width, 72)
    frame = _frame(height, width, kind)
    rough = Scaler().scale(frame, size).astype(int)
    exact = Scaler().scale(frame, Size(size.height, size.width)).astype(int)
    assert rough.shape == exact.shape == (size.height, size.width, 3)
    # chroma of half the resolution; each side rounds in its own places
    assert np.abs(rough - exact).mean() < 3.5
    assert np.abs((rough - exact).mean(axis=(0, 1))).max() < 2.5


@pytest.mark.parametrize(("matrix", "span"), [(1, 1), (9, 1), (5, 2)])
def test_the_colours_that_a_file_declares_are_followed(matrix: int, span: int) -> None:
    frame = _frame(336, 592)
    plain = Scaler().scale(frame, Size(84, 148, 2)).astype(int)
    frame.colorspace, frame.color_range = matrix, span
    rough = Scaler().scale(frame, Size(84, 148, 2)).astype(int)
    exact = Scaler().scale(frame, Size(84, 148)).astype(int)
    assert np.abs(rough - plain).mean() > 2  # the declaration matters
    assert np.abs(rough - exact).mean() < 3.5


def test_halving_averages_four_pixels() -> None:
    grey = np.random.default_rng(0).integers(16, 236, (48, 64), np.uint8)
    planes = np.concatenate([grey.reshape(-1), np.full(48 * 64 // 2, 128, np.uint8)])
    frame = av.VideoFrame.from_ndarray(planes.reshape(72, 64), format="yuv420p")
    got = Scaler().scale(frame, Size(24, 32, 1))[..., 0].astype(float)
    boxes = grey.reshape(24, 2, 32, 2).mean(axis=(1, 3))
    # luma 16..235 spread over 0..255; rounded twice on the way
    assert np.abs(got - (boxes - 16) * 255 / 219).max() <= 1.7


def test_a_picture_of_another_size_than_the_files_is_brought_to_the_files() -> None:
    size = rough_size(336, 596, 72)
    assert Scaler().scale(_frame(168, 298), size).shape == (84, 148, 3)
    assert Scaler().scale(_frame(720, 1280), size).shape == (84, 148, 3)


def test_rough_plans_of_one_clip_have_their_own_pictures(tmp_path) -> None:
    from hummingbird_train.curation.defects import write_h264

    write_h264(tmp_path / "a.mp4", np.stack([_smooth(160, 200)] * 4), crf=10)
    frames = Frames(make_clip(tmp_path / "a.mp4"))
    exact = FramePlan(height=80)
    frames.load([ALL, exact])
    assert frames.of(ALL).shape == frames.of(exact).shape == (4, 80, 100, 3)
    frames.forget(exact, [ALL])
    assert len(frames.each(ALL)) == 4
