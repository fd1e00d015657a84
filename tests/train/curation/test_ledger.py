"""The ledger: one row a key, whole parts or none, an index that can always be made again."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import sqlite3
from pathlib import Path

import pytest

pytest.importorskip("pyarrow")

import pyarrow as pa
import pyarrow.parquet as pq
from disk_calls import watched

from hummingbird_runtime.errors import (
    ExecutionError,
    InputError,
    IntegrityError,
    ResourceError,
    UsageError,
)
from hummingbird_train.curation import ledger_parts
from hummingbird_train.curation.ledger import Ledger
from hummingbird_train.curation.row import Row, plain_scores


def row(number: int, stage: str = "sharp", status: str = "ok", **changes) -> Row:
    scores = {"x": number / 7, "b": True, "text": "ü"} if status == "ok" else {}
    made = Row(
        f"{number:032x}", f"/videos/{number}.mp4", stage, 1, "cafe", status, scores, seconds=0.5
    )
    return dataclasses.replace(made, **changes)


def filled(folder: Path, parts: int = 4, rows: int = 5) -> bytes:
    with Ledger.open(folder, write=True) as ledger:
        for part in range(parts):
            ledger.append([row(part * rows + i) for i in range(rows)])
        return ledger.canonical()


def part_files(folder: Path) -> list[Path]:
    return sorted((folder / "ledger").glob("part-*.parquet"))


def test_rows_come_back_equal_and_sorted(tmp_path: Path) -> None:
    rows = [row(3), row(1, error="a\nb"), row(1, "black", "failed", error_code="a.b"), row(2)]
    with Ledger.open(tmp_path, write=True) as ledger:
        ledger.append(rows)
    with Ledger.open(tmp_path) as ledger:
        assert list(ledger.rows()) == sorted(rows, key=lambda r: r.key)
        assert ledger.done() == {r.key for r in rows}
        assert ledger.notes == []


def test_a_path_that_is_no_utf8_comes_back_equal(tmp_path: Path) -> None:
    names = [os.fsdecode(b"/v/\xff\xfe.mp4"), "/v/ünï\n-.mp4", "bytes:%41", "/v/100%.mp4"]
    with Ledger.open(tmp_path, write=True) as ledger:
        ledger.append([row(i, uri=uri) for i, uri in enumerate(names)])
        assert [r.uri for r in ledger.rows()] == names
        assert len(ledger.canonical().splitlines()) == 4


def test_canonical_bytes_do_not_depend_on_order_parts_or_timings(tmp_path: Path) -> None:
    rows = [row(number, stage) for number in range(12) for stage in ("a", "b")]
    with _made(tmp_path / "one") as one:
        one.append(rows)
        expected = one.canonical()
    with _made(tmp_path / "two") as two:
        for r in reversed(rows):
            two.append([dataclasses.replace(r, seconds=9.0, decode_seconds=1.0)])
        assert two.canonical() == expected
        assert two.merge(small=3) == 24
        assert two.canonical() == expected
    assert b"seconds" not in expected
    changed = [dataclasses.replace(rows[0], scores={"x": 1e-9}), *rows[1:]]
    with _made(tmp_path / "three") as three:
        three.append(changed)
        assert three.canonical() != expected


def _made(folder: Path) -> Ledger:
    folder.mkdir()
    return Ledger.open(folder, write=True)


def test_a_key_is_ok_once(tmp_path: Path) -> None:
    with Ledger.open(tmp_path, write=True) as ledger:
        ledger.append([row(1)])
        with pytest.raises(IntegrityError) as caught:
            ledger.append([row(2), row(1)])
        assert caught.value.code == "ledger.doubled"
        with pytest.raises(IntegrityError):
            ledger.append([row(3), row(3)])
        assert ledger.done() == {row(1).key}  # nothing of a refused batch was written
        ledger.append([row(1, parameters="beef"), row(1, stage_version=2), row(1, "other")])
        assert len(ledger.done()) == 4


def test_a_later_row_counts_in_stead_of_a_failed_or_skipped_one(tmp_path: Path) -> None:
    with Ledger.open(tmp_path, write=True) as ledger:
        ledger.append([row(1, status="failed"), row(2, status="skipped")])
        ledger.append([row(1), row(2)])
        assert [r.status for r in ledger.rows()] == ["ok", "ok"]
        assert ledger.stored_rows() == 4
        known = ledger.lookup([row(1).clip_id])[row(1).clip_id]
        assert known[("sharp", 1, "cafe")].status == "ok"
        ledger.merge(small=1)
        assert ledger.stored_rows() == 2
    with Ledger.open(tmp_path, write=True) as ledger, pytest.raises(IntegrityError):
        ledger.append([row(1)])


def test_scores_take_the_stages_that_count(tmp_path: Path) -> None:
    with Ledger.open(tmp_path, write=True) as ledger:
        ledger.append([row(1), row(1, "black", "failed")])
        ledger.append([row(1, parameters="beef", scores={"x": 2.0})])
        newest = ledger.scores()
        assert newest == {row(1).clip_id: {"sharp.x": 2.0}}
        first = ledger.scores({"sharp": (1, "cafe")})
        assert first == {row(1).clip_id: {"sharp.x": 1 / 7, "sharp.b": True, "sharp.text": "ü"}}
        table = {"stages": [{"name": "sharp", "version": 1, "hash": "cafe"}]}
        (tmp_path / "stages.json").write_text(json.dumps(table))
        assert ledger.scores() == first  # the run's own record is asked before the newest row


def test_a_second_writer_is_refused_and_readers_are_not(tmp_path: Path) -> None:
    with Ledger.open(tmp_path, write=True) as ledger:
        ledger.append([row(1)])
        with pytest.raises(ResourceError) as caught:
            Ledger.open(tmp_path, write=True)
        assert caught.value.code == "ledger.busy"
        with Ledger.open(tmp_path) as reader:
            assert reader.done() == {row(1).key}
            with pytest.raises(UsageError):
                reader.append([row(2)])
    Ledger.open(tmp_path, write=True).close()  # the lock went with its holder


@pytest.mark.parametrize("damage", ["torn", "flipped", "empty", "foreign", "not parquet"])
def test_a_damaged_part_is_set_aside_and_only_its_rows_are_gone(
    tmp_path: Path, damage: str
) -> None:
    filled(tmp_path)
    path = part_files(tmp_path)[1]
    data = path.read_bytes()
    if damage == "torn":
        path.write_bytes(data[: len(data) // 2])
    elif damage == "flipped":
        path.write_bytes(data[:100] + bytes([data[100] ^ 1]) + data[101:])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "foreign":
        path.unlink()
        path = path.with_name("foreign.parquet")
        pq.write_table(pa.table({"a": [1]}), path)
    else:
        path.unlink()
        path = _signed(path.parent, b"no parquet at all")
    with Ledger.open(tmp_path) as reader:
        assert len(reader.done()) == 15
        assert len(reader.notes) == 1
        assert path.name in reader.notes[0]
    with Ledger.open(tmp_path, write=True) as ledger:
        assert len(ledger.notes) == 1
        assert not path.exists()
        assert path.with_name(path.name + ".damaged").exists()
        assert ledger.lookup([row(5).clip_id]) == {}  # the index has forgotten them too
        ledger.append([row(number) for number in range(5, 10)])
        assert len(ledger.done()) == 20
    with Ledger.open(tmp_path, write=True) as ledger:
        assert ledger.notes == []


def _signed(folder: Path, data: bytes) -> Path:
    import hashlib

    path = folder / f"part-00000009-{hashlib.blake2b(data, digest_size=16).hexdigest()}.parquet"
    path.write_bytes(data)
    return path


def test_every_single_flipped_bit_of_a_part_is_seen(tmp_path: Path) -> None:
    filled(tmp_path, parts=1)
    (path,) = part_files(tmp_path)
    data = path.read_bytes()
    for place in range(0, len(data), 37):
        path.write_bytes(data[:place] + bytes([data[place] ^ 16]) + data[place + 1 :])
        with pytest.raises(ledger_parts.DamagedPart):
            ledger_parts.read_part(path)


@pytest.mark.parametrize("state", ["deleted", "garbage", "empty", "of another run", "behind"])
def test_the_index_is_made_again_from_the_parts(tmp_path: Path, state: str) -> None:
    run, other = tmp_path / "run", tmp_path / "other"
    run.mkdir()
    other.mkdir()
    index = run / "ledger" / "index.sqlite"
    expected = filled(run, parts=2)
    stale = index.read_bytes()
    with Ledger.open(run, write=True) as ledger:
        ledger.append([row(100)])
        expected = ledger.canonical()
    if state == "deleted":
        index.unlink()
    elif state == "garbage":
        index.write_bytes(b"\0garbage" * 999)
    elif state == "empty":
        index.write_bytes(b"")
    elif state == "behind":
        index.write_bytes(stale)
    else:
        filled(other, parts=7)
        index.write_bytes((other / "ledger" / "index.sqlite").read_bytes())
    with Ledger.open(run, write=True) as ledger:
        clips = [row(number).clip_id for number in (*range(35), 100)]
        assert sorted(ledger.lookup(clips)) == [clips[i] for i in (*range(10), 35)]
        with pytest.raises(IntegrityError):
            ledger.append([row(100)])
        assert ledger.canonical() == expected


def test_a_part_written_right_before_a_crash_is_indexed_on_opening(tmp_path: Path) -> None:
    filled(tmp_path, parts=1)
    ledger_parts.write_part(tmp_path / "ledger", 2, ledger_parts.table_of([row(50)], 2))
    (tmp_path / "ledger" / ".hummingbird-abc.partial.parquet").write_bytes(b"half")
    with Ledger.open(tmp_path, write=True) as ledger:
        assert row(50).clip_id in ledger.lookup([row(50).clip_id])
        ledger.append([row(51)])
        assert len(ledger.done()) == 7
    assert not list((tmp_path / "ledger").glob(".hummingbird-*"))


def test_parts_that_a_merge_left_behind_do_not_count(tmp_path: Path) -> None:
    expected = filled(tmp_path)
    old = {path.name: path.read_bytes() for path in part_files(tmp_path)}
    with Ledger.open(tmp_path, write=True) as ledger:
        assert ledger.merge(small=2) == 4
    assert len(part_files(tmp_path)) == 1
    for name, data in old.items():
        (tmp_path / "ledger" / name).write_bytes(data)
    with Ledger.open(tmp_path) as reader:
        assert reader.canonical() == expected
        assert reader.stored_rows() == 20
    with Ledger.open(tmp_path, write=True) as ledger:
        assert ledger.canonical() == expected
    assert len(part_files(tmp_path)) == 1


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EROFS])
def test_an_append_that_fails_at_any_step_can_be_made_again(tmp_path: Path, number: int) -> None:
    codes = {errno.ENOSPC: "disk_full", errno.EIO: "write_failed", errno.EROFS: "permission"}
    before = filled(tmp_path, parts=1)
    for failing in range(1, 30):

        def act(n: int, name: str, failing: int = failing) -> None:
            if n == failing:
                raise OSError(number, os.strerror(number))

        error = None
        with Ledger.open(tmp_path, write=True) as ledger:
            with watched(tmp_path, act) as calls:
                try:
                    ledger.append([row(100 + failing)])
                except ResourceError as caught:
                    error = caught
            if failing > len(calls):
                break
            assert error.code == f"output.{codes[number]}"
        with Ledger.open(tmp_path, write=True) as ledger:
            if row(100 + failing).key not in ledger.done():
                ledger.append([row(100 + failing)])
            after = ledger.canonical()
        assert len(after) > len(before)
        before = after
    assert error is None
    assert failing > 4


def test_a_full_disk_under_the_index_is_a_typed_error(tmp_path: Path) -> None:
    with Ledger.open(tmp_path, write=True) as ledger:

        def full(*arguments) -> None:
            error = sqlite3.OperationalError("database or disk is full")
            error.sqlite_errorname = "SQLITE_FULL"
            raise error

        ledger._index.add = full
        with pytest.raises(ResourceError) as caught:
            ledger.append([row(1)])
        assert caught.value.code == "output.disk_full"
    with Ledger.open(tmp_path, write=True) as ledger:
        assert ledger.done() == {row(1).key}  # the part was written before


def test_a_folder_without_ledger_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        Ledger.open(tmp_path)
    assert caught.value.code == "ledger.missing"
    with pytest.raises(ResourceError) as caught:
        Ledger.open(tmp_path / "no" / "such", write=True)
    assert caught.value.code == "output.folder_missing"


def test_an_empty_ledger_has_nothing(tmp_path: Path) -> None:
    with Ledger.open(tmp_path, write=True) as ledger:
        ledger.append([])
        assert (ledger.canonical(), ledger.done(), ledger.scores()) == (b"", set(), {})
    assert part_files(tmp_path) == []


def test_scores_are_plain_finite_values() -> None:
    import numpy as np

    given = {"f": np.float32(0.5), "i": np.int64(3), "b": np.bool_(True), "t": "x\udc80"}
    plain = plain_scores(given)
    assert plain == {"f": 0.5, "i": 3, "b": True, "t": "x\\udc80"}
    assert [type(value) for value in plain.values()] == [float, int, bool, str]
    for bad in (float("nan"), np.float32("inf"), None, [1], np.zeros(2)):
        with pytest.raises(ExecutionError) as caught:
            plain_scores({"x": bad})
        assert caught.value.code == "curation.score"
