"""Measures over time - cuts, freezes, flicker, flow, camera - on constructed frames and clips."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hummingbird_runtime.errors import InputError
from hummingbird_train.curation.clip import make_clip
from hummingbird_train.curation.decode import score_clip
from hummingbird_train.curation.defects import write_h264
from hummingbird_train.curation.stage import Score, build_stages
from hummingbird_train.curation.stages.camera import fit_similarity, name_motion
from hummingbird_train.curation.stages.flow import dis_flow
from hummingbird_train.curation.stages.freeze import frame_differences
from hummingbird_train.curation.stages.motion import is_dynamic, speed, top_mean
from hummingbird_train.curation.stages.shots import adaptive_ratios, content_values, find_cuts
from hummingbird_train.curation.stages.smoothness import warp_middle

cv2 = pytest.importorskip("cv2")
pytest.importorskip("av")


def _field(seed: int = 0, height: int = 160, width: int = 200) -> np.ndarray:
    """A smooth coloured texture with gradients everywhere: uint8 [h, w, 3]."""
    noise = np.random.default_rng(seed).normal(0, 1, (height, width, 3)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 2.5)
    return np.clip(128 + 45 * smooth / smooth.std(), 0, 255).astype(np.uint8)


def _moved(picture: np.ndarray, zoom: float, turn: float, x: float, y: float) -> np.ndarray:
    height, width = picture.shape[:2]
    at = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), -np.rad2deg(turn), zoom)
    at[:, 2] += x, y
    return cv2.warpAffine(picture, at, (width, height), borderMode=cv2.BORDER_REFLECT)


def _clip(tmp_path: Path, frames: list[np.ndarray], fps: int = 8) -> Path:
    write_h264(tmp_path / "a.mp4", np.stack(frames), fps, crf=12)
    return tmp_path / "a.mp4"


def _score(tmp_path: Path, frames: list[np.ndarray], *names: str) -> dict[str, dict[str, Score]]:
    return score_clip(make_clip(_clip(tmp_path, frames)), build_stages({n: {} for n in names}))


def test_content_values_are_those_of_the_detector() -> None:
    scenedetect = pytest.importorskip("scenedetect")
    frames = np.stack([_field(seed, 48, 64) for seed in range(4)])
    detector = scenedetect.ContentDetector()
    theirs = [
        detector._calculate_frame_score(None, np.ascontiguousarray(frame[:, :, ::-1]))
        for frame in frames
    ]
    assert content_values(frames) == pytest.approx(theirs, abs=1e-9)


@pytest.mark.parametrize("seed", range(6))
def test_cuts_are_those_of_the_library(seed: int) -> None:
    pytest.importorskip("scenedetect")
    from scenedetect import FrameTimecode
    from scenedetect.detector import FlashFilter

    rng = np.random.default_rng(seed)
    values = np.where(rng.random(200) < 0.08, 60.0, 5.0)
    values[0] = 0
    theirs = FlashFilter(FlashFilter.Mode.MERGE, 15)
    found = []
    for k, value in enumerate(values):
        found += theirs.filter(FrameTimecode(k, 25.0), bool(value >= 27))
    assert find_cuts(values, 27.0, 15) == [time.frame_num for time in found]


def test_a_ratio_tells_a_cut_from_steady_motion() -> None:
    assert adaptive_ratios(np.array([0, 5, 5, 50, 5, 5.0])).tolist() == pytest.approx(
        [0, 5 / ((5 + 50) / 2), 5 / 20, 10, 5 / 20, 5 / 27.5]
    )
    assert adaptive_ratios(np.array([0, 0, 0, 9, 0, 0.0]))[3] == 255
    assert adaptive_ratios(np.zeros(4)).max() == 0


def test_a_cut_is_found_at_its_time(tmp_path: Path) -> None:
    frames = [_field(1)] * 20 + [_field(2)[:, :, ::-1].copy()] * 20
    scores = _score(tmp_path, frames, "shots")["shots"]
    assert scores["cuts"] == 1
    assert scores["times"] == "2.500"
    assert scores["longest"] == pytest.approx(2.5, abs=1e-6)


def test_a_freeze_is_measured_in_share_and_seconds(tmp_path: Path) -> None:
    frames = [np.roll(_field(), 5 * min(k, 7), axis=1) for k in range(16)]
    scores = _score(tmp_path, frames, "freeze")["freeze"]
    assert scores["share"] == pytest.approx(8 / 15, abs=1.5 / 15)  # the encoder settles in a frame
    assert scores["longest"] == pytest.approx(1.0, abs=0.2)


def test_differences_of_neighbours_are_shares_of_full_scale() -> None:
    frames = np.stack([np.full((4, 4, 3), value, np.uint8) for value in (0, 51, 51)])
    assert frame_differences(frames).tolist() == pytest.approx([0.2, 0.0])


def test_flicker_is_vbenchs_formula_and_samples_have_another_name(tmp_path: Path) -> None:
    grey = [np.full((48, 64, 3), 100 + 20 * (k % 2), np.uint8) for k in range(40)]
    stages = build_stages({"flicker": {"every_pair": True}})
    exact = score_clip(make_clip(_clip(tmp_path, grey)), stages)["flicker"]
    assert exact["temporal_flickering"] == pytest.approx((255 - 20) / 255, abs=0.006)
    sampled = _score(tmp_path, grey, "flicker")["flicker"]
    assert sampled["temporal_flickering_sampled"] == pytest.approx((255 - 20) / 255, abs=0.006)


def test_flow_finds_a_shift() -> None:
    field = cv2.cvtColor(_field(), cv2.COLOR_RGB2GRAY)
    flow = dis_flow(field, np.roll(field, (2, -3), axis=(0, 1)))
    inner = flow[20:-20, 20:-20].reshape(-1, 2)
    assert np.median(inner, axis=0) == pytest.approx([-3, 2], abs=0.1)
    with pytest.raises(InputError, match="sides"):
        dis_flow(field[:16], field[:16])


def test_speed_is_in_pixels_of_a_256_pixel_side() -> None:
    flow = np.zeros((128, 200, 2), np.float32)
    flow[..., 0], flow[..., 1] = 3, 4
    assert np.abs(speed(flow) - 10).max() < 1e-5


def test_the_top_twentieth_and_the_dynamic_rule() -> None:
    assert top_mean(np.arange(100, dtype=np.float32)) == pytest.approx(97)
    assert top_mean(np.array([4.0], np.float32)) == 4
    # 15 pairs are 16 frames: at least round(4) pairs above 6
    assert is_dynamic([7.0] * 4 + [0.0] * 11)
    assert not is_dynamic([7.0] * 3 + [6.0] * 12)


def test_still_and_moving_clips_are_told_apart(tmp_path: Path) -> None:
    still = _score(tmp_path, [_field()] * 12, "motion")["motion"]
    rolled = [np.roll(_field(), 6 * k, axis=1) for k in range(12)]
    moving = _score(tmp_path, rolled, "motion")["motion"]
    assert still["top"] < 0.5
    assert not still["dynamic_degree_dis"]
    # 6 px of 160 are 9.6 of 256; the rolled edge adds a seam of wrong flow
    assert moving["mean"] == pytest.approx(9.6, rel=0.15)
    assert moving["dynamic_degree_dis"]


def test_the_middle_is_warped_half_way() -> None:
    field = _field()
    first, middle, last = field[:, 8:-8], field[:, 6:-10], field[:, 4:-12]  # 2 px right a frame
    there = np.zeros((*first.shape[:2], 2), np.float32)
    there[..., 0] = 4
    predicted = warp_middle(first, last, there, -there)
    assert np.abs(predicted - middle)[:, 8:-8].max() < 1e-3


def test_smoothness_falls_when_a_middle_frame_jumps(tmp_path: Path) -> None:
    steady = [np.roll(_field(), 2 * k, axis=1) for k in range(13)]
    jumpy = [np.roll(_field(), 2 * k + (5 if k % 4 == 1 else 0), axis=1) for k in range(13)]
    a, b = (
        _score(tmp_path, frames, "smoothness")["smoothness"]["motion_smoothness_dis"]
        for frames in (steady, jumpy)
    )
    assert a > 0.97
    assert b < a - 0.02


@pytest.mark.parametrize("seed", range(4))
def test_a_similarity_is_recovered_among_outliers(seed: int) -> None:
    rng = np.random.default_rng(seed)
    z = rng.uniform(-100, 100, 300) + 1j * rng.uniform(-60, 60, 300)
    a, b = 1.02 * np.exp(0.015j), 1.5 - 0.7j
    w = a * z + b + rng.normal(0, 0.05, 300) + 1j * rng.normal(0, 0.05, 300)
    w[:90] = z[:90] + rng.uniform(-20, 20, 90) + 1j * rng.uniform(-20, 20, 90)
    scale, shift, follows = fit_similarity(z, w)
    assert abs(scale - a) < 5e-4  # 210 points of 0.07 px error over a spread of 70 px
    assert abs(shift - b) < 0.05
    assert follows[90:].mean() > 0.95
    assert follows[:90].mean() < 0.2


def test_coinciding_points_do_not_break_the_fit() -> None:
    z = np.zeros(30, complex)
    scale, shift, _ = fit_similarity(z, z + 2)
    assert (scale, shift) == (1, 2)


@pytest.mark.parametrize(
    ("kind", "step"),
    [
        ("zoom", {"zoom": 1.015}),
        ("roll", {"turn": 0.015}),
        ("pan", {"x": 1.5}),
        ("still", {}),
    ],
)
def test_the_camera_is_named_and_measured(tmp_path: Path, kind: str, step: dict) -> None:
    def frame(k: int) -> np.ndarray:
        zoom, turn, x = (step.get(name, 0) for name in ("zoom", "turn", "x"))
        return _moved(_field(0, 160, 224), (zoom or 1.0) ** k, turn * k, x * k, 0)

    scores = _score(tmp_path, [frame(k) for k in range(10)], "camera")["camera"]
    assert scores["kind"] == kind
    assert scores["zoom_signed"] == pytest.approx(8 * np.log(step.get("zoom", 1.0)), abs=0.012)
    assert scores["roll"] == pytest.approx(8 * step.get("turn", 0.0), abs=0.012)
    assert scores["pan"] == pytest.approx(8 * step.get("x", 0.0) / 160, abs=0.01)
    assert scores["fit"] > 0.8


def test_disorder_has_no_name_and_flat_pictures_no_camera(tmp_path: Path) -> None:
    assert name_motion(1.0, 0.0, 0.0, 0.3, 1.0) == "free"
    flat = _score(tmp_path, [np.full((96, 96, 3), 90, np.uint8)] * 4, "camera")["camera"]
    assert flat["kind"] == "unknown"
    assert flat["zoom"] == 0.0
