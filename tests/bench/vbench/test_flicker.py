"""The exact dimension against its formula, and the proxies by how they order clips."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from hummingbird_bench.vbench.flicker import read_frames, temporal_flickering
from hummingbird_bench.vbench.offline import judge_offline, offline_table
from hummingbird_runtime.errors import InputError
from hummingbird_runtime.video import Video


def _sliding(step: int, frames: int = 9, size: int = 64) -> np.ndarray:
    """A smooth texture that moves ``step`` pixels a frame."""
    rng = np.random.default_rng(5)
    spectrum = np.fft.rfft2(rng.normal(size=(size, 2 * size)))
    y, x = np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(2 * size)[None]
    wide = np.fft.irfft2(spectrum * np.exp(-((x**2 + y**2) * 900)), s=(size, 2 * size))
    wide = (wide - wide.min()) / np.ptp(wide) * 255
    clip = np.stack([np.roll(wide, step * k, axis=1)[:, :size] for k in range(frames)])
    return np.repeat(clip[..., None], 3, axis=-1).astype(np.uint8)


def test_flickering_is_the_formula_of_the_source() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (6, 24, 32, 3), dtype=np.uint8)
    pairs = [
        np.mean(np.abs(a.astype(np.float32) - b.astype(np.float32)))
        for a, b in itertools.pairwise(frames)
    ]
    # float32 means round at 1e-7 of 255
    assert temporal_flickering(frames) == pytest.approx((255 - np.mean(pairs)) / 255, abs=1e-6)


def test_a_clip_that_stands_still_scores_one_and_one_that_blinks_scores_zero() -> None:
    still = np.full((5, 8, 8, 3), 90, np.uint8)
    assert temporal_flickering(still) == 1.0
    blink = np.zeros((4, 8, 8, 3), np.uint8)
    blink[1::2] = 255
    assert temporal_flickering(blink) == 0.0


def test_one_frame_and_floats_are_refused() -> None:
    with pytest.raises(InputError, match=r"F >= 2"):
        temporal_flickering(np.zeros((1, 8, 8, 3), np.uint8))
    with pytest.raises(InputError, match="float64"):
        temporal_flickering(np.zeros((4, 8, 8, 3)))


def test_the_smoothness_proxy_punishes_a_jerk_and_not_a_speed() -> None:
    pytest.importorskip("cv2")
    from hummingbird_bench.vbench.proxies import motion_smoothness_dis

    smooth = motion_smoothness_dis(_sliding(2))
    jerky = _sliding(2)
    jerky[1::4] = 255 - jerky[1::4]
    assert smooth is not None
    assert smooth > 0.98
    assert motion_smoothness_dis(jerky) < smooth - 0.05
    assert motion_smoothness_dis(smooth_pair := _sliding(2)[:2]) is None
    assert len(smooth_pair) == 2


def test_the_dynamic_proxy_tells_a_fast_clip_from_a_still_one() -> None:
    pytest.importorskip("cv2")
    from hummingbird_bench.vbench.proxies import moves_dis

    assert moves_dis(_sliding(5), fps=8) is True
    assert moves_dis(_sliding(0), fps=8) is False
    assert moves_dis(_sliding(5)[:1], fps=8) is None


def test_a_folder_is_judged_offline_and_a_torn_clip_is_a_failure_of_its_own(
    tmp_path: Path,
) -> None:
    pytest.importorskip("cv2")
    pytest.importorskip("av")
    Video(_sliding(0), fps=8).save(tmp_path / "a still wall-0.mp4")
    Video(_sliding(5), fps=8).save(tmp_path / "a fast wall-0.mp4")
    whole = (tmp_path / "a still wall-0.mp4").read_bytes()
    (tmp_path / "torn-0.mp4").write_bytes(whole[:100])
    means, failures = judge_offline(tmp_path)
    assert means["clips"] == 2
    assert means["dynamic_degree_dis"] == 0.5
    assert 0.9 < means["temporal_flickering"] < 1.0
    assert list(failures) == ["torn-0.mp4"]
    table = offline_table(means)
    assert "no Total" in table
    assert table.index("temporal_flickering") < table.index("proxies") < table.index("_dis")


def test_frames_are_read_as_opencv_reads_them(tmp_path: Path) -> None:
    cv2 = pytest.importorskip("cv2")
    path = tmp_path / "clip.mp4"
    Video(_sliding(3), fps=8).save(path)
    reader, frames = cv2.VideoCapture(str(path)), []
    while (step := reader.read())[0]:
        frames.append(step[1])
    reader.release()
    ours = read_frames(path)
    assert len(frames) == len(ours) == 9
    # two builds of swscale may round a pixel differently; the score must not notice
    assert temporal_flickering(ours) == pytest.approx(
        temporal_flickering(np.stack(frames)), abs=2e-4
    )
