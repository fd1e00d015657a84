"""Samples: a function of seed and number, dealt to ranks without overlap, cut as the rules say."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from hummingbird_runtime.errors import InputError, UsageError
from hummingbird_runtime.video import Video
from hummingbird_train.data.loader import Window, cut, numbers, open_dataset
from hummingbird_train.data.media import Media, probe, read_frames, resize_and_crop


def ramp(frames: int, side: int = 16) -> np.ndarray:
    """Frame i is grey of level 8 i."""
    levels = (8 * np.arange(frames)).astype(np.uint8)[:, None, None, None]
    return np.broadcast_to(levels, (frames, side, side, 3)).copy()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for i in range(7):
        np.save(tmp_path / f"{i}.npy", ramp(26))
        (tmp_path / f"{i}.txt").write_text(f"clip {i}", "utf-8")
    return tmp_path


def test_a_sample_is_a_window_at_a_stride_with_its_rate(folder: Path) -> None:
    dataset = open_dataset(folder, frames=4, size=(8, 8), stride=(1, 6), seed=3, default_fps=24)
    strides = Counter()
    for n in range(60):
        sample = dataset[n]
        (stride,) = set(np.diff(sample.indices))
        strides[stride] += 1
        assert sample.frames.shape == (4, 8, 8, 3)
        assert (sample.frames[:, 0, 0, 0] == 8 * np.array(sample.indices)).all()
        assert sample.fps_condition == round(24 / stride)
        assert sample.caption == f"clip {sample.key[0]}"
    assert set(strides) == {1, 2, 3, 4, 5, 6}


def test_numbers_of_ranks_and_steps_never_meet_and_leave_none_out() -> None:
    dealt = [
        n for step in range(5) for rank in range(3) for n in numbers(step, rank, 3, 4, before=10)
    ]
    assert dealt == list(range(10, 70))


def test_an_epoch_shows_every_clip_once_over_all_ranks_and_over_a_resume(folder: Path) -> None:
    def keys(world: int, steps: range) -> list[str]:
        dataset = open_dataset(folder, frames=2, size=(8, 8), seed=5)  # a fresh process
        return [
            s.key for step in steps for r in range(world) for s in dataset.batch(step, r, world, 1)
        ]

    whole = keys(1, range(21))
    for epoch in range(3):
        assert len(set(whole[7 * epoch : 7 * epoch + 7])) == 7
    assert whole[:7] != whole[7:14]  # another order
    assert keys(1, range(10)) + keys(1, range(10, 21)) == whole
    assert keys(3, range(7)) == whole  # three ranks share the same sequence


def test_equal_seeds_give_equal_samples_in_any_order(folder: Path) -> None:
    one = open_dataset(folder, frames=3, size=(8, 8), seed=1)
    two = open_dataset(folder, frames=3, size=(8, 8), seed=1)
    forwards = [one[n] for n in range(9)]
    for n in reversed(range(9)):
        assert two[n].indices == forwards[n].indices
        assert (two[n].frames == forwards[n].frames).all()
    other = open_dataset(folder, frames=3, size=(8, 8), seed=2)
    assert [other[n].indices for n in range(9)] != [s.indices for s in forwards]


def test_a_short_clip_takes_the_largest_stride_that_fits() -> None:
    rng = np.random.default_rng(0)
    window = Window(4, (8, 8), (2, 6))
    for _ in range(20):
        indices, fps = cut(Media(11, 8, 8, 12.0), window, rng)
        assert set(np.diff(indices)) <= {2, 3}
        assert indices[-1] < 11
        assert fps == round(12 / np.diff(indices)[0])
    with pytest.raises(InputError) as caught:
        cut(Media(6, 8, 8, 12.0), window, rng)
    assert caught.value.code == "data.short"
    assert cut(Media(1, 8, 8, None), Window(1, (8, 8)), rng)[0] == [0]  # an image is one frame


@pytest.mark.parametrize(
    "options",
    [{"frames": 0}, {"size": (0, 8)}, {"stride": (3, 2)}, {"stride": (0, 2)}, {"default_fps": 0}],
)
def test_windows_without_meaning_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(UsageError) as caught:
        Window(**{"frames": 4, "size": (8, 8), **options})  # type: ignore[arg-type]
    assert caught.value.code == "data.options"


def test_damaged_and_short_clips_are_an_error_or_counted(folder: Path) -> None:
    (folder / "2.npy").write_bytes(b"\x93NUMPY damaged")
    np.save(folder / "4.npy", ramp(3))
    strict = open_dataset(folder, frames=5, size=(8, 8))
    with pytest.raises(InputError):
        [strict[n] for n in range(7)]
    lenient = open_dataset(folder, frames=5, size=(8, 8), on_failure="skip")
    seen = {lenient[n].key for n in range(14)}
    assert seen == {f"{i}.npy" for i in (0, 1, 3, 5, 6)}
    codes = {key: error.code for key, error in lenient.failures.items()}
    assert codes == {"2.npy": "data.corrupt", "4.npy": "data.short"}
    again = open_dataset(folder, frames=5, size=(8, 8), on_failure="skip")
    assert again[11].indices == lenient[11].indices  # what was met before does not matter
    checked = open_dataset(folder, frames=5, size=(8, 8))
    assert len(checked.validate()) == 5
    assert checked.failures.keys() == lenient.failures.keys()


def test_a_source_of_damaged_clips_only_ends(tmp_path: Path) -> None:
    for i in range(3):
        (tmp_path / f"{i}.npy").write_bytes(b"no array")
    with pytest.raises(InputError) as caught:
        open_dataset(tmp_path, frames=1, size=(8, 8), on_failure="skip")[0]
    assert caught.value.code == "data.empty"
    with pytest.raises(UsageError):
        open_dataset(tmp_path, frames=1, size=(8, 8), on_failure="hope")  # type: ignore[arg-type]


def test_frames_of_a_video_are_those_asked_for(tmp_path: Path) -> None:
    pytest.importorskip("av")
    Video(ramp(20, side=32), 12).save(tmp_path / "a.mp4")
    dataset = open_dataset(tmp_path, frames=3, size=(16, 16), stride=(2, 4), seed=1)
    assert probe(dataset.entries[0]) == Media(20, 32, 32, 12.0)
    for n in range(4):
        sample = dataset[n]
        levels = sample.frames.mean((1, 2, 3))
        # 3 grey levels: what H.264 at crf 10 and its limited range leave of flat frames
        np.testing.assert_allclose(levels, 8 * np.array(sample.indices), atol=3)


def test_a_cut_off_video_is_a_typed_error(tmp_path: Path) -> None:
    pytest.importorskip("av")
    noise = np.random.default_rng(0).integers(0, 256, (12, 64, 64, 3), np.uint8)
    Video(noise, 8).save(tmp_path / "a.mp4")
    whole = (tmp_path / "a.mp4").read_bytes()
    for length in (0, 100, len(whole) // 2):
        (tmp_path / "a.mp4").write_bytes(whole[:length])
        with pytest.raises(InputError) as caught:
            open_dataset(tmp_path, frames=12, size=(64, 64), stride=(1, 1))[0]
        assert caught.value.code in ("data.corrupt", "data.short")


def test_images_are_clips_of_one_frame_and_animations_are_clips(tmp_path: Path) -> None:
    from PIL import Image

    Image.fromarray(ramp(4)[3]).save(tmp_path / "still.png")
    (tmp_path / "moving.webp").write_bytes(b"")
    frames = [Image.fromarray(f) for f in ramp(5)]
    frames[0].save(
        tmp_path / "moving.webp", save_all=True, append_images=frames[1:], duration=125,
        lossless=True,
    )  # fmt: skip
    dataset = open_dataset(tmp_path, frames=1, size=(16, 16), seed=1)
    by_key = {entry.key: entry for entry in dataset.entries}
    assert probe(by_key["still.png"]).frames == 1
    assert probe(by_key["moving.webp"]).frames == 5
    levels = [f[0, 0, 0] for f in read_frames(by_key["moving.webp"], [0, 2, 2, 4])]
    assert levels == [0, 16, 16, 32]
    assert {dataset[n].key for n in range(2)} == set(by_key)


def test_scaling_covers_the_size_and_the_centre_is_kept() -> None:
    frames = np.zeros((1, 20, 60, 3), np.uint8)
    frames[:, :, 20:40] = 200  # the middle third
    out = resize_and_crop(frames, (10, 10))
    assert out.shape == (1, 10, 10, 3)
    assert (out[:, :, 2:-2] == 200).all()  # halved to 10 x 30, whose middle is 10..20
    assert out.min() > 150  # the filter blends the neighbours into the outermost columns only
    assert resize_and_crop(frames, (20, 60)) is frames
    shifted = resize_and_crop(ramp(2), (16, 8))
    assert (shifted[1] == 8).all()  # a crop alone copies pixels
    gradient = np.broadcast_to(np.arange(64, dtype=np.uint8)[None, :, None], (64, 64, 3))[None]
    half = resize_and_crop(np.ascontiguousarray(gradient), (32, 32))[0, 16, 8:24, 0]
    # a linear ramp stays linear under antialiased halving: 2 i + 0.5, rounded
    np.testing.assert_allclose(half, 2 * np.arange(8, 24) + 0.5, atol=0.51)
