"""A plan carried out: resumed after a kill, an arm that fails left out, nothing hidden."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import pytest
from bench_sources import opponent, source

from hummingbird_bench.report import write_report
from hummingbird_bench.sample import Sample, StageTime
from hummingbird_bench.speedup import machine_speed, main, raw_report
from hummingbird_bench.speedup_plan import Plan, PlannedArm, Request, make_plan
from hummingbird_bench.speedup_run import Outcome, build_bundle, measure_gate, run_plan
from hummingbird_runtime.errors import ExecutionError, InputError, UsageError


def command_plan(*programs: str, rounds: int = 2) -> Plan:
    """Arms that are programs of Python; large ones, so that each sample is a fresh process."""
    base = make_plan(Request("full", (26,), 1, rounds=rounds), [source()], [])
    work = dataclasses.replace(
        base.arms[0].workload,
        kind="external",
        command=("python",),
        threads=4,
        unet_passes=None,
        decode_frames=None,
    )
    arms = [
        PlannedArm(
            dataclasses.replace(work, name=f"arm-{i}", command=(sys.executable, "-S", "-c", text)),
            rounds,
            0.1,
            0.1,
            "opponent",
        )
        for i, text in enumerate(programs)
    ]
    return dataclasses.replace(base, arms=tuple(arms))


def test_a_run_that_goes_on_plans_with_the_speed_of_its_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    rates = iter([185e9, 74e9, 74e9])
    monkeypatch.setattr("hummingbird_bench.speedup.sgemm_rate", lambda _: next(rates))
    assert machine_speed(tmp_path / "run") == pytest.approx(1.0)
    assert machine_speed(tmp_path / "run") == pytest.approx(1.0)
    assert machine_speed(None) == pytest.approx(0.4)
    (tmp_path / "run" / "speed.json").write_text("true")
    with pytest.raises(InputError) as caught:
        machine_speed(tmp_path / "run")
    assert caught.value.code == "bench.sample"


def test_a_killed_run_goes_on_and_keeps_what_it_has(tmp_path: Path):
    plan, told = command_plan("pass", "print('noise')"), []

    def stop_at_third(text: str) -> None:
        told.append(text)
        if text.startswith("run 3"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_plan(plan, tmp_path / "run", note=stop_at_third)
    samples = tmp_path / "run" / "rounds" / "samples.jsonl"
    kept = samples.read_bytes()
    assert kept.count(b"\n") == 2
    samples.write_bytes(kept + b'{"arm": "arm-0", "wa')  # as a kill while writing leaves it
    outcome = run_plan(plan, tmp_path / "run", note=told.append)
    assert samples.read_bytes().startswith(kept)
    assert sorted(s.arm for s in outcome.samples) == ["arm-0", "arm-0", "arm-1", "arm-1"]
    assert [s.ordinal for s in outcome.samples] == [0, 1, 2, 3]
    assert {s.phase for s in outcome.samples} == {"first"}
    assert outcome.gates == {"arm-0": None, "arm-1": None}
    order = [s.arm for s in outcome.samples]
    assert order[:2] == order[:1:-1]  # the second round in reverse
    other = dataclasses.replace(plan, arms=plan.arms[:1])
    with pytest.raises(UsageError, match="another measurement"):
        run_plan(other, tmp_path / "run", note=told.append)


def test_an_arm_that_fails_is_noted_and_the_others_go_on(tmp_path: Path):
    plan = command_plan("pass", "raise SystemExit(3)")
    outcome = run_plan(plan, tmp_path / "run", note=lambda text: None)
    assert [s.arm for s in outcome.samples] == ["arm-0", "arm-0"]
    assert "exit status 3" in outcome.failures["arm-1"]
    assert outcome.failures["arm-1"].startswith("bench.arm_failed")


def test_a_gate_that_cannot_be_taken_is_not_passed(tmp_path: Path):
    plan = make_plan(Request("full", (26,), 1), [source(path=str(tmp_path / "none"))], [])
    work = next(a.workload for a in plan.arms if a.workload.kind == "runtime")
    gate = measure_gate(work, tmp_path)
    assert gate is not None
    assert gate["passed"] is False
    assert "none" in gate["reason"]


def made_up(plan: Plan, pass_s: float = 1.0) -> list[Sample]:
    """Samples that take exactly what an arm's stages say."""
    found = []
    for arm in plan.arms:
        work = arm.workload
        for number in range(1 if arm.part == "whole" else 5):
            passes, name = (
                work.unet_passes or work.steps,
                "step" if not work.unet_passes else "pass",
            )
            each = pass_s * (work.passes_per_step if name == "step" else 1)
            stages = [("text", 1.0), *[(name, each)] * passes]
            stages += [("decode", 0.5)] * (work.decode_frames or work.frames)
            wall = sum(s for _, s in stages) * (1 + 0.001 * number)
            times = tuple(StageTime(n, i, 0.0, s) for i, (n, s) in enumerate(stages))
            found.append(
                Sample(work.name, len(found), "first", wall, wall, times, 1, None, 0.0, 0.0, 0, 0,
                       {}, {})
            )  # fmt: skip
    return found


