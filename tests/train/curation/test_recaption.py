"""The recaption run: cache, resume, retries, pace, and giving up in time."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

import pytest
from curation_run import captioned_clips, make_run

from hummingbird_runtime.cancel import CancelToken
from hummingbird_runtime.errors import Cancelled, InputError, ResourceError
from hummingbird_train.curation.recaption import RecaptionConfig, main, recaption
from hummingbird_train.curation.recaptioners.cache import FILE, CaptionCache
from hummingbird_train.curation.recaptioners.retries import (
    RateLimit,
    RetryPolicy,
    Transient,
    with_retries,
)
from hummingbird_train.curation.run_folder import RunFolder
from hummingbird_train.curation.selection import read_captions, read_selection

pytest.importorskip("pyarrow")
CAPTIONS = ["a red car drives", "two dogs run on grass", "a red car drives", "", "a sea at night"]
FAST = RetryPolicy(attempts=3, first_wait=0.0)


class _Stub:
    """Answers with the caption as a sentence, or by its table."""

    name = "stub"
    identity = "stub/1"

    def __init__(self, answers: dict[str, str | Exception] | None = None) -> None:
        self.answers = answers or {}
        self.asked: list[str] = []
        self.lock = threading.Lock()

    def rewrite(self, caption: str) -> str:
        with self.lock:
            self.asked.append(caption)
        answer = self.answers.get(caption, f"{caption.capitalize()}.")
        if isinstance(answer, Exception):
            raise answer
        return answer

    def close(self) -> None:
        pass


def _run(tmp_path: Path, captions: list[str] = CAPTIONS) -> RunFolder:
    clips = captioned_clips(tmp_path / "clips", captions)
    scores = {clip.id: {"probe": {"width": 64.0 + i}} for i, clip in enumerate(clips)}
    return make_run(tmp_path / "run", clips, scores, {"probe.width": {"max": 64.0 + 4}})


def test_each_distinct_caption_is_asked_once_and_the_original_stays(tmp_path: Path) -> None:
    run, stub = _run(tmp_path), _Stub({"two dogs run on grass": "Two cats sleep on a sofa."})
    summary = recaption(run, stub)
    assert sorted(stub.asked) == sorted({c for c in CAPTIONS if c})
    rows = [read_captions(run)[clip.id] for clip in run.clips()]
    assert [row.original for row in rows] == CAPTIONS
    assert rows[0].caption == rows[2].caption == "A red car drives."
    assert not rows[1].accepted
    assert rows[1].caption == "two dogs run on grass"
    assert rows[1].rewrite == "Two cats sleep on a sofa."
    assert rows[1].reason.startswith("keeps 0%")
    assert (rows[3].accepted, rows[3].reason) == (False, "no caption")
    assert (summary.clips, summary.accepted, summary.asked) == (5, 3, 3)
    clip = next(iter(run.clips()))
    assert read_selection(run).caption(clip) == "A red car drives."


def test_a_second_run_asks_nothing_and_another_model_asks_everything(tmp_path: Path) -> None:
    run = _run(tmp_path)
    recaption(run, _Stub())
    before = (run.path / "captions.parquet").read_bytes()
    again = _Stub()
    assert recaption(run, again).cached == 3
    assert again.asked == []
    assert (run.path / "captions.parquet").read_bytes() == before
    other = _Stub()
    other.identity = "stub/2"
    recaption(run, other)
    assert len(other.asked) == 3


def test_only_what_the_cut_keeps_is_asked_unless_all_is_wanted(tmp_path: Path) -> None:
    clips = captioned_clips(tmp_path / "clips", ["a cat", "a dog"])
    scores = {clip.id: {"probe": {"width": 10.0 * i}} for i, clip in enumerate(clips)}
    run = make_run(tmp_path / "run", clips, scores, {"probe.width": {"min": 5.0}})
    stub = _Stub()
    recaption(run, stub)
    assert stub.asked == ["a dog"]
    recaption(run, stub, RecaptionConfig(every_clip=True))
    assert stub.asked == ["a dog", "a cat"]


def test_a_failure_is_a_row_and_is_asked_again_next_time(tmp_path: Path) -> None:
    run = _run(tmp_path)
    stub = _Stub(
        {"a sea at night": Transient("HTTP 500"),
         "a red car drives": InputError("recaption.rejected", "no")}
    )  # fmt: skip
    summary = recaption(run, stub, RecaptionConfig(retry=FAST), sleep=lambda s: None)
    assert summary.failed == 2
    assert stub.asked.count("a sea at night") == 3
    assert stub.asked.count("a red car drives") == 1  # not worth another try
    reasons = {row.original: row.reason for row in read_captions(run).values()}
    assert reasons["a sea at night"] == "failed: HTTP 500"
    assert reasons["a red car drives"] == "failed: recaption.rejected"
    stub.answers.clear()
    stub.asked.clear()
    assert recaption(run, stub).accepted == 4
    assert sorted(stub.asked) == ["a red car drives", "a sea at night"]


def test_an_endpoint_that_is_gone_stops_the_run_and_keeps_what_was_answered(
    tmp_path: Path,
) -> None:
    captions = [f"a red car number {chr(97 + i)} drives" for i in range(12)]
    clips = captioned_clips(tmp_path / "clips", captions)
    run = make_run(tmp_path / "run", clips, {c.id: {"s": {"k": 1.0}} for c in clips}, {})
    stub = _Stub({caption: Transient("connection refused") for caption in captions[3:]})
    config = RecaptionConfig(retry=FAST, give_up_after=4)
    with pytest.raises(ResourceError, match="4 captions in a row") as caught:
        recaption(run, stub, config, sleep=lambda s: None)
    assert caught.value.code == "recaption.unreachable"
    assert not (run.path / "captions.parquet").exists()
    stub.answers.clear()
    stub.asked.clear()
    assert recaption(run, stub, config).accepted == 12
    assert sorted(stub.asked) == captions[3:]


def test_a_refused_key_stops_at_once(tmp_path: Path) -> None:
    stub = _Stub({"a red car drives": ResourceError("recaption.refused", "HTTP 401")})
    with pytest.raises(ResourceError, match="401"):
        recaption(_run(tmp_path), stub)
    assert stub.asked == ["a red car drives"]


def test_cancelling_leaves_no_torn_table_and_goes_on_later(tmp_path: Path) -> None:
    run, token = _run(tmp_path), CancelToken()

    class Stops(_Stub):
        def rewrite(self, caption: str) -> str:
            token.cancel()
            return super().rewrite(caption)

    first = Stops()
    with pytest.raises(Cancelled):
        recaption(run, first, cancel=token)
    assert {p.name for p in run.path.iterdir() if "partial" in p.name} == set()
    assert not (run.path / "captions.parquet").exists()
    second = _Stub()
    recaption(run, second)
    assert len(first.asked) + len(second.asked) == 3


def test_workers_ask_side_by_side_and_rows_keep_their_order(tmp_path: Path) -> None:
    captions = [f"a red car number {chr(97 + i)} drives" for i in range(20)]
    clips = captioned_clips(tmp_path / "clips", captions)
    run = make_run(tmp_path / "run", clips, {c.id: {"s": {"k": 1.0}} for c in clips}, {})
    gate = threading.Barrier(4, timeout=10)

    class Meets(_Stub):
        def rewrite(self, caption: str) -> str:
            gate.wait()  # passes only when four calls are under way at once
            return super().rewrite(caption)

    recaption(run, Meets(), RecaptionConfig(workers=4))
    assert [row.original for row in read_captions(run).values()] == captions


def test_waits_double_and_obey_the_endpoint_up_to_a_limit() -> None:
    waits: list[float] = []
    answers = [Transient("a"), Transient("b", 7.0), Transient("c", 900.0), Transient("d")]

    def call() -> str:
        if answers:
            raise answers.pop(0)
        return "done"

    policy = RetryPolicy(attempts=5, first_wait=1.0, longest_wait=60.0)
    assert with_retries(call, policy, sleep=waits.append) == "done"
    assert waits == [1.0, 7.0, 60.0, 8.0]


def test_the_rate_limit_spaces_calls_evenly() -> None:
    now, waits = [0.0], []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        now[0] += seconds

    rate = RateLimit(60.0, clock=lambda: now[0], sleep=sleep)
    for _ in range(4):
        rate.wait()
    assert waits == [1.0, 1.0, 1.0]
    now[0] += 10
    rate.wait()
    assert len(waits) == 3  # time that went by is not saved up, and costs nothing
    RateLimit(None, sleep=sleep).wait()
    assert len(waits) == 3


def test_the_cache_keeps_identities_apart_and_names_a_foreign_file(tmp_path: Path) -> None:
    with CaptionCache(tmp_path / FILE) as cache:
        cache.add("a", {"b": "one", "caption": "two"})
        assert cache.find("a", ["b", "c", "caption"]) == {"b": "one", "caption": "two"}
        assert cache.find("ab", [""]) == {}
    (tmp_path / "other.sqlite").write_bytes(b"no database" * 100)
    with pytest.raises(InputError, match="delete the file"):
        CaptionCache(tmp_path / "other.sqlite")
    with sqlite3.connect(tmp_path / FILE) as base:
        assert base.execute("SELECT COUNT(*) FROM rewrites").fetchone() == (2,)
    base.close()


def test_the_verb_cleans_by_rules_and_says_what_it_did(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = _run(tmp_path, ["RED CAR, 4K STOCK FOOTAGE", "stock video", "a dog runs"])
    assert main([str(run.path)]) == 0
    out = capsys.readouterr().out
    assert "rules: 2 of 3 captions rewritten" in out
    assert "1 kept as they were: empty" in out
    captions = [row.caption for row in read_captions(run).values()]
    assert captions == ["RED CAR.", "stock video", "A dog runs."]


def test_a_run_without_a_cut_is_refused_before_a_model_is_opened(tmp_path: Path) -> None:
    clips = captioned_clips(tmp_path / "clips", ["a cat"])
    run = make_run(tmp_path / "run", clips, {clips[0].id: {"s": {"k": 1.0}}}, None)
    with pytest.raises(InputError, match="curate cut"):
        main([str(run.path), "--recaptioner", "local", "--model", str(tmp_path / "none.gguf")])
