"""The dataset that comes out: read back, equal bytes, resumed, and honest about what failed."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from curation_run import few_clips, make_run, write_clip

from hummingbird_runtime.cancel import CancelToken
from hummingbird_runtime.errors import (
    Cancelled,
    ExecutionError,
    InputError,
    ResourceError,
    UsageError,
)
from hummingbird_train.curation import sink
from hummingbird_train.curation.clip import Clip, make_clip, read_clips
from hummingbird_train.curation.decode import decode
from hummingbird_train.curation.recaption import recaption
from hummingbird_train.curation.recaptioners.rules import RulesRecaptioner
from hummingbird_train.curation.run_folder import RunFolder
from hummingbird_train.curation.shard import ShardWriter, file_sha256
from hummingbird_train.curation.sink import PackConfig, main, pack
from hummingbird_train.curation.stage import FramePlan
from hummingbird_train.curation.video_file import LIMITS, scan_file
from hummingbird_train.data.entries import read_entries

pq = pytest.importorskip("pyarrow.parquet")
pytest.importorskip("av")
CAPTIONS = ["a red box moves, 4k", "two boxes", "a still wall", "a box | a <b>bold</b> one"]
SMALL = PackConfig(shard_bytes=12_000)


def _run(tmp_path: Path, clips: list[Clip] | None = None) -> RunFolder:
    clips = clips or few_clips(tmp_path / "clips", CAPTIONS)
    scores = {
        clip.id: {"sharp": {"var": 5.0 + i}, "probe": {"duration": 0.75, "codec": "h264"}}
        for i, clip in enumerate(clips)
    }
    return make_run(tmp_path / "run", clips, scores, {"sharp.var": {"max": 7.5}})


def _bytes(folder: Path) -> dict[str, bytes]:
    files = (p for p in sorted(folder.rglob("*")) if p.is_file())
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in files}


def test_shards_hold_the_kept_files_byte_for_byte_and_the_loader_reads_them(
    tmp_path: Path,
) -> None:
    run = _run(tmp_path)
    recaption(run, RulesRecaptioner())
    summary = pack(run, tmp_path / "set", SMALL)
    kept = {clip.id: clip for clip in list(run.clips())[:3]}
    assert (summary.clips, summary.failed) == (3, 0)
    seen: dict[str, dict[str, bytes]] = {}
    for shard in summary.shards:
        path = tmp_path / "set" / "shards" / shard.name
        assert file_sha256(path) == shard.sha256
        assert path.stat().st_size == shard.bytes <= 12_000 or shard.clips == 1
        with tarfile.open(path) as tar:
            for member in tar:
                key, _, suffix = member.name.partition(".")
                stream = tar.extractfile(member)
                assert stream is not None
                seen.setdefault(key, {})[suffix] = stream.read()
                assert (member.mtime, member.uid, member.uname) == (0, 0, "")
    assert list(seen) == sorted(kept)
    for key, parts in seen.items():
        assert parts["mp4"] == Path(kept[key].uri).read_bytes()
        facts = json.loads(parts["json"])
        assert facts["original_caption"] == kept[key].caption
        assert facts["scores"]["sharp.var"] <= 7.5
        assert parts["txt"].decode().strip() == facts["caption"]
    assert {p["txt"] for p in seen.values()} >= {b"A red box moves.\n", b"Two boxes.\n"}
    entries = [
        entry
        for shard in summary.shards
        for entry in read_entries(tmp_path / "set" / "shards" / shard.name)
    ]
    assert {entry.caption for entry in entries} >= {"A red box moves.", "Two boxes."}
    assert all(entry.suffix == ".mp4" for entry in entries)


def test_tables_beside_the_shards_say_the_same(tmp_path: Path) -> None:
    run = _run(tmp_path)
    summary = pack(run, tmp_path / "set", PackConfig(licence="CC | 0", source="made here"))
    folder = tmp_path / "set"
    rows = pq.read_table(folder / "manifest.parquet").to_pylist()
    assert [row["clip_id"] for row in rows] == sorted(c.id for c in list(run.clips())[:3])
    for row in rows:
        assert row["sha256"] == hashlib.sha256(Path(row["uri"]).read_bytes()).hexdigest()
        assert json.loads(row["scores"])["probe.codec"] == "h264"
    shards = json.loads((folder / "shards.json").read_text())["shards"]
    assert shards[0]["sha256"] == summary.shards[0].sha256
    again = list(read_clips(folder / "clips.jsonl"))  # data-juicer's form, read by our own reader
    assert [clip.uri for clip in again] == [row["uri"] for row in rows]
    assert [clip.caption for clip in again] == [row["caption"] for row in rows]
    card = (folder / "README.md").read_text("utf-8")
    assert "| sharp.var |  | 7.5 |" in card
    assert "| sharp.var > 7.5 | 1 |" in card
    assert "| licence of the clips | CC \\| 0 |" in card
    assert 'license: "CC | 0"' in card
    assert "| kept by the rules | 3 (75.0%) |" in card
    assert "█" in card
    assert not (folder / ".rows").exists()


def test_two_packs_are_equal_to_the_byte_and_a_stopped_one_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = _run(tmp_path)
    pack(run, tmp_path / "one", SMALL)
    token, read = CancelToken(), sink.clip_bytes
    taken: list[str] = []

    def stops(clip: Clip, *rest: Any) -> tuple[str, bytes]:
        taken.append(clip.id)
        if len(taken) == 3:
            token.cancel()
        return read(clip, *rest)

    monkeypatch.setattr(sink, "clip_bytes", stops)
    with pytest.raises(Cancelled):
        pack(run, tmp_path / "two", PackConfig(shard_bytes=1), cancel=token)
    assert not (tmp_path / "two" / "manifest.parquet").exists()
    whole = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "two" / "shards").iterdir()}
    assert whole
    taken.clear()
    pack(run, tmp_path / "two", PackConfig(shard_bytes=1))
    assert set(taken) < {clip.id for clip in run.clips()}
    for name, when in whole.items():
        assert (tmp_path / "two" / "shards" / name).stat().st_mtime_ns == when
    pack(run, tmp_path / "three", PackConfig(shard_bytes=1))
    assert _bytes(tmp_path / "two") == _bytes(tmp_path / "three")
    assert len(list((tmp_path / "three" / "shards").iterdir())) == 3  # one clip a shard at least


def test_a_damaged_shard_of_a_stopped_pack_is_written_again(tmp_path: Path) -> None:
    run = _run(tmp_path)
    pack(run, tmp_path / "one", PackConfig(shard_bytes=1))
    whole = _bytes(tmp_path / "one")

    def fails(*_: object) -> str:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sink, "dataset_card", fails)
        with pytest.raises(KeyboardInterrupt):
            pack(run, tmp_path / "two", PackConfig(shard_bytes=1))
    shard = tmp_path / "two" / "shards" / "shard-000001.tar"
    data = bytearray(shard.read_bytes())
    data[700] ^= 1
    shard.write_bytes(data)
    pack(run, tmp_path / "two", PackConfig(shard_bytes=1))
    assert _bytes(tmp_path / "two") == whole


def test_a_folder_of_another_pack_is_refused_unless_forced(tmp_path: Path) -> None:
    run = _run(tmp_path)
    pack(run, tmp_path / "set", SMALL)
    with pytest.raises(UsageError, match="exists already"):
        pack(run, tmp_path / "set", SMALL)
    (tmp_path / "set" / "manifest.parquet").unlink()
    with pytest.raises(UsageError, match="other clips, captions or options"):
        pack(run, tmp_path / "set", PackConfig(shard_bytes=5))
    pack(run, tmp_path / "set", PackConfig(shard_bytes=5), overwrite=True)
    assert len(list((tmp_path / "set" / "shards").iterdir())) == 3
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").touch()
    with pytest.raises(UsageError, match="no pack wrote"):
        pack(run, tmp_path / "mine", overwrite=True)
    assert (tmp_path / "mine" / "thesis.txt").exists()


def test_a_clip_that_changed_or_went_away_is_a_failure_and_the_rest_goes_on(
    tmp_path: Path,
) -> None:
    run = _run(tmp_path)
    clips = list(run.clips())
    write_clip(Path(clips[0].uri), seed=9)
    os.utime(clips[0].uri, ns=(1, 1))
    Path(clips[1].uri).unlink()
    summary = pack(run, tmp_path / "set")
    assert (summary.clips, summary.failed) == (1, 2)
    lines = (tmp_path / "set" / "failures.jsonl").read_text().splitlines()
    assert {json.loads(line)["clip_id"] for line in lines} == {clips[0].id, clips[1].id}
    assert {json.loads(line)["code"] for line in lines} == {"pack.changed"}
    Path(clips[2].uri).unlink()
    with pytest.raises(ExecutionError, match="each of 3"):
        pack(run, tmp_path / "none")


def test_a_full_disk_is_one_typed_error_and_finished_shards_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = _run(tmp_path)
    add, calls = ShardWriter.add, [0]

    def full(self: ShardWriter, key: str, parts: dict[str, bytes]) -> None:
        calls[0] += 1
        if calls[0] == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        add(self, key, parts)

    monkeypatch.setattr(ShardWriter, "add", full)
    with pytest.raises(ResourceError) as caught:
        pack(run, tmp_path / "set", PackConfig(shard_bytes=1))
    assert caught.value.code == "output.disk_full"
    assert [p.name for p in (tmp_path / "set" / "shards").iterdir()] == ["shard-000000.tar"]
    assert pack(run, tmp_path / "set", PackConfig(shard_bytes=1)).clips == 3


def test_a_span_is_cut_out_at_its_exact_frames(tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    path = write_clip(tmp_path / "clips" / "long.mp4", seed=3, frames=16)
    clips = [make_clip(path, start=0.5, end=1.25, caption="a box"), make_clip(path, caption="all")]
    run = _run(tmp_path, clips)
    pack(run, tmp_path / "set")
    with tarfile.open(tmp_path / "set" / "shards" / "shard-000000.tar") as tar:
        tar.extractall(tmp_path / "out", filter="data")
    span = scan_file(make_clip(tmp_path / "out" / f"{clips[0].id}.mp4"), LIMITS).info
    assert (span.frames, span.fps, span.width) == (6, pytest.approx(8), 32)
    assert (tmp_path / "out" / f"{clips[1].id}.mp4").read_bytes() == path.read_bytes()
    want = decode(clips[0], [FramePlan()]).of(FramePlan()).astype(float)
    got = decode(make_clip(tmp_path / "out" / f"{clips[0].id}.mp4"), [FramePlan()]).of(FramePlan())
    assert want.shape == got.shape
    # a second lossy pass at quality 16: single pixels stray, frames do not
    assert abs(want - got).mean(axis=(1, 2, 3)).max() < 3.0


def test_nothing_kept_is_said(tmp_path: Path) -> None:
    clips = few_clips(tmp_path / "clips", ["a box"])
    scores = {clips[0].id: {"sharp": {"var": 9.0}}}
    run = make_run(tmp_path / "run", clips, scores, {"sharp.var": {"max": 1.0}})
    with pytest.raises(InputError, match="keeps no clip"):
        pack(run, tmp_path / "set")


def test_the_verb_prints_what_was_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = _run(tmp_path)
    words = [str(run.path), "-o", str(tmp_path / "set"), "--shard-mb", "0.01"]
    assert main(words) == 0
    assert "3 clips in" in capsys.readouterr().out
    with pytest.raises(UsageError):
        main(words)
    assert main([*words, "--force"]) == 0


def test_members_depend_on_nothing_but_their_bytes(tmp_path: Path) -> None:
    def write(name: str) -> Callable[[], bytes]:
        with ShardWriter(tmp_path / name) as shard:
            shard.add("a" * 32, {".mp4": b"x" * 513, ".txt": b""})
        facts = shard.facts(name)
        data = (tmp_path / name).read_bytes()
        assert facts.sha256 == hashlib.sha256(data).hexdigest()
        assert facts.bytes == len(data)
        return lambda: data

    assert write("one.tar")() == write("two.tar")()
