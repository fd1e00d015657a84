"""The corpus of known faults: shared out evenly, reproducible, each fault what it says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hummingbird_runtime.errors import UsageError
from hummingbird_train.curation.defects import (
    DEFECTS,
    SEVERITIES,
    SIDE,
    Specimen,
    draw,
    make_specimen,
    other_scene,
    plan_corpus,
    sample_moving,
    slow_down,
    spoil,
    write_h264,
)
from hummingbird_train.world.grammar import caption
from hummingbird_train.world.scene import FRAMES, trajectory

pytest.importorskip("cv2")


def test_the_corpus_is_shared_out_evenly() -> None:
    corpus = plan_corpus(2000)
    assert [specimen.number for specimen in corpus] == list(range(2000))
    assert sum(not specimen.defect for specimen in corpus) == 800
    for defect in DEFECTS:
        for severity in SEVERITIES:
            kind = [s for s in corpus if (s.defect, s.severity) == (defect, severity)]
            assert len(kind) == 60
    copies = [specimen for specimen in corpus if specimen.defect == "duplicate"]
    assert all(not corpus[copy.source].defect for copy in copies)
    assert len({copy.source for copy in copies}) == len(copies)
    with pytest.raises(UsageError, match="at least 100"):
        plan_corpus(99)


def test_a_clip_follows_from_seed_and_number() -> None:
    frames, text = make_specimen(Specimen(5, "", ""), 1)
    assert frames.shape == (FRAMES, SIDE, SIDE, 3)
    again, same = make_specimen(Specimen(5, "", ""), 1)
    assert (frames == again).all()
    assert text == same
    assert (make_specimen(Specimen(5, "", ""), 2)[0] != frames).any()


def test_a_copy_is_a_copy_and_a_mild_one_is_changed() -> None:
    source = make_specimen(Specimen(3, "", ""), 0)
    strong = make_specimen(Specimen(50, "duplicate", "strong", 3), 0)
    assert (strong[0] == source[0]).all()
    assert strong[1] == source[1]
    mild = make_specimen(Specimen(51, "duplicate", "mild", 3), 0)
    change = np.abs(mild[0].astype(float) - source[0]).mean()
    assert 0.5 < change < 20


@pytest.mark.parametrize("wrong", [1, 2, 5])
def test_a_wrong_caption_is_wrong_in_as_many_attributes(wrong: int) -> None:
    rng = np.random.default_rng(wrong)
    for _ in range(20):
        scene = sample_moving(rng)
        other = other_scene(scene, wrong, rng)
        names = ("shape", "colour", "size", "motion", "background")
        assert sum(getattr(scene, name) != getattr(other, name) for name in names) == wrong
        assert caption(other, rng)


def test_slowing_down_leaves_a_share_of_the_motion() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        scene = sample_moving(rng)
        x, y, radius, _ = trajectory([scene, slow_down(scene, 0.0)], [0.0, 1.0])
        path = np.hypot(np.diff(x), np.diff(y)) + np.abs(np.diff(np.log(radius)))
        assert path[0] > 0.1
        assert path[1] == pytest.approx(0, abs=1e-9)


def test_a_dolly_zoom_scales_the_background_and_not_the_object() -> None:
    rng = np.random.default_rng(0)
    scene = slow_down(sample_moving(rng), 0.0)
    still = draw(scene, np.random.default_rng(1))
    zoomed = draw(scene, np.random.default_rng(1), 1.5)
    assert np.abs(zoomed[0] - still[0]).max() < 1e-3
    apart = np.abs(zoomed[-1] - still[-1]).max(axis=2) > 1
    assert apart.mean() > 0.3
    centre_y, centre_x = (round(value * SIDE / 64) for value in (scene.y, scene.x))
    if scene.shape != "ring":
        assert not apart[centre_y - 6 : centre_y + 6, centre_x - 6 : centre_x + 6].any()


@pytest.mark.parametrize("defect", ["noise", "blur", "blocks", "text_overlay", "dark"])
def test_strong_faults_change_the_pixels_more_than_mild_ones(defect: str) -> None:
    frames = draw(sample_moving(np.random.default_rng(0)), np.random.default_rng(1))[:2]
    change = [
        np.abs(spoil(frames, defect, how, np.random.default_rng(2)) - frames).mean()
        for how in DEFECTS[defect]
    ]
    assert 0 < change[0] < change[1]


def test_faults_outside_the_pixels_leave_them_alone() -> None:
    frames = np.zeros((1, 8, 8, 3), np.float32)
    for defect in ("", "static", "hard_cut", "duplicate", "wrong_caption"):
        assert spoil(frames, defect, 0.0, np.random.default_rng(0)) is frames


def test_clips_are_h264_with_the_frames_that_went_in(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    frames, _ = make_specimen(Specimen(0, "", ""), 0)
    write_h264(tmp_path / "a.mp4", frames)
    with av.open(str(tmp_path / "a.mp4")) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        back = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
    assert len(back) == FRAMES
    assert np.abs(np.stack(back).astype(float) - frames).mean() < 4
