"""The library of clips: kept whole, listed newest first, checked when opened, damage told apart."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest

from hummingbird_demo import clips
from hummingbird_demo.clips import Library
from hummingbird_demo.device import Device
from hummingbird_demo.sharing import enlarged, file_name, save_copy
from hummingbird_runtime import HummingbirdError, IntegrityError, Video


@pytest.fixture
def library(tmp_path) -> Library:
    return Library(tmp_path / "clips")


def video(seed: int = 1, side: int = 16) -> Video:
    frames = np.random.default_rng(seed).integers(0, 256, (4, side, side, 3)).astype(np.uint8)
    return Video(frames, fps=8, seed=seed, prompt="a red ball", bundle_id="id")


def test_a_clip_comes_back_exactly(library):
    given = video()
    clip = library.add(given, model="tiny", seconds=1.23456)
    again = library.open(library.shelf().clips[0])
    assert np.array_equal(again.frames, given.frames)
    assert (again.fps, again.seed, again.prompt, again.bundle_id) == (8, 1, "a red ball", "id")
    assert (clip.frames, clip.height, clip.width, clip.seconds) == (4, 16, 16, 1.235)


def test_the_poster_is_the_middle_frame(library):
    image = pytest.importorskip("PIL.Image")
    given = video()
    clip = library.add(given, model="tiny", seconds=1)
    with image.open(library.poster(clip)) as poster:
        assert np.array_equal(np.asarray(poster.convert("RGB")), given.frames[2])


def test_the_newest_clip_is_first(library, monkeypatch):
    for i in range(3):
        monkeypatch.setattr(clips.time, "time", lambda i=i: 1_700_000_000 + 10.0 * i)
        library.add(video(i), model="tiny", seconds=1)
    assert [clip.seed for clip in library.shelf().clips] == [2, 1, 0]


def test_a_full_disk_leaves_nothing(library, monkeypatch):
    def full(self, path, **_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Video, "save", full)
    with pytest.raises(HummingbirdError) as caught:
        library.add(video(), model="tiny", seconds=1)
    assert caught.value.code == "output.disk_full"
    assert list(library.root.iterdir()) == []


@pytest.mark.parametrize("how", ["flipped", "cut", "gone", "other"])
def test_damaged_frames_are_refused(library, how):
    clip = library.add(video(), model="tiny", seconds=1)
    path = library.root / clip.id / "clip.npz"
    data = bytearray(path.read_bytes())
    if how == "flipped":
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    elif how == "cut":
        path.write_bytes(data[:100])
    elif how == "gone":
        path.unlink()
    else:
        video(9).save(path)
    with pytest.raises(IntegrityError) as caught:
        library.open(clip)
    assert caught.value.code == "library.damaged"


@pytest.mark.parametrize(
    "change",
    [
        {"seed": "7"}, {"frames": 1.5}, {"schema": 2}, {"id": "../../etc"}, {"extra": 1},
        {"fps": None}, {"prompt": 3}, {"id": "20200101-000000-abcdef"},
    ],
)  # fmt: skip
def test_facts_that_no_release_writes_are_left_out_and_counted(library, change):
    library.add(video(1), model="tiny", seconds=1)
    clip = library.add(video(2), model="tiny", seconds=1)
    path = library.root / clip.id / "clip.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    shelf = library.shelf()
    assert (len(shelf.clips), shelf.damaged) == (1, 1)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 100_000, "\xff"])
def test_facts_that_are_no_object_are_left_out_and_counted(library, text):
    clip = library.add(video(), model="tiny", seconds=1)
    (library.root / clip.id / "clip.json").write_text(text, encoding="latin-1")
    assert library.shelf().damaged == 1


def test_a_clip_too_large_to_be_ours_is_not_read(library):
    clip = library.add(video(), model="tiny", seconds=1)
    path = library.root / clip.id / "clip.json"
    facts = json.loads(path.read_text()) | {"height": 1 << 20, "width": 1 << 20}
    path.write_text(json.dumps(facts))
    with pytest.raises(IntegrityError):
        library.open(library.shelf().clips[0])


def test_a_deleted_clip_is_gone_and_leftovers_are_swept(library):
    keep, drop = (library.add(video(i), model="tiny", seconds=1) for i in (1, 2))
    library.delete(drop)
    assert [clip.id for clip in library.shelf().clips] == [keep.id]
    (library.root / ".hummingbird-1.partial").mkdir()
    (library.root / ".deleted-2").mkdir()
    library.sweep()
    assert [path.name for path in library.root.iterdir()] == [keep.id]


def test_enlarging_repeats_pixels_by_whole_numbers():
    small = enlarged(video(side=60))
    assert small.frames.shape == (4, 480, 480, 3)  # 512 // 60 = 8
    assert np.array_equal(small.frames[:, ::8, ::8], video(side=60).frames)
    assert np.array_equal(small.frames[:, 7::8, 7::8], video(side=60).frames)
    assert enlarged(video(side=300)).frames.shape == (4, 300, 300, 3)


def test_a_saved_copy_is_named_by_its_prompt_and_lies_where_the_device_says(tmp_path):
    class Folder(Device):
        def export_folder(self):
            return tmp_path

        def suffix(self):
            return ".png"

    path = save_copy(video(), Folder(), enlarge=True)
    assert path.parent == tmp_path
    assert path.name.startswith("a-red-ball-1-")
    assert path.stat().st_size > 1000


def test_a_prompt_of_any_characters_makes_a_plain_file_name():
    name = file_name(Video(video().frames, fps=8, prompt="../../a\\b: *?\n \0 " + "x" * 300))
    assert len(name) < 80
    assert not set(name) & set('/\\:*?"<>|\0\n ')
    assert time.strftime("%Y") in name
    assert file_name(Video(video().frames, fps=8, prompt="!!!")).startswith("clip-0-")
