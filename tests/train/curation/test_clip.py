"""Where clips come from: folders and tables, and what a bad row says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hummingbird_runtime.errors import InputError
from hummingbird_train.curation.clip import clip_id, make_clip, read_clips


def _files(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())


def test_a_folder_gives_its_videos_at_every_depth_in_order_with_captions(tmp_path: Path) -> None:
    _files(tmp_path, "b.mp4", "a/ü z.WEBM", "a/notes.md", "c.mkv")
    (tmp_path / "b.txt").write_text(" a red ball \n", "utf-8")
    clips = list(read_clips(tmp_path))
    assert [Path(clip.uri).name for clip in clips] == ["b.mp4", "c.mkv", "ü z.WEBM"]
    assert [clip.caption for clip in clips] == ["a red ball", "", ""]
    assert len({clip.id for clip in clips}) == 3
    assert all(len(clip.id) == 32 for clip in clips)


def test_an_id_names_path_span_size_and_time_of_change(tmp_path: Path) -> None:
    base = ("/a.mp4", 0.0, None, 10, 5)
    others = [("/b.mp4", 0.0, None, 10, 5), ("/a.mp4", 0.5, None, 10, 5),
              ("/a.mp4", 0.0, 1.0, 10, 5), ("/a.mp4", 0.0, None, 11, 5),
              ("/a.mp4", 0.0, None, 10, 6)]  # fmt: skip
    assert len({clip_id(*base), *(clip_id(*other) for other in others)}) == 6
    _files(tmp_path, "a.mp4")
    before = make_clip(tmp_path / "a.mp4").id
    assert make_clip(tmp_path / "a.mp4").id == before
    (tmp_path / "a.mp4").write_bytes(b"longer than before")
    assert make_clip(tmp_path / "a.mp4").id != before


def test_a_file_that_is_not_there_is_still_a_clip(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("path,caption\ngone.mp4,a ball\n")
    (clip,) = read_clips(tmp_path / "t.csv")
    assert clip.uri == str(tmp_path / "gone.mp4")


@pytest.mark.parametrize(("suffix", "mark"), [("csv", ","), ("tsv", "\t")])
def test_a_table_gives_path_caption_span_and_everything_else(
    tmp_path: Path, suffix: str, mark: str
) -> None:
    rows = [["video", "text", "start", "end", "source"], ["x/é.mp4", "a ball", "1.5", "3", "web"]]
    table = tmp_path / f"t.{suffix}"
    table.write_text("\n".join(mark.join(row) for row in rows), "utf-8-sig")
    (clip,) = read_clips(table)
    assert (clip.start, clip.end, clip.caption) == (1.5, 3.0, "a ball")
    assert clip.uri == str(tmp_path / "x" / "é.mp4")
    assert clip.meta == {"source": "web"}


def test_webvid_columns_make_its_paths(tmp_path: Path) -> None:
    (tmp_path / "w.csv").write_text("videoid,page_dir,name\n77,001_2,a hummingbird\n")
    (clip,) = read_clips(tmp_path / "w.csv")
    assert clip.uri == str(tmp_path / "videos" / "001_2" / "77.mp4")
    assert clip.caption == "a hummingbird"
    assert clip.meta == {"videoid": "77"}


def test_data_juicer_samples_give_each_video_the_text_of_its_chunk(tmp_path: Path) -> None:
    text = "<__dj__video> a red ball <|__dj__eoc|> <__dj__video><__dj__video> two rings"
    row = {"videos": ["a.mp4", "b.mp4", "c.mp4"], "text": text, "meta": {"k": 1}}
    (tmp_path / "d.jsonl").write_text(json.dumps(row) + "\n\n")
    clips = list(read_clips(tmp_path / "d.jsonl"))
    assert [clip.caption for clip in clips] == ["a red ball", "two rings", "two rings"]
    assert clips[0].meta == {"meta": '{"k": 1}'}


def test_parquet_gives_the_same_clips_as_csv(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    pq.write_table(
        pa.table({"path": ["a.mp4", "b.mp4"], "caption": ["x", None], "start": [0.0, 2.0]}),
        tmp_path / "t.parquet",
    )
    (tmp_path / "t.csv").write_text("path,caption,start\na.mp4,x,0.0\nb.mp4,,2.0\n")
    assert list(read_clips(tmp_path / "t.parquet")) == list(read_clips(tmp_path / "t.csv"))


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("t.csv", "path,caption\na.mp4,x\nb.mp4\n", "row 3"),
        ("t.csv", "path,start\na.mp4,1\nb.mp4,soon\n", "row 3"),
        ("t.csv", "caption\na ball\n", "row 2"),
        ("t.csv", "path,start,end\na.mp4,3,2\n", "span"),
        ("t.csv", "path,start\na.mp4,nan\n", "nan"),
        ("t.jsonl", '{"path": "a.mp4"}\n{"path": \n', "row 2"),
        ("t.jsonl", "[1]\n", "list"),
        ("t.jsonl", '{"path": 3}\n', "path 3"),
        ("t.jsonl", '{"videos": ["a"], "text": "<__dj__video> x <__dj__video> y"}\n', "2 "),
        ("t.parquet", "PAR1 no table", "parquet"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, name: str, text: str, said: str) -> None:
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError) as caught:
        list(read_clips(tmp_path / name))
    assert caught.value.code in ("clip.row", "clip.source")
    assert said in caught.value.message


def test_sources_that_hold_no_clip_are_refused(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("path\n")
    (tmp_path / "x.doc").write_text("")
    for source, code in (
        (tmp_path, "clip.empty"),
        (tmp_path / "t.csv", "clip.empty"),
        (tmp_path / "x.doc", "clip.source"),
        (tmp_path / "none", "clip.source"),
    ):
        with pytest.raises(InputError) as caught:
            list(read_clips(source))
        assert caught.value.code == code
