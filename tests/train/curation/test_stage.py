"""Frame plans choose the frames they promise; stages are built, ordered and pickled."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest

from hummingbird_runtime.errors import UsageError
from hummingbird_train.curation.stage import (
    DEFAULT_STAGES,
    STAGES,
    FramePlan,
    Scores,
    SkipRest,
    Stage,
    build_stages,
    order_stages,
)


def _select(plan: FramePlan, times: np.ndarray, keys: tuple[int, ...] = (0,)) -> tuple[list, list]:
    flags = np.zeros(times.size, bool)
    flags[list(keys)] = True
    chosen, runs = plan.select(times, flags)
    return chosen.tolist(), runs.tolist()


def test_a_plan_without_limits_wants_every_frame() -> None:
    assert _select(FramePlan(), np.arange(5) / 25) == ([0, 1, 2, 3, 4], [0] * 5)


def test_a_rate_takes_the_nearest_frame_to_each_tick() -> None:
    chosen, _ = _select(FramePlan(fps=7.0), np.arange(50) / 25)
    assert chosen == [round(tick * 25 / 7) for tick in range(14)]


def test_a_slower_file_gives_each_frame_once() -> None:
    assert _select(FramePlan(fps=30.0), np.arange(6) / 8)[0] == [0, 1, 2, 3, 4, 5]


def test_uneven_time_stamps_are_followed() -> None:
    times = np.array([0.0, 0.01, 0.02, 0.5, 0.51, 1.0])
    assert _select(FramePlan(fps=2.0), times)[0] == [0, 3, 5]


def test_thinning_spreads_frames_evenly_about_the_middle() -> None:
    assert _select(FramePlan(max_frames=1), np.arange(9.0))[0] == [4]
    assert _select(FramePlan(max_frames=3), np.arange(9.0))[0] == [1, 4, 7]


@pytest.mark.parametrize("count", [6, 7, 26, 437])
@pytest.mark.parametrize(("most", "run"), [(6, 2), (6, 3), (5, 2)])
def test_runs_hold_neighbours_do_not_overlap_and_stay_inside(
    count: int, most: int, run: int
) -> None:
    chosen, runs = _select(FramePlan(max_frames=most, run=run), np.arange(float(count)))
    if count <= most:
        assert chosen == list(range(count))
        return
    rows = np.array(chosen).reshape(-1, run)
    assert len(rows) == most // run
    assert (np.diff(rows, axis=1) == 1).all()
    assert (np.diff(chosen) > 0).all()
    assert chosen[0] >= 0
    assert chosen[-1] < count
    assert runs == np.repeat(np.arange(most // run), run).tolist()


def test_key_frames_alone() -> None:
    plan = FramePlan(max_frames=2, key_frames=True)
    assert _select(plan, np.arange(9.0), (0, 3, 6, 8))[0] == [0, 6]


@pytest.mark.parametrize(
    "wrong",
    [
        {"fps": 0.0}, {"max_frames": 0}, {"height": -1}, {"run": 0}, {"max_frames": 1, "run": 2},
        {"fps": 1.0, "key_frames": True}, {"fps": float("nan")},
    ],
)  # fmt: skip
def test_impossible_plans_are_refused(wrong: dict) -> None:
    with pytest.raises(UsageError, match="frame plan"):
        FramePlan(**wrong)


def test_every_default_stage_builds_pickles_and_is_what_it_says() -> None:
    built = build_stages({})
    assert sorted(stage.name for stage in built) == sorted(DEFAULT_STAGES)
    for stage in pickle.loads(pickle.dumps(built)):
        assert isinstance(stage, Stage)
        assert stage.name in STAGES
        assert stage.version >= 1
        assert isinstance(stage.parameters(), Mapping)


def test_parameters_come_from_the_table() -> None:
    (stage,) = build_stages({"shots": {"threshold": 30}})
    assert stage.parameters() == {"threshold": 30, "min_frames": 15}


@pytest.mark.parametrize(
    ("table", "code"),
    [
        ({"sharp": {}}, "stage.unknown"),
        ({"shots": {"limit": 3}}, "stage.parameter"),
        ({"shots": {"threshold": "high"}}, "stage.parameter"),
        ({"shots": {"min_frames": 2.5}}, "stage.parameter"),
        ({"black": {"reject": 1}}, "stage.parameter"),
        ({"dover": {}}, "stage.parameter"),
    ],
)
def test_wrong_tables_are_refused(table: dict, code: str) -> None:
    with pytest.raises(UsageError) as caught:
        build_stages(table)
    assert caught.value.code == code


ALL = FramePlan()


@dataclass(frozen=True)
class _Named(Stage):
    name: str
    after: tuple[str, ...] = ()
    needs: FramePlan = ALL
    version: ClassVar[int] = 1

    def score(self, clip: object, frames: object, earlier: object) -> Scores:
        return {}


def test_stages_follow_what_they_read_and_key_frames_come_first() -> None:
    cheap = FramePlan(key_frames=True)
    stages = [_Named("a", ("c",)), _Named("b"), _Named("c"), _Named("d", (), cheap)]
    assert [stage.name for stage in order_stages(stages)] == ["d", "b", "c", "a"]
    assert [stage.name for stage in order_stages(stages[:1], ("c",))] == ["a"]


@pytest.mark.parametrize(
    "stages", [[_Named("a", ("z",))], [_Named("a", ("b",)), _Named("b", ("a",))]]
)
def test_stages_that_wait_for_ever_are_refused(stages: list[Stage]) -> None:
    with pytest.raises(UsageError, match="wait"):
        order_stages(stages)


def test_a_reject_survives_pickling() -> None:
    skip = pickle.loads(pickle.dumps(SkipRest("too short", {"seconds": 0.5})))
    assert (skip.reason, skip.scores) == ("too short", {"seconds": 0.5})
