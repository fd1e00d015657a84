"""What a source holds: shards, folders and tables give the same entries, and say what is wrong."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from hummingbird_runtime.errors import InputError
from hummingbird_train.data.entries import Place, read_entries


def array(value: int, frames: int = 2) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.full((frames, 8, 8, 3), value, np.uint8))
    return buffer.getvalue()


def shard(path: Path, members: Mapping[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def test_shards_are_grouped_by_key_and_addressed_by_bytes(tmp_path: Path) -> None:
    shard(
        tmp_path / "b.tar",
        {
            "a/one.txt": b" a red\n ball ",
            "a/one.npy": array(1),
            "a/one.json": b'{"fps": 25, "caption": "never read"}',
            "two.json": b'{"caption": "a box", "fps": null}',
            "two.npy": array(2),
        },
    )
    shard(tmp_path / "a.tar", {"three.npy": array(3)})
    entries = read_entries(tmp_path)
    found = [(e.key, e.caption, e.suffix, e.fps) for e in entries]
    assert found == [
        ("a/three", "", ".npy", None),
        ("b/a/one", "a red ball", ".npy", 25.0),
        ("b/two", "a box", ".npy", None),
    ]
    assert [e.place.read() for e in entries] == [array(3), array(1), array(2)]
    assert read_entries(tmp_path / "b.tar") == entries[1:]
    (tmp_path / "packed").mkdir()
    (tmp_path / "packed" / "clips.jsonl").write_text("{}", "utf-8")
    (tmp_path / "packed" / "shards").mkdir()
    shard(tmp_path / "packed" / "shards" / "shard-000000.tar", {"four.npy": array(4)})
    assert [e.key for e in read_entries(tmp_path / "packed")] == ["shard-000000/four"]


def test_a_folder_pairs_media_with_the_text_beside_them(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "clip.NPY").write_bytes(array(4))
    (tmp_path / "sub" / "clip.txt").write_text("a ring\n", "utf-8")
    (tmp_path / "b.npy").write_bytes(array(5))
    (tmp_path / "notes.md").write_text("no clip", "utf-8")
    found = [(e.key, e.caption) for e in read_entries(tmp_path)]
    assert found == [("b.npy", ""), ("sub/clip.NPY", "a ring")]


@pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl"])
def test_a_folder_with_a_table_takes_the_table(name: str, tmp_path: Path) -> None:
    (tmp_path / "x.npy").write_bytes(array(6))
    (tmp_path / "unlisted.npy").write_bytes(array(7))
    if name.endswith("csv"):
        text = 'file_name,text,fps\nx.npy,"a heart, falling",12\n'
    else:
        text = '{"file_name": "x.npy", "text": "a heart, falling", "fps": 12}\n\n'
    (tmp_path / name).write_text(text, "utf-8")
    (entry,) = read_entries(tmp_path)
    assert (entry.caption, entry.fps, entry.place.read()) == ("a heart, falling", 12.0, array(6))
    assert read_entries(tmp_path / name) == (entry,)


@pytest.mark.parametrize(
    ("name", "data", "code"),
    [
        ("none.csv", None, "data.source"),
        ("a.mp4", b"x", "data.source"),
        ("a.csv", b"path,caption\n", "data.empty"),
        ("a.csv", b"wrong,caption\nx.npy,y\n", "data.row"),
        ("a.csv", b"path,caption\nx.exe,y\n", "data.row"),
        ("a.csv", b"path,caption,fps\nx.npy,y,-1\n", "data.row"),
        ("a.csv", b"path,caption,fps\nx.npy,y,fast\n", "data.row"),
        ("a.csv", b"path,caption\nx.npy,\xff\n", "data.source"),
        ("a.jsonl", b"{\n", "data.source"),
        ("a.jsonl", b"[1]\n", "data.row"),
        ("a.tar", b"no tar" * 200, "data.source"),
    ],
)
def test_what_cannot_be_used_is_named(
    name: str, data: bytes | None, code: str, tmp_path: Path
) -> None:
    if data is not None:
        (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError) as caught:
        read_entries(tmp_path / name)
    assert caught.value.code == code


def test_members_without_a_clip_and_keys_used_twice_are_refused(tmp_path: Path) -> None:
    lonely = shard(tmp_path / "a.tar", {"one.txt": b"a ball"})
    with pytest.raises(InputError, match="one") as caught:
        read_entries(lonely)
    assert caught.value.code == "data.row"
    broken = shard(tmp_path / "b.tar", {"one.npy": array(1), "one.json": b"{"})
    with pytest.raises(InputError) as caught:
        read_entries(broken)
    assert caught.value.code == "data.row"


def test_the_identity_of_a_place_changes_with_its_file(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"one")
    before = Place(path).identity()
    path.write_bytes(b"three")
    assert Place(path).identity() != before
    assert Place(path, 1, 2).read() == b"hr"


def test_json_captions_serve_where_there_is_no_text(tmp_path: Path) -> None:
    facts = json.dumps({"text": "a star", "fps": 8}).encode()
    shard(tmp_path / "a.tar", {"k.json": facts, "k.npy": array(1)})
    assert read_entries(tmp_path)[0].caption == "a star"
