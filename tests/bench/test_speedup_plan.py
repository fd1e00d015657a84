"""The plan of a speed-up report: what fits the minutes, what is compared, where it comes from."""

from __future__ import annotations

import itertools

import pytest
from bench_sources import opponent, source

from hummingbird_bench.certificate import TREATMENTS
from hummingbird_bench.speedup import comparisons, waterfalls
from hummingbird_bench.speedup_plan import PAIRS, Request, make_plan
from hummingbird_runtime.errors import InputError, UsageError

OURS = [source(), source(precision="fp32", size_bytes=4_800_000_000)]
OPPONENTS = [opponent(), opponent(precision="fp32", size_bytes=7_400_000_000)]


def names(plan) -> list[str]:
    return [arm.workload.name for arm in plan.arms]


def test_ninety_minutes_hold_the_headline_the_same_engine_and_an_a_a_run():
    plan = make_plan(Request("full", (26,), 2, budget_minutes=90), OURS, OPPONENTS)
    assert plan.minutes <= 90
    assert {
        "vc2-torch-26",
        "hummingbird-int8-tiny-26",
        "hummingbird-int8-full-26",
        "vc2-runtime-int8-26",
        "vc2-runtime-fp32-26",
        "hummingbird-int8-tiny-26-whole",
        "hummingbird-int8-full-26-again",
    } <= set(names(plan))
    assert all(arm.rounds >= PAIRS for arm in plan.arms if arm.part != "whole")
    assert any("hummingbird-fp32-tiny-26" in sentence for sentence in plan.left_out)
    assert "No room in 90 minutes" in plan.text()


def test_without_a_budget_nothing_is_left_out_and_our_clips_are_complete():
    plan = make_plan(Request("full", (26, 16), 2), OURS, OPPONENTS)
    assert plan.left_out == ()
    complete = [arm for arm in plan.arms if arm.part == "complete"]
    assert [arm.workload.unet_passes for arm in complete] == [None] * 4
    assert {arm.workload.frames for arm in plan.arms} == {26, 16}
    assert "vc2-torch-as-published-16" in names(plan)


def test_a_budget_without_room_for_the_headline_says_how_much_it_needs():
    with pytest.raises(UsageError, match="expected at least") as caught:
        make_plan(Request("full", (26, 16), 2, budget_minutes=20), OURS, OPPONENTS)
    assert caught.value.code == "bench.budget"


def test_more_minutes_never_measure_less():
    found = [
        set(names(make_plan(Request("full", (26,), 2, budget_minutes=m), OURS, OPPONENTS)))
        for m in (40, 60, 90, 120, 180, None)
    ]
    assert all(less <= more for less, more in itertools.pairwise(found))


def test_complete_clips_of_ours_come_before_a_further_opponent():
    for minutes in range(40, 200, 5):
        plan = make_plan(Request("full", (26,), 2, budget_minutes=minutes), OURS, OPPONENTS)
        complete = [arm.workload.name for arm in plan.arms if arm.part == "complete"]
        if "vc2-torch-as-published-26" in names(plan):
            assert len(complete) == 2
        assert all(
            any(f"{arm.workload.name} more than once" in said for said in plan.left_out)
            for arm in plan.arms
            if arm.part == "whole"
        )


def test_a_slower_machine_takes_longer():
    fast, slow = (make_plan(Request("full", (26,), 2, speed=s), OURS, []) for s in (1.0, 0.5))
    assert slow.minutes > 1.5 * fast.minutes


def test_predicted_seconds_are_those_measured_on_the_known_machine():
    plan = make_plan(Request("full", (26,), 2), OURS, OPPONENTS)
    seconds = {arm.workload.name: arm.seconds for arm in plan.arms}
    # text, one pass and two frames; the clips are four passes and 26 frames
    assert seconds["vc2-torch-26"] == pytest.approx(220, rel=0.1)
    assert seconds["hummingbird-int8-tiny-26-whole"] == pytest.approx(213, rel=0.1)
    assert seconds["hummingbird-int8-full-26-whole"] == pytest.approx(330, rel=0.1)


