"""Figures of a report follow from its samples in closed form; its schema is the published one."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import bench_report
import jsonschema
import pytest
from bench_report import FRAMES, OURS, PARTS, THEIRS

import hummingbird_bench
from hummingbird_bench import schema
from hummingbird_bench.derive import clip_seconds, pass_seconds
from hummingbird_bench.markdown import markdown_page
from hummingbird_bench.report import REPORT
from hummingbird_bench.report_page import report_page
from hummingbird_bench.sample import StageTime
from hummingbird_bench.sealed_document import check_sealed, seal
from hummingbird_runtime.errors import InputError


@pytest.fixture(scope="module")
def quiet() -> dict[str, Any]:
    """A report whose runs all took exactly their times."""
    return seal(REPORT, bench_report.raw_report(noise=0.0))


def clip_of(arm: str) -> float:
    text, unet, decode, rest = PARTS[arm]
    return text + (100 if arm == THEIRS else 4) * unet + FRAMES * decode + rest


def arm_of(document: dict[str, Any], name: str) -> dict[str, Any]:
    return next(arm for arm in document["derived"]["arms"] if arm["name"] == name)


def comparison_of(document: dict[str, Any], b: str) -> dict[str, Any]:
    return next(c for c in document["derived"]["comparisons"] if c["b"] == b)


@pytest.mark.parametrize("arm", PARTS)
def test_seconds_of_a_clip_are_its_parts(quiet: dict[str, Any], arm: str):
    found = arm_of(quiet, arm)
    assert found["clip"]["median"] == pytest.approx(clip_of(arm), rel=1e-12)
    assert found["pass_s"] == pytest.approx(PARTS[arm][1], rel=1e-12)
    assert found["extrapolated"] == (arm == THEIRS)


def test_an_extrapolated_clip_scales_the_passes_and_nothing_else():
    work = bench_report.workload(THEIRS, unet_passes=5)
    sample = bench_report.sample(work, 1)
    assert pass_seconds(work, sample) == pytest.approx(152.0)
    assert sample.wall_s < 1200
    assert clip_seconds(work, sample) == pytest.approx(clip_of(THEIRS), rel=1e-12)


def test_frames_that_were_not_decoded_are_extrapolated_too():
    work = bench_report.workload(THEIRS, decode_frames=2)
    sample = bench_report.sample(work, 1)
    assert sample.wall_s < 200
    assert clip_seconds(work, sample) == pytest.approx(clip_of(THEIRS), rel=1e-12)


@pytest.mark.parametrize("wall", [0.0, -1.0])
def test_times_that_cannot_be_are_refused(wall: float):
    raw = edited()
    raw["samples"][0]["wall_s"] = wall
    with pytest.raises(InputError) as caught:
        seal(REPORT, raw)
    assert caught.value.code == "report.impossible"


def test_a_step_of_two_passes_counts_twice():
    work = bench_report.workload(THEIRS, unet_passes=None)
    sample = bench_report.sample(work, 1)
    assert pass_seconds(work, sample) == pytest.approx(152.0)
    assert clip_seconds(work, sample) == sample.wall_s


@pytest.mark.parametrize("arm", list(PARTS)[2:])
def test_ratio_is_seconds_over_seconds(quiet: dict[str, Any], arm: str):
    found = comparison_of(quiet, arm)
    assert found["valid"]
    assert found["extrapolated"]
    expected = clip_of(THEIRS) / clip_of(arm)
    for end in ("estimate", "low", "high"):  # without noise the interval is a point
        assert found["ratio"][end] == pytest.approx(expected, rel=1e-9)
    assert found["ratio"]["pairs"] == 6


def test_stages_add_up_to_the_clip(quiet: dict[str, Any]):
    for arm in PARTS:
        found = arm_of(quiet, arm)
        assert sum(s["seconds"] for s in found["stages"]) == pytest.approx(clip_of(arm), rel=1e-9)
        assert sum(s["share"] for s in found["stages"]) == pytest.approx(1.0)
        assert found["coverage"] > 0.99


def test_first_runs_stay_out_of_the_figures_of_later_ones(quiet: dict[str, Any]):
    found = arm_of(quiet, OURS)
    assert found["phase"] == "steady"
    assert found["runs"] == {"cold": 0, "first": 1, "steady": 6}
    assert found["first_s"] == pytest.approx(1.4 * clip_of(OURS))


def test_a_comparison_names_the_a_a_run_of_its_own_arm(quiet: dict[str, Any]):
    beside = comparison_of(quiet, OURS)["beside"]
    same = quiet["derived"]["comparisons"][beside]
    assert same["same_work"]
    assert OURS in (same["a"], same["b"])
    assert same["ratio"]["estimate"] == pytest.approx(1.0)


def test_an_arm_that_fails_its_gate_is_invalid_and_so_is_its_ratio(quiet: dict[str, Any]):
    assert not arm_of(quiet, "OpenVINO, int8")["valid"]
    found = comparison_of(quiet, "OpenVINO, int8")
    assert not found["valid"]
    assert found["ratio"] is None
    assert "float32 reference" in found["reason"]
    assert "threads" in found["reason"]


def edited(**changes: Any) -> dict[str, Any]:
    raw = bench_report.raw_report(pairs=2, noise=0.0)
    return {**raw, **changes}


def test_an_undeclared_difference_refuses_the_ratio():
    raw = edited()
    raw["comparisons"][0]["treatment"] = ["steps", "model", "precision", "decoder"]  # not engine
    found = seal(REPORT, raw)["derived"]["comparisons"][0]
    assert not found["valid"]
    assert "engine" in found["reason"]


def test_an_arm_that_cannot_tell_what_it_did_gets_no_ratio():
    raw = edited()
    raw["arms"][0]["identity"] = {}
    found = seal(REPORT, raw)["derived"]["comparisons"][0]
    assert not found["valid"]
    assert "certificate" in found["reason"]


def test_an_arm_without_runs_is_invalid():
    raw = edited()
    raw["samples"] = [s for s in raw["samples"] if s["arm"] != OURS]
    raw["waterfalls"] = []
    derived = seal(REPORT, raw)["derived"]
    assert not comparison_of({"derived": derived}, OURS)["valid"]


@pytest.mark.parametrize("place", ["samples", "comparisons", "waterfalls"])
def test_a_name_that_is_no_arm_is_refused(place: str):
    raw = edited()
    entry = raw[place][0]
    if place == "waterfalls":
        entry["steps"][0]["unet"] = "nobody"
    else:
        entry["arm" if place == "samples" else "b"] = "nobody"
    with pytest.raises(InputError) as caught:
        seal(REPORT, raw)
    assert caught.value.code == "report.unknown_arm"


def test_random_weights_are_said_with_the_ratio(quiet: dict[str, Any]):
    assert comparison_of(quiet, OURS)["architecture_only"]  # its decoder is random
    assert not comparison_of(quiet, "Hummingbird 0.7B, int8, full decoder")["architecture_only"]


@pytest.mark.parametrize("name", schema.PUBLISHED)
def test_the_published_schema_is_that_of_the_dataclasses(name: str):
    """Write it again by `python -m hummingbird_bench.schema`."""
    published = Path(hummingbird_bench.__path__[0], name).read_text(encoding="utf-8")
    assert published == schema.schema_text(name)
    jsonschema.Draft202012Validator.check_schema(json.loads(published))


def breakages() -> dict[str, Any]:
    return {
        "unknown key": lambda d: d.update(extra=1),
        "no samples key": lambda d: d.pop("samples"),
        "text as a number": lambda d: d.update(title=3),
        "other scale": lambda d: d.update(scale="huge"),
        "other version": lambda d: d.update(schema="hummingbird-bench/2"),
        "arm without workload": lambda d: d["arms"][0].pop("workload"),
        "sample without phase": lambda d: d["samples"][0].pop("phase"),
        "true as a number": lambda d: d["samples"][0].update(wall_s=True),
        "ordinal as text": lambda d: d["samples"][0].update(ordinal="1"),
        "stage with another key": lambda d: d["samples"][0]["stages"][0].update(more=1),
        "metric of no kind": lambda d: d["comparisons"][0].update(metric="frames"),
    }


@pytest.mark.parametrize("what", breakages())
def test_what_the_schema_refuses_the_reader_refuses_too(what: str):
    validator = jsonschema.Draft202012Validator(
        json.loads(schema.schema_text("report_schema.json"))
    )
    raw = edited()
    raw["samples"] = [{**raw["samples"][0], "stages": raw["samples"][0]["stages"][:1]}]
    raw = json.loads(json.dumps(raw))
    added = {"derived": {}, "sha256": {"raw": "0" * 64, "derived": "0" * 64}}
    assert validator.is_valid({**raw, **added})
    breakages()[what](raw)
    assert not validator.is_valid({**raw, **added})
    with pytest.raises(InputError) as caught:
        seal(REPORT, raw)
    assert caught.value.code == "report.invalid"


def test_every_field_of_the_schema_says_what_it_is():
    found = json.loads(schema.schema_text("device_schema.json"))
    fields = {k: v for name in found["$defs"].values() for k, v in name["properties"].items()}
    assert sum("description" in v for v in fields.values()) > len(fields) / 2
    assert dataclasses.fields(schema.DeviceMeasurement)


def test_a_foreign_program_that_tells_no_stages_is_shown_with_its_clip_alone():
    raw = edited()
    foreign = bench_report.workload("another engine", kind="external", command=("engine",))
    stage = StageTime(name="command", index=0, start_s=0.0, seconds=300.0)
    one = bench_report.sample(foreign, 999, wall_s=300.0, stages=(stage,))
    raw["arms"].append(
        {"workload": dataclasses.asdict(foreign), "identity": {}, "gate": None, "invalid": ""}
    )
    raw["samples"].append(dataclasses.asdict(one))
    asked = {**raw["comparisons"][0], "b": "another engine"}
    raw["comparisons"] += [asked, {**asked, "metric": "pass"}]
    document = seal(REPORT, raw)
    arm = arm_of(document, "another engine")
    assert (arm["clip"]["median"], arm["pass_s"]) == (300.0, None)
    for found in [c for c in document["derived"]["comparisons"] if c["b"] == "another engine"]:
        assert not found["valid"]
        assert "certificate" in found["reason"]
    page = report_page(check_sealed(document, {REPORT.schema: REPORT}, "it"))
    assert "another engine" in markdown_page(page)
