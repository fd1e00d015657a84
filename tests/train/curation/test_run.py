"""Scoring: everything once, faults as rows, resume by clip and stage; the cut on stored scores."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

pytest.importorskip("pyarrow")
pytest.importorskip("av")

import inline_engine
from curation_source import write_source
from fake_stages import BUILDER, build

from hummingbird_runtime.cancel import CancelToken
from hummingbird_runtime.errors import (
    Cancelled,
    ExecutionError,
    InputError,
    ResourceError,
    UsageError,
)
from hummingbird_train.curation import run as scoring_run
from hummingbird_train.curation.config import CurationConfig, load_config
from hummingbird_train.curation.cut import decide, funnel_text, write_cut
from hummingbird_train.curation.ledger import Known, Ledger
from hummingbird_train.curation.rules import Rules
from hummingbird_train.curation.run import ScoreOptions, Tally, plan_clip
from hummingbird_train.curation.run_folder import RunFolder
from hummingbird_train.curation.scoring import Task, stage_keys

posix = pytest.mark.skipif(os.name == "nt", reason="POSIX signals and limits")


def config(**stages: dict) -> CurationConfig:
    return CurationConfig(stages, {}, BUILDER, "# a test\n")


def score(*arguments, **options):
    """Score in this process; ``processes`` below scores as users do."""
    return scoring_run.score(*arguments, engine=inline_engine.score, **options)


def processes(*arguments, **options):
    return scoring_run.score(*arguments, **options)


def statuses(run: Path) -> dict[str, list[str]]:
    """File name -> status or error code of first, second, third."""
    found: dict[str, list[str]] = {}
    with Ledger.open(run) as ledger:
        for row in ledger.rows():
            word = row.error_code if row.status == "failed" else row.status
            found.setdefault(Path(row.uri).name, []).append(word)
    return dict(sorted(found.items()))


def canonical(run: Path) -> bytes:
    with Ledger.open(run) as ledger:
        return ledger.canonical()


@posix
def test_every_fault_is_a_row_and_the_run_goes_on(tmp_path: Path) -> None:
    captions = ["ok", "crash", "hang", "hog", "raise", "nan", "reject", "grow", "good"]
    source, run = write_source(tmp_path / "s", captions), tmp_path / "run"
    summary = processes(source, run, config(), ScoreOptions(seconds=0.8))
    assert (summary.total, summary.scored, summary.failed) == (9, 9, 6)
    assert statuses(run) == {
        "000.mp4": ["ok", "ok", "ok"],
        "001.mp4": ["ok", "curation.crashed", "skipped"],
        "002.mp4": ["ok", "curation.time_limit", "skipped"],
        "003.mp4": ["ok", "curation.memory", "skipped"],
        "004.mp4": ["ok", "clip.corrupt", "skipped"],
        "005.mp4": ["ok", "curation.score", "skipped"],
        "006.mp4": ["ok", "skipped", "skipped"],
        "007.mp4": ["curation.source_changed"] * 3,
        "008.mp4": ["ok", "ok", "ok"],
    }
    with Ledger.open(run) as ledger:
        texts = {Path(row.uri).name: row.error for row in ledger.rows() if row.stage == "second"}
    assert texts["001.mp4"] == "the process ended by SIGSEGV, in second"
    assert texts["002.mp4"] == "no result within 0.8 s, in second"
    assert texts["006.mp4"] == "first: captioned so"


def test_a_second_call_measures_nothing_and_changes_nothing(tmp_path: Path) -> None:
    source, run = write_source(tmp_path / "s", ["a", "raise", "reject"]), tmp_path / "run"
    score(source, run, config())
    before = canonical(run)
    tallies: list[Tally] = []
    summary = score(source, run, config(), watch=tallies.append)
    assert (summary.total, summary.scored, tallies) == (3, 0, [])
    assert canonical(run) == before


def test_a_run_in_pieces_equals_one_in_a_go_at_any_width(tmp_path: Path) -> None:
    source = write_source(tmp_path / "s", [*"abcdefgh", "raise", "reject"])
    score(source, tmp_path / "whole", config())
    for wanted in (1, 9):
        token = CancelToken()

        def stop(tally: Tally, token: CancelToken = token, wanted: int = wanted) -> None:
            if tally.ready >= wanted:
                token.cancel()

        with pytest.raises(Cancelled):
            processes(
                source, tmp_path / "pieces", config(), ScoreOptions(processes=2),
                token=token, watch=stop,
            )  # fmt: skip
    summary = processes(source, tmp_path / "pieces", config(), ScoreOptions(processes=2))
    assert summary.scored < 10
    assert canonical(tmp_path / "pieces") == canonical(tmp_path / "whole")
    with Ledger.open(tmp_path / "pieces") as ledger:
        assert ledger.stored_rows() == 30


def test_a_changed_parameter_measures_that_stage_and_what_reads_it(tmp_path: Path) -> None:
    source, run = write_source(tmp_path / "s", ["a", "b"]), tmp_path / "run"
    score(source, run, config())
    score(source, run, config(first={"scale": 2.0}, second={}, third={}))
    with Ledger.open(run) as ledger:
        assert ledger.stored_rows() == 2 * (3 + 1)
        means = {of["first.mean"] for of in ledger.scores().values()}
        score(source, run, config(first={}, second={"delay": 0.001}, third={}))
        assert ledger.stored_rows() == 2 * (3 + 1 + 2)
        assert {of["first.mean"] * 2 for of in ledger.scores().values()} == means


def test_failed_rows_are_measured_again_on_request_only(tmp_path: Path) -> None:
    source, run = write_source(tmp_path / "s", ["a", "b"]), tmp_path / "run"
    video = (source / "001.mp4").read_bytes()
    stamp = (source / "001.mp4").stat().st_mtime_ns
    (source / "001.mp4").write_bytes(b"\0" * len(video))
    os.utime(source / "001.mp4", ns=(stamp, stamp))
    assert score(source, run, config()).failed == 1
    (source / "001.mp4").write_bytes(video)
    os.utime(source / "001.mp4", ns=(stamp, stamp))  # as after a disk was mounted again
    assert score(source, run, config()).scored == 0
    assert statuses(run)["001.mp4"][0] == "clip.not_video"
    assert score(source, run, config(), ScoreOptions(retry_failed=True)).scored == 1
    assert statuses(run) == {"000.mp4": ["ok"] * 3, "001.mp4": ["ok"] * 3}


def test_a_changed_file_is_a_new_clip(tmp_path: Path) -> None:
    source, run = write_source(tmp_path / "s", ["a", "b"]), tmp_path / "run"
    score(source, run, config())
    os.utime(source / "000.mp4", ns=(2 * 10**18, 2 * 10**18))
    assert score(source, run, config()).scored == 1
    assert len({clip.id for clip in RunFolder(run).clips()}) == 2
    with Ledger.open(run) as ledger:
        assert len(ledger.scores()) == 3  # the old one is still known, and no longer listed
    assert len(decide(RunFolder(run), Rules()).decisions) == 2


def test_rejected_clips_are_measured_to_the_end_on_request(tmp_path: Path) -> None:
    source, run = write_source(tmp_path / "s", ["a", "reject"]), tmp_path / "run"
    score(source, run, config())
    assert statuses(run)["001.mp4"] == ["ok", "skipped", "skipped"]
    assert score(source, run, config(), ScoreOptions(ignore_skips=True)).scored == 1
    assert statuses(run)["001.mp4"] == ["ok", "ok", "ok"]


def known(status: str, cause: str = "", reason: str = "") -> Known:
    return Known(status, cause, reason, {"frames": 3} if status == "ok" else {})


def planned(**rows: Known) -> tuple[tuple[str, ...], dict[str, str]]:
    """(stages to run, reason by stage of what is settled without running)."""
    from hummingbird_train.curation.clip import Clip

    stages = build({})
    keys = stage_keys(stages)
    have = {keys[name]: value for name, value in rows.items()}
    task, settled = plan_clip(Clip("0" * 32, "/v.mp4"), have, stages, keys)
    return task.stages, {row.stage: row.error for row in settled}


def test_what_is_left_of_a_clip() -> None:
    ok, fails = known("ok"), known("failed", "clip.corrupt")
    reject = known("skipped", "clip.rejected", "first: dark")
    lacks = known("skipped", "stage.unscored", "needs second")
    assert planned() == (("first", "second", "third"), {})
    assert planned(first=ok, second=ok, third=ok) == ((), {})
    assert planned(first=ok) == (("second", "third"), {})
    assert planned(first=ok, second=reject, third=reject) == ((), {})
    assert planned(first=ok, second=reject) == ((), {"third": "first: dark"})
    assert planned(second=reject, third=reject) == (("first", "second", "third"), {})
    assert planned(first=ok, second=fails, third=lacks) == ((), {})
    assert planned(first=ok, second=fails) == ((), {"third": "needs second"})
    assert planned(first=ok, second=ok, third=lacks) == (("third",), {})
    assert planned(first=fails, second=reject, third=reject) == (("second", "third"), {})


def test_a_missing_package_ends_the_run_instead_of_failing_every_clip(tmp_path: Path) -> None:
    source, run = write_source(tmp_path / "s", ["a", "extra", "b"]), tmp_path / "run"
    with pytest.raises(ResourceError) as caught:
        score(source, run, config())
    assert caught.value.code == "extra.missing"
    assert "001.mp4" not in statuses(run)


def test_nothing_but_failures_is_an_error(tmp_path: Path) -> None:
    source = tmp_path / "s"
    source.mkdir()
    (source / "a.mp4").write_bytes(b"no video")
    with pytest.raises(ExecutionError) as caught:
        score(source, tmp_path / "run", config())
    assert caught.value.code == "curation.all_failed"
    assert statuses(tmp_path / "run") == {"a.mp4": ["clip.not_video"] * 2 + ["skipped"]}


def test_the_same_clip_listed_twice_is_one_clip(tmp_path: Path) -> None:
    source = write_source(tmp_path / "s", ["a", "b"])
    table = source / "list.csv"
    table.write_text("path,caption\n000.mp4,a\n001.mp4,b\n000.mp4,again\n")
    summary = score(table, tmp_path / "run", config())
    assert (summary.total, summary.twice, summary.scored) == (2, 1, 2)


def test_cancelling_a_hanging_clip_is_quick_and_keeps_what_is_done(tmp_path: Path) -> None:
    source, run = write_source(tmp_path / "s", ["a", "hang"]), tmp_path / "run"
    token = CancelToken()

    def stop_soon(tally: Tally) -> None:
        threading.Timer(0.3, token.cancel).start()

    began = time.monotonic()
    with pytest.raises(Cancelled):
        processes(source, run, config(), token=token, watch=stop_soon)
    assert time.monotonic() - began < 60
    assert statuses(run) == {"000.mp4": ["ok"] * 3}


def test_wrong_folders_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    source, other = write_source(tmp_path / "s", ["a"]), tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("mine")
    with pytest.raises(UsageError) as caught:
        score(source, other, config())
    assert caught.value.code == "curation.not_a_run"
    assert [path.name for path in other.iterdir()] == ["thesis.txt"]
    with pytest.raises(InputError):
        score(tmp_path / "nothing", tmp_path / "run", config())
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError):
        score(tmp_path / "empty", tmp_path / "run", config())
    assert not (tmp_path / "run").exists()
    score(source, tmp_path / "run", config())
    with pytest.raises(UsageError) as caught:
        score(write_source(tmp_path / "t", ["a"]), tmp_path / "run", config())
    assert caught.value.code == "curation.other_source"


@pytest.mark.parametrize("builder", ["fake_stages", "fake_stages:nothing", "no.module:build"])
def test_a_wrong_builder_is_named(tmp_path: Path, builder: str) -> None:
    source = write_source(tmp_path / "s", ["a"])
    with pytest.raises(UsageError) as caught:
        score(source, tmp_path / "run", CurationConfig({}, {}, builder, ""))
    assert caught.value.code == "curation.builder"


def test_a_worker_that_cannot_start_says_why(tmp_path: Path) -> None:
    source = write_source(tmp_path / "s", ["a"])
    with pytest.raises(ExecutionError) as caught:
        processes(source, tmp_path / "run", config(), ScoreOptions(memory=1 << 20))
    assert caught.value.code == "curation.worker"


def test_a_clip_survives_the_way_to_another_process() -> None:
    from hummingbird_train.curation.clip import Clip

    clip = Clip("0" * 32, os.fsdecode(b"/v/\xff\n\x00x.mp4"), 1.5, None, "ü\n", {"a": "b"})
    task = Task(clip, ("a", "b"), {"a": {"x": 0.1, "t": "ü", "b": True}}, ("c",))
    assert Task.from_json(task.to_json()) == task
    assert task.to_json().isascii()


@pytest.mark.parametrize(
    "text",
    ["[stage.probe]", "stages = 3", "[stages]\nprobe = 1", "rules = []", "= broken", "\udcff"],
)
def test_a_wrong_configuration_is_an_input_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "c.toml"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(InputError) as caught:
        load_config(path)
    assert caught.value.code == "curation.config"
    with pytest.raises(InputError):
        load_config(tmp_path / "none.toml")


def cut_run(tmp_path: Path, captions: list[str]) -> RunFolder:
    score(write_source(tmp_path / "s", captions), tmp_path / "run", config())
    return RunFolder(tmp_path / "run")


def test_a_cut_decides_on_stored_scores_alone(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    run = cut_run(tmp_path, ["a", "raise", "reject", "b", "a", "c"])
    for path in (tmp_path / "s").iterdir():
        path.unlink()  # there is nothing left to decode
    rules = Rules.from_toml(
        {
            "second.good": {"equals": True},
            "first.number": {"min": 0, "max": 999},
            "duplicates": {"of": "first.hash"},
        }
    )
    cut = decide(run, rules)
    reasons = [decision.reason for decision in cut.decisions]
    assert sorted(reasons) == [*[""] * 3, "near duplicate", *["second.good missing"] * 2]
    assert [r for i, r in enumerate(reasons) if i in (1, 2)] == ["second.good missing"] * 2
    assert reasons[0] != reasons[4]
    assert [(s.reason, s.dropped, s.alone, s.left) for s in cut.funnel] == [
        ("second.good missing", 2, 2, 4),
        ("near duplicate", 1, 1, 3),
    ]
    assert "kept 3 of 6 clips (50.0%)" in funnel_text(cut)
    write_cut(run, cut, rules)
    table = pq.read_table(run.cut_file)
    assert table.column_names == ["clip_id", "keep", "reason"]
    assert table.column("reason").to_pylist() == reasons
    assert table.column("clip_id").to_pylist() == [clip.id for clip in run.clips()]
    write_cut(run, decide(run, Rules()), Rules())
    assert pq.read_table(run.cut_file).column("keep").to_pylist() == [True] * 6


def test_clips_that_were_never_scored_are_dropped_as_such(tmp_path: Path) -> None:
    run = cut_run(tmp_path, ["a", "b"])
    for part in (run.path / "ledger").glob("part-*"):
        part.unlink()
    with Ledger.open(run.path, write=True) as ledger:
        assert ledger.done() == set()
    cut = decide(run, Rules.from_toml({"first.mean": {"min": 0}}))
    assert [d.reason for d in cut.decisions] == ["not scored"] * 2


def test_rules_on_what_the_run_does_not_have_are_refused(tmp_path: Path) -> None:
    run = cut_run(tmp_path, ["a"])
    for name, code, hint in (
        ("sharp.x", "rules.unknown_stage", ""),
        ("first.meen", "rules.unknown_score", "first.mean"),
    ):
        with pytest.raises(UsageError) as caught:
            decide(run, Rules.from_toml({name: {"min": 1}}))
        assert caught.value.code == code
        assert hint in caught.value.hint
