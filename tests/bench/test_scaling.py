"""Fits find the law that made the points, and limits follow from them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import bench_report
import pytest
from bench_report import OURS

from hummingbird_bench import scaling_verb
from hummingbird_bench.graph_profiles import profile_clip
from hummingbird_bench.html_page import html_page
from hummingbird_bench.peaks import Peaks
from hummingbird_bench.roofline import derive_roofline
from hummingbird_bench.sample import Sample, StageTime
from hummingbird_bench.scaling import (
    LINEAR,
    SCALING,
    SHARED,
    SQUARE,
    fit,
    scaling_page,
    value_at,
)
from hummingbird_bench.sealed_document import check_sealed, seal
from hummingbird_bench.verify_verb import main as verify
from hummingbird_bench.workload import Workload
from hummingbird_runtime.bundle import Bundle
from hummingbird_runtime.errors import InputError, UsageError

BASE = bench_report.workload(OURS, frames=26)


@pytest.mark.parametrize(
    ("law", "factors", "xs"),
    [
        (LINEAR, (3.0, 0.25), (8, 26, 52, 104)),
        (SQUARE, (2.0, 1e-5, 3e-10), (16384, 65536, 163840, 262144)),
        (SHARED, (5.0, 40.0), (1, 2, 4, 8)),
    ],
)
def test_a_fit_finds_the_factors_that_made_the_points(
    law: Any, factors: tuple[float, ...], xs: tuple[int, ...]
):
    found = fit(law, xs, [value_at(law, factors, x) for x in xs])
    assert found is not None
    assert found["factors"] == pytest.approx(factors, rel=1e-6)
    assert found["worst"] < 1e-9


def test_a_law_that_does_not_hold_is_seen():
    found = fit(LINEAR, (8, 26, 52, 104), [x**3 for x in (8, 26, 52, 104)])
    assert found is not None
    assert found["worst"] > 0.1


def test_a_square_that_would_bend_seconds_down_is_left_out():
    xs = (1024, 4096, 9216, 16384)
    found = fit(SQUARE, xs, [54e-3 + 52e-6 * x - 4e-10 * x * x for x in xs])
    assert found is not None
    assert found["factors"][2] == 0
    assert (
        found["factors"][:2]
        == fit(LINEAR, xs, [54e-3 + 52e-6 * x - 4e-10 * x * x for x in xs])["factors"]
    )
    assert 0 < found["worst"] < 0.05


def test_as_many_points_as_factors_give_no_fit():
    assert fit(LINEAR, (8, 26), [1.0, 2.0]) is None
    assert fit(LINEAR, (8, 8, 8), [1.0, 2.0, 3.0]) is None


def run(work: Workload, seconds: float, peak: int) -> Sample:
    stages = (
        StageTime(name="text", index=0, start_s=0.0, seconds=0.0),
        StageTime(name="step", index=0, start_s=0.0, seconds=0.75 * seconds),
        StageTime(name="decode", index=0, start_s=0.75 * seconds, seconds=0.25 * seconds),
    )
    changes = {"wall_s": seconds, "stages": stages, "peak_rss_bytes": peak}
    return bench_report.sample(work, 1, **changes)


def raw_scaling() -> dict[str, Any]:
    """Clips of 2 s + 0.5 s a frame and 1 GB + 50 MB a frame; 4 s + 8 s over the threads."""
    points = []
    for frames in (104, 8, 26, 52):
        work = dataclasses.replace(BASE, frames=frames)
        samples = [run(work, 2 + 0.5 * frames, 10**9 + 5 * 10**7 * frames)]
        points.append({"axis": "frames", "workload": work, "samples": samples})
    for threads in (1, 2, 4):
        work = dataclasses.replace(BASE, threads=threads)
        points.append(
            {"axis": "threads", "workload": work, "samples": [run(work, 4 + 8 / threads, 10**9)]}
        )
    return {
        "schema": "hummingbird-scaling/1",
        "title": "How the tiny model grows",
        "made": {
            "version": "0.1.0",
            "command": "hummingbird bench scaling",
            "started": "2026-11-23T01:00:00Z",
            "finished": "2026-11-23T01:10:00Z",
        },
        "environment": {"processor": {"model": "a processor"}},
        "memory_bytes": 11 * 10**9,
        "points": [
            {
                "axis": p["axis"],
                "workload": dataclasses.asdict(p["workload"]),
                "samples": [dataclasses.asdict(s) for s in p["samples"]],
            }
            for p in points
        ],
        "profiles": [],
    }


def test_points_fits_and_the_limit_of_memory():
    derived = seal(SCALING, raw_scaling())["derived"]
    frames = derived["axes"]["frames"]
    assert [p["x"] for p in frames["points"]] == [8, 26, 52, 104]
    assert frames["points"][1]["unet_s"] == pytest.approx(0.75 * 15)
    assert frames["time"]["factors"] == pytest.approx([2, 0.5])
    assert frames["memory"]["factors"] == pytest.approx([1e9, 5e7])
    assert derived["frames_that_fit"] == pytest.approx(200)
    assert derived["axes"]["threads"]["time"]["factors"] == pytest.approx([4, 8])
    assert "size" not in derived["axes"]


def test_memory_that_does_not_grow_has_no_limit():
    raw = raw_scaling()
    for point in raw["points"]:
        for sample in point["samples"]:
            sample["peak_rss_bytes"] = 10**9 - point["workload"]["frames"]
    assert seal(SCALING, raw)["derived"]["frames_that_fit"] is None


def test_the_page_shows_points_laws_and_says_what_is_extrapolated():
    sealed = check_sealed(seal(SCALING, raw_scaling()), {SCALING.schema: SCALING}, "it")
    page = scaling_page(sealed)
    assert any("104 frames, took 6.20 GB of this machine's 11.0 GB" in n for n in page.notes)
    html = html_page(page)
    assert html.count('<circle class="point') == 3 * (4 + 3) + 4 + 3
    assert "2.00 s + 500 ms x" in html
    assert html.count("<svg") == html.count("aria-hidden") + html.count('role="img"')


def without_the_longest(raw: dict[str, Any]) -> dict[str, Any]:
    return {**raw, "points": [p for p in raw["points"] if p["workload"]["frames"] != 104]}


def test_the_longest_clip_is_extrapolated_where_it_was_not_drawn():
    raw = without_the_longest(raw_scaling())
    page = scaling_page(check_sealed(seal(SCALING, raw), {SCALING.schema: SCALING}, "it"))
    assert any("104 frames, needs 6.20 GB of this machine's 11.0 GB" in n for n in page.notes)


def test_memory_that_runs_out_before_the_longest_clip_is_said():
    raw = {**without_the_longest(raw_scaling()), "memory_bytes": 4 * 10**9}
    page = scaling_page(check_sealed(seal(SCALING, raw), {SCALING.schema: SCALING}, "it"))
    assert any("full at 60 frames: an extrapolation" in note for note in page.notes)


@pytest.fixture
def bundle(tiny_bundle_path: Path) -> Bundle:
    return Bundle.open(tiny_bundle_path)


def test_a_plan_changes_one_axis_at_a_time(bundle: Bundle):
    base = scaling_verb.base_workload(bundle, decoder="full", threads=2)
    points = scaling_verb.plan(bundle, base, threads=(1, 2))
    assert {axis for axis, _ in points} == {"frames", "size", "steps", "threads"}
    own = {"frames": {"frames"}, "size": {"height", "width"}, "steps": {"steps"}}
    for axis, work in points:
        changed = {
            field.name
            for field in dataclasses.fields(work)
            if getattr(work, field.name) != getattr(base, field.name)
        }
        assert changed <= own.get(axis, {"threads"})


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"frames": (100000,)}, "request.frames"),
        ({"sizes": ((13, 16),)}, "request.size"),
        ({"steps": (100000,)}, "request.steps"),
    ],
)
def test_what_the_bundle_does_not_allow_is_refused_before_any_work(
    bundle: Bundle, change: dict[str, Any], code: str
):
    base = scaling_verb.base_workload(bundle, decoder="full", threads=2)
    with pytest.raises(InputError) as caught:
        scaling_verb.plan(bundle, base, **change)
    assert caught.value.code == code


@pytest.fixture
def asked(bundle: Bundle, tmp_path: Path) -> list[str]:
    """Arguments of a run over frames alone, without a profile."""
    base = scaling_verb.base_workload(bundle, decoder="full", threads=1)
    size = f"{base.height}x{base.width}"
    alone = ["--threads", "1", "--steps", str(base.steps), "--sizes", size]
    target = ["-o", str(tmp_path / "scaling.json")]
    frames = ["--frames", "2,3,4"]
    rest = ["--no-profile", "--base-threads", "1", "-q"]
    return [str(bundle.root), *target, *frames, *alone, *rest]


class Pretended:
    """Stands in for fresh processes.

    Args:
        last: workloads after which it is interrupted.
    """

    def __init__(self, last: int = 1000) -> None:
        self.measured: list[Workload] = []
        self._last = last

    def __call__(self, work: Workload, clips: int) -> Sequence[Sample]:
        if len(self.measured) == self._last:
            raise KeyboardInterrupt
        self.measured.append(work)
        taken = run(work, 1.0 + work.frames, 10**8)
        return [dataclasses.replace(taken, phase="first"), *[taken] * clips]


def test_equal_workloads_are_measured_once_and_the_document_holds(
    asked: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    pretended = Pretended()
    monkeypatch.setattr(scaling_verb, "measure", pretended)
    assert scaling_verb.main(asked) == 0
    measured = pretended.measured
    assert len(measured) == len(set(measured))  # the base stands on three axes and ran once
    assert verify([str(tmp_path / "scaling.json")]) == 0
    with pytest.raises(UsageError) as caught:
        scaling_verb.main(asked)
    assert caught.value.code == "output.exists"


def test_an_interrupted_run_goes_on_where_it_stopped(
    asked: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    kept = ["--folder", str(tmp_path / "kept")]
    first, second, whole = Pretended(last=2), Pretended(), Pretended()
    monkeypatch.setattr(scaling_verb, "measure", first)
    with pytest.raises(KeyboardInterrupt):
        scaling_verb.main([*asked, *kept])
    samples = tmp_path / "kept" / "samples.jsonl"
    lines = samples.read_text().splitlines(keepends=True)
    samples.write_text("".join(lines[:-1]))  # the second point lost a clip
    monkeypatch.setattr(scaling_verb, "measure", second)
    assert scaling_verb.main([*asked, *kept]) == 0
    monkeypatch.setattr(scaling_verb, "measure", whole)
    assert scaling_verb.main([*asked, "-o", str(tmp_path / "whole.json")]) == 0
    assert second.measured == whole.measured[1:]
    points = [
        json.loads((tmp_path / name).read_text())["points"]
        for name in ("scaling.json", "whole.json")
    ]
    assert points[0] == points[1]
    with pytest.raises(UsageError) as caught:
        scaling_verb.main([*asked, *kept, "--force", "--clips", "2"])
    assert caught.value.code == "bench.other_measurement"


@pytest.mark.parametrize("argument", ["0", "1,-2", "a", "1,,x", ""])
def test_numbers_of_an_axis_are_whole_and_positive(argument: str):
    with pytest.raises(UsageError):
        scaling_verb.main(["--frames", argument])


def test_profiles_of_a_real_bundle_count_its_convolution(bundle: Bundle):
    base = scaling_verb.base_workload(bundle, decoder="full", threads=1)
    unet, decoder = profile_clip(base, Peaks(1, 1e11, 4e11, 1e10, 1))
    assert (unet.role, decoder.role) == ("unet", "vae_decoder")
    assert decoder.what.endswith(bundle.graph("vae_decoder").precision)
    cells = base.height * base.width // 64
    chunk = min(bundle.manifest.model.decode_chunk, base.frames)
    last = base.frames % chunk or chunk  # frames of the decoder's last run
    found = derive_roofline(decoder)
    # one 1 x 1 convolution of 4 channels to 3, which blocked kernels fill up to 8 or 16
    assert found["flops"] in [2 * 4 * channels * cells * last for channels in (3, 8, 16)]
    assert found["uncounted_s"] == 0.0
    assert {g["group"] for g in derive_roofline(unet)["groups"]} >= {"elementwise"}
    assert 0.0 < found["covered"] <= 1.0
