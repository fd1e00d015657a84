"""Which passes are measured, and what is made of them."""

from __future__ import annotations

import dataclasses

import pytest
from bench_sources import source

from hummingbird_bench.derive import clip_stages
from hummingbird_bench.extrapolation import STRATA, stratified_steps, validate
from hummingbird_bench.sample import Sample, StageTime
from hummingbird_bench.speedup_plan import Request, make_plan
from hummingbird_runtime.errors import InputError


@pytest.mark.parametrize("passes", [1, 2, 5])
def test_five_passes_meet_every_fifth_of_the_schedule_once(passes):
    taken = [s for sample in range(5) for s in stratified_steps(50, sample, passes)][:STRATA]
    assert sorted(step // 10 for step in taken) == [0, 1, 2, 3, 4]
    assert taken == [25, 5, 45, 15, 35]


def test_short_schedules_stay_inside():
    assert all(0 <= s < 4 for sample in range(9) for s in stratified_steps(4, sample, 1))
    assert stratified_steps(1, 3, 2) == (0, 0)


def sample(arm: str, ordinal: int, stages: list[tuple[str, float]]) -> Sample:
    total = sum(seconds for _, seconds in stages)
    return Sample(
        arm=arm,
        ordinal=ordinal,
        phase="first",
        wall_s=total,
        cpu_s=total,
        stages=tuple(StageTime(name, i, 0.0, s) for i, (name, s) in enumerate(stages)),
        peak_rss_bytes=1,
        peak_pss_bytes=None,
        load_before=0.0,
        load_after=0.0,
        steal_ticks_before=0,
        steal_ticks_after=0,
        outputs={},
        providers={},
    )


def test_an_extrapolation_is_text_and_decoding_and_every_pass():
    plan = make_plan(Request("tiny", (26,), 1), [source()], [])
    part = next(a.workload for a in plan.arms if a.workload.name == "vc2-torch-26")
    whole = next(a.workload for a in plan.arms if a.workload.name == "vc2-torch-26-whole")
    part = dataclasses.replace(part, unet_passes=2)
    passes = [("text", 0.5), ("pass", 2.0), ("pass", 4.0), ("decode", 0.1), ("decode", 0.1)]
    complete = [("text", 0.5), *[("step", 6.0)] * 50, *[("decode", 0.1)] * 26]
    samples = [sample(part.name, 0, passes), sample(whole.name, 1, complete)]
    found = validate(part, whole, samples)
    assert found["predicted_s"] == pytest.approx(0.5 + 100 * 3.0 + 26 * 0.1)
    assert found["measured_s"] == pytest.approx(found["predicted_s"])


@pytest.mark.parametrize(
    ("decoded", "seconds"),
    [
        ([3.0, 2.0], 3.0 + 25 * 2.0),
        ([3.0, 1.0, 2.0], 3.0 + 25 * 1.5),
        ([2.0], 26 * 2.0),
    ],
)
def test_the_first_decoded_frame_counts_once(decoded: list[float], seconds: float):
    plan = make_plan(Request("full", (26,), 1), [source()], [])
    part = next(a.workload for a in plan.arms if a.workload.name == "hummingbird-int8-full-26")
    part = dataclasses.replace(part, decode_frames=len(decoded))
    stages = [("text", 0.5), ("pass", 2.0), *(("decode", one) for one in decoded)]
    found = clip_stages(part, sample(part.name, 0, stages))
    assert found["decode"] == pytest.approx(seconds)


def test_frames_decoded_together_are_scaled():
    plan = make_plan(Request("full", (26,), 1), [source()], [])
    part = next(a.workload for a in plan.arms if a.workload.name == "hummingbird-int8-full-26")
    part = dataclasses.replace(part, decode_frames=13)
    found = clip_stages(part, sample(part.name, 0, [("pass", 2.0), ("decode", 5.0)]))
    assert found["decode"] == pytest.approx(10.0)


def test_an_arm_without_samples_cannot_be_validated():
    plan = make_plan(Request("tiny", (26,), 1), [source()], [])
    works = [arm.workload for arm in plan.arms]
    with pytest.raises(InputError, match="no finished sample"):
        validate(works[0], works[1], [])