def test_the_opponent_runs_its_own_recipe():
    plan = make_plan(Request("full", (16,), 2), OURS, OPPONENTS)
    for arm in (a.workload for a in plan.arms if a.part == "opponent"):
        assert (arm.steps, arm.passes_per_step, arm.guidance) == (50, 2, 12.0)
        assert (arm.sampler, arm.eta, arm.decoder) == ("ddim", 1.0, "full")


def test_something_else_than_videocrafter2_is_no_opponent():
    with pytest.raises(InputError) as caught:
        make_plan(Request("full", (16,), 2), OURS, [source()])
    assert caught.value.code == "bench.not_the_opponent"
    with pytest.raises(InputError) as caught:
        make_plan(Request("full", (16,), 2), [], OPPONENTS)
    assert caught.value.code == "bench.no_bundle"


def test_headlines_are_the_complete_clips_where_they_run():
    short, full = (
        make_plan(Request("full", (26,), 2, budget_minutes=m), OURS, OPPONENTS) for m in (80, None)
    )
    assert {c.b for c in comparisons(short) if c.headline} == {
        "hummingbird-int8-tiny-26",
        "hummingbird-int8-full-26",
    }
    assert {c.b for c in comparisons(full) if c.headline} == {
        "hummingbird-int8-tiny-26-whole",
        "hummingbird-int8-full-26-whole",
    }
    assert {c.a for c in comparisons(full) if c.headline} == {"vc2-torch-26"}


def test_every_difference_of_two_arms_is_declared():
    plan = make_plan(Request("full", (26,), 2, openvino=True), OURS, OPPONENTS)
    found = {(c.a, c.b): c for c in comparisons(plan)}
    headline = found["vc2-torch-26", "hummingbird-int8-tiny-26-whole"]
    assert set(headline.treatment) == set(TREATMENTS)
    same = found["vc2-runtime-int8-26", "hummingbird-int8-full-26"]
    assert set(same.treatment) == {"steps", "model"}
    again = found["hummingbird-int8-full-26", "hummingbird-int8-full-26-again"]
    assert again.treatment == ()
    published = found["vc2-torch-as-published-26", "vc2-torch-26"]
    assert (published.treatment, published.metric) == (("engine",), "pass")
    assert ("vc2-torch-26", "vc2-openvino-int8-26") in found


def test_a_waterfall_goes_from_torch_to_our_clip_by_arms_that_exist():
    plan = make_plan(Request("full", (26,), 2), OURS, OPPONENTS)
    tiny = next(w for w in waterfalls(plan) if "tiny" in w.b)
    assert [s.name for s in tiny.steps] == [
        "start", "passes", "engine", "pruning", "precision", "decoder",
    ]  # fmt: skip
    assert [s.passes for s in tiny.steps] == [100, 4, 4, 4, 4, 4]
    for fall in waterfalls(plan):
        assert {fall.a, fall.b} <= set(names(plan))
        assert fall.steps[-1].unet == fall.b
        assert {s.unet for s in fall.steps} <= set(names(plan))


def test_without_float32_arms_their_factors_are_told_together():
    plan = make_plan(Request("full", (26,), 2), OURS[:1], OPPONENTS[:1])
    full = next(w for w in waterfalls(plan) if "full" in w.b)
    assert [s.name for s in full.steps] == ["start", "passes", "engine and pruning and precision"]


def test_at_tiny_scale_all_hundred_passes_run_in_every_round():
    plan = make_plan(Request("tiny", (26,), 2), [source(precision="fp32")], [])
    whole = next(a for a in plan.arms if a.workload.name == "vc2-torch-26-whole")
    assert (whole.workload.unet_passes, whole.rounds, whole.part) == (None, PAIRS, "check")
    assert all(whole.workload.name not in (c.a, c.b) for c in comparisons(plan))
    assert plan.live