def test_what_quantization_leaves_of_whole_clips_stands_in_the_notes(tmp_path: Path):
    plan = make_plan(Request("full", (26,), 1), [source()], [opponent()])
    quality = {"snr_db_mean": 24.1, "snr_db_worst": 23.9, "psnr_db_mean": 36.0,
               "psnr_db_worst": 35.5}  # fmt: skip
    gates = {
        "hummingbird-int8-full-26": {"graphs": {"vae_decoder": 4.0}, "quality": quality},
        "hummingbird-int8-full-26-whole": {"graphs": {}, "quality": quality},
        "vc2-torch-26": {"graphs": {}, "quality": {}},
    }
    outcome = Outcome("2026-11-23T00:00:00Z", tuple(made_up(plan)), {}, gates, {})
    notes = raw_report(plan, outcome, command="hummingbird bench speedup")["notes"]
    assert [note for note in notes if "measured at export" in note] == [
        "hummingbird-int8-full-26, hummingbird-int8-full-26-whole: final latents of whole clips "
        "24.1 dB from float32, 23.9 dB the worst, as measured at export.",
        "hummingbird-int8-full-26: decoder 4.0 dB from the float32 one on latents of noise; "
        "frames of whole clips 36.0 dB PSNR, 35.5 dB the worst, as measured at export.",
    ]
    assert not any(note.startswith("vc2-torch-26") for note in notes)


def test_the_title_says_that_quality_is_not_shown_where_weights_are_random(tmp_path: Path):
    plan = make_plan(Request("full", (26,), 1), [source()], [opponent()])
    samples = tuple(made_up(plan))
    ours = {
        arm.workload.name: {"weights": "trained", "decoder_weights": "random"} for arm in plan.arms
    }
    gates = {arm.workload.name: None for arm in plan.arms}
    outcome = Outcome("2026-11-23T00:00:00Z", samples, ours, gates, {})
    raw = raw_report(plan, outcome, command="hummingbird bench speedup")
    assert raw["title"].endswith("architecture only, quality not shown at full size")
    assert any("hummingbird-int8-tiny-26" in note for note in raw["notes"])
    assert any(note.startswith("Extrapolated") for note in raw["notes"])
    checks = {one["arm"]: one for one in raw["validations"]}
    one = checks["hummingbird-int8-full-26"]
    assert one["predicted_s"] == pytest.approx(one["measured_s"], rel=0.01)
    assert all(not arm["invalid"] for arm in raw["arms"])
    told = [arm["workload"]["bundle"] or "" for arm in raw["arms"]]
    assert any(told)
    assert not any("/" in folder for folder in told)
    trained = {name: {**i, "decoder_weights": "trained"} for name, i in ours.items()}
    raw = raw_report(plan, dataclasses.replace(outcome, identities=trained), command="x")
    assert "architecture only" not in raw["title"]
    assert raw["samples"] == [s.to_json() for s in samples]
    blank = {**raw, "arms": [{**arm, "identity": {}} for arm in raw["arms"]]}
    write_report(blank, tmp_path / "report.json")


def test_an_extrapolation_that_misses_the_complete_run_is_invalid():
    plan = make_plan(Request("full", (26,), 1), [source()], [])
    slow = {s.arm: s for s in made_up(plan, 2.0)}
    samples = tuple(slow[s.arm] if s.arm.endswith("whole") else s for s in made_up(plan))
    outcome = Outcome("2026-11-23T00:00:00Z", samples, {}, {}, {})
    raw = raw_report(plan, outcome, command="x")
    invalid = {arm["workload"]["name"]: arm["invalid"] for arm in raw["arms"]}
    assert "missed a complete run" in invalid["hummingbird-int8-full-26"]
    assert not invalid["vc2-torch-26"]


def test_the_verb_needs_a_folder_and_a_known_model(tmp_path: Path, capsys):
    with pytest.raises(UsageError, match="--output"):
        main(["--scale", "full", "--bundle", str(tmp_path)])
    with pytest.raises(ExecutionError) as caught:
        build_bundle("none", "fp32", tmp_path / "bundle")
    assert caught.value.code == "bench.arm_failed"
