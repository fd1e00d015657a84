"""Rounds of arms: their order, what counts as steady, and going on after a kill."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path

import pytest
from scripted_arm import start, workload

from hummingbird_bench.interleave import Measurement, Progress, abba, measure, require_steady
from hummingbird_bench.sample import steady
from hummingbird_bench.statistics import StopRule
from hummingbird_runtime.errors import HummingbirdError


def asked(*names: str, rounds: int = 2, fresh: bool = False) -> Measurement:
    return Measurement(
        tuple(workload(name) for name in names), StopRule(rounds, rounds), fresh=fresh
    )


def test_every_other_round_runs_backwards() -> None:
    orders = list(islice(abba("abc", 1), 200))
    assert all(one == other[::-1] for one, other in zip(orders[::2], orders[1::2], strict=True))
    assert len(set(orders[::2])) == 6  # every order comes: none is favoured


def test_first_runs_of_a_process_do_not_count(tmp_path: Path) -> None:
    measured = measure(asked("a", "b"), tmp_path / "run", start=start)
    assert [len(steady(measured.samples, name)) for name in "ab"] == [2, 2]
    assert {s.phase for s in measured.samples} == {"cold", "first", "steady"}
    assert [s.ordinal for s in measured.samples] == list(range(len(measured.samples)))


def test_a_fresh_process_for_every_round(tmp_path: Path) -> None:
    measured = measure(asked("a", rounds=3, fresh=True), tmp_path / "run", start=start)
    assert sum(s.phase == "first" for s in measured.samples) == 3


def test_a_measurement_goes_on_where_it_was_killed(tmp_path: Path) -> None:
    folder, seen = tmp_path / "run", []

    def stop(state: Progress) -> None:
        seen.append(state)
        if len(seen) == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure(asked("a", "b", rounds=3), folder, start=start, on_progress=stop)
    kept = (folder / "samples.jsonl").read_bytes()
    (folder / "samples.jsonl").write_bytes(kept + b'{"arm": "a", "ordi')  # torn by the kill
    measured = measure(asked("a", "b", rounds=3), folder, start=start)
    assert [len(steady(measured.samples, name)) for name in "ab"] == [3, 3]
    assert (folder / "samples.jsonl").read_bytes().startswith(kept)


def test_a_folder_of_another_measurement_is_refused(tmp_path: Path) -> None:
    measure(asked("a"), tmp_path / "run", start=start)
    with pytest.raises(HummingbirdError) as caught:
        measure(asked("a", rounds=3), tmp_path / "run", start=start)
    assert caught.value.code == "bench.other_measurement"


def test_an_arm_that_became_another_is_refused(tmp_path: Path) -> None:
    measure(asked("a", rounds=1), tmp_path / "run", start=start)
    identities = tmp_path / "run" / "identities.json"
    told = json.loads(identities.read_text())
    told["a"]["eta"] = 0.5
    identities.write_text(json.dumps(told))
    lines = (tmp_path / "run" / "samples.jsonl").read_text().splitlines(keepends=True)
    kept = [line for line in lines if '"steady"' not in line]
    (tmp_path / "run" / "samples.jsonl").write_text("".join(kept))
    with pytest.raises(HummingbirdError) as caught:
        measure(asked("a", rounds=1), tmp_path / "run", start=start)
    assert caught.value.code == "bench.changed_arm"


def test_no_runs_and_warm_up_alone_are_two_errors(tmp_path: Path) -> None:
    measured = measure(asked("a", rounds=1), tmp_path / "run", start=start)
    warm = [sample for sample in measured.samples if sample.phase != "steady"]
    for samples, code in (([], "bench.no_runs"), (warm, "bench.warm_up_only")):
        with pytest.raises(HummingbirdError) as caught:
            require_steady(samples, "a")
        assert caught.value.code == code
    assert require_steady(measured.samples, "a")


@pytest.mark.parametrize(
    ("names", "pairs", "code"),
    [
        ((), (), "bench.no_runs"),
        (("a", "a"), (), "bench.arms"),
        (("a",), (("a", "b"),), "bench.arms"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anything_runs(
    names: tuple[str, ...], pairs: tuple[tuple[str, str], ...], code: str
) -> None:
    with pytest.raises(HummingbirdError) as caught:
        Measurement(tuple(workload(name) for name in names), StopRule(1, 1), pairs=pairs)
    assert caught.value.code == code


def test_the_rule_ends_the_rounds_when_the_interval_is_narrow(tmp_path: Path) -> None:
    works = (workload("a", seconds=2.0), workload("b", seconds=1.0))
    rule = StopRule(6, 20)
    measured = measure(
        Measurement(works, rule, (("a", "b"),), fresh=False), tmp_path / "run", start=start
    )
    assert len(steady(measured.samples, "a")) == 6
