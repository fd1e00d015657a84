"""Measurements of many devices, merged into one index that can be held against itself."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import bench_report
import jsonschema
import pytest

from hummingbird_bench import devices_verb, schema
from hummingbird_bench.devices import DEVICE_INDEX, check_measurement, derive_index, merge
from hummingbird_bench.report import write_report
from hummingbird_bench.sealed_document import open_sealed, read_record
from hummingbird_bench.verify_verb import main as verify
from hummingbird_runtime.errors import InputError, IntegrityError, UsageError


def measurement(name: str = "Pixel 9", seconds: float = 2.0, **changes: Any) -> dict[str, Any]:
    """What an app writes; a steady clip takes ``seconds``."""

    def clip(phase: str, factor: float) -> dict[str, Any]:
        whole = factor * seconds
        return {
            "phase": phase,
            "wall_s": whole,
            "text_s": 0.05 * whole,
            "steps_s": [0.2 * whole] * 4,
            "decode_s": 0.1 * whole,
            "peak_memory_bytes": 120_000_000,
        }

    return {
        "schema": "hummingbird-device/1",
        "measured_at": "2026-11-23T00:35:00Z",
        "device": {
            "name": name,
            "kind": "phone",
            "system": "Android 16",
            "processor": "",
            "cores": 8,
            "memory_bytes": None,
        },
        "software": {
            "program": "hummingbird-demo",
            "version": "0.1.0",
            "engine": "onnxruntime 1.31.1",
            "provider": "CPUExecutionProvider",
        },
        "bundle": {"id": "0000-1", "name": "tiny"},
        "clip": {
            "prompt": "a red ball",
            "seed": 7,
            "frames": 16,
            "height": 64,
            "width": 64,
            "steps": 4,
            "guidance": None,
            "decoder": "full",
            "precision": "float32",
            "threads": None,
        },
        "samples": [clip("cold", 3), clip("first", 2), clip("steady", 1), clip("steady", 1.1)],
        "latents_sha256": None,
        **changes,
    }


def index_of(*documents: dict[str, Any]) -> dict[str, Any]:
    raw = merge([(f"{i}.json", f"{i:064}", document) for i, document in enumerate(documents)])
    return derive_index(read_record(DEVICE_INDEX.raw, raw, "it"))


def test_a_row_is_the_median_of_the_clips_after_the_first():
    (group,) = index_of(measurement(seconds=2.0))["groups"]
    (row,) = group["rows"]
    assert row["clip_s"] == pytest.approx(2.1)
    assert row["step_s"] == pytest.approx(0.2 * 2.1)
    assert (row["clips"], row["phase"]) == (2, "steady")
    assert row["peak_memory_bytes"] == 120_000_000


def test_without_a_steady_clip_the_others_count_and_say_so():
    document = measurement()
    document["samples"] = document["samples"][1:2]
    (group,) = index_of(document)["groups"]
    assert group["rows"][0]["phase"] == "first"


def test_devices_are_sorted_by_speed_and_grouped_by_work():
    other = measurement("wide", 1.0)
    other["clip"] = {**other["clip"], "width": 128}
    prompt = measurement("quick", 1.0)
    prompt["clip"] = {**prompt["clip"], "prompt": "a blue square", "seed": 1, "threads": 4}
    groups = index_of(measurement("slow", 4.0), prompt, other)["groups"]
    assert [[row["device"] for row in group["rows"]] for group in groups] == [
        ["wide"],
        ["quick", "slow"],
    ]


def test_the_same_document_counts_once():
    document = measurement()
    raw = merge([("a.json", "a" * 64, document), ("b.json", "a" * 64, document)])
    assert len(raw["sources"]) == 1


def test_what_an_app_writes_fits_the_published_schema():
    validator = jsonschema.Draft202012Validator(
        json.loads(schema.schema_text("device_schema.json"))
    )
    assert validator.is_valid(measurement())
    assert check_measurement(measurement(), "it").device.name == "Pixel 9"


def damage() -> dict[str, tuple[str, Any]]:
    def clip(**changes: Any) -> Any:
        return lambda d: d["samples"][2].update(changes)

    return {
        "another version": ("report.invalid", lambda d: d.update(schema="hummingbird-device/2")),
        "unknown key": ("report.invalid", lambda d: d.update(token="x")),
        "no device": ("report.invalid", lambda d: d.pop("device")),
        "no samples": ("report.invalid", lambda d: d.update(samples=[])),
        "kind of its own": ("report.invalid", lambda d: d["device"].update(kind="toaster")),
        "cores as text": ("report.invalid", lambda d: d["device"].update(cores="8")),
        "name with an escape": ("report.invalid", lambda d: d["device"].update(name="a\x1b[2J")),
        "time as text": ("report.invalid", clip(wall_s="2")),
        "negative time": ("report.impossible", clip(wall_s=-1.0)),
        "no time": ("report.impossible", clip(wall_s=0.0)),
        "negative part": ("report.impossible", clip(decode_s=-0.1)),
        "parts beyond the whole": ("report.impossible", clip(decode_s=50.0)),
        "a step too few": ("report.impossible", clip(steps_s=[0.1, 0.1, 0.1])),
        "no frames": ("report.impossible", lambda d: d["clip"].update(frames=0)),
    }


@pytest.mark.parametrize("what", damage())
def test_impossible_measurements_are_refused(what: str):
    code, change = damage()[what]
    document = copy.deepcopy(measurement())
    change(document)
    with pytest.raises(InputError) as caught:
        check_measurement(document, "it")
    assert caught.value.code == code


def test_the_verb_writes_an_index_and_its_pages(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    files = []
    for i, name in enumerate(("Pixel 9", "Laptop <b>")):
        path = tmp_path / f"{i}.json"
        path.write_text(json.dumps(measurement(name, 1.0 + i)))
        files.append(str(path))
    target = tmp_path / "devices.json"
    assert devices_verb.main([*files, "-o", str(target)]) == 0
    assert str(target) in capsys.readouterr().out
    html = target.with_suffix(".html").read_text()
    assert "Laptop &lt;b&gt;" in html
    assert "Pixel 9" in target.with_suffix(".md").read_text()
    assert verify([str(target)]) == 0
    with pytest.raises(UsageError) as caught:
        devices_verb.main([*files, "-o", str(target)])
    assert caught.value.code == "output.exists"


def test_an_edited_index_does_not_hold(tmp_path: Path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(measurement()))
    target = tmp_path / "devices.json"
    devices_verb.main([str(path), "-o", str(target)])
    target.write_text(target.read_text().replace('"clip_s": 2.1', '"clip_s": 1.1'))
    with pytest.raises(IntegrityError) as caught:
        open_sealed(target, {DEVICE_INDEX.schema: DEVICE_INDEX})
    assert caught.value.code == "report.derived_changed"


def test_a_report_gives_a_row_for_each_valid_arm_of_the_runtime(tmp_path: Path):
    report = tmp_path / "report.json"
    write_report(bench_report.raw_report(pairs=2, noise=0.0), report)
    target = tmp_path / "devices.json"
    assert devices_verb.main([str(report), "-o", str(target)]) == 0
    groups = json.loads(target.read_text())["derived"]["groups"]
    rows = {(row["precision"], round(row["clip_s"], 1)) for g in groups for row in g["rows"]}
    # text + 4 passes + 26 frames + rest of bench_report.PARTS
    assert rows == {("fp32", 591.2), ("int8", 443.2), ("int8", 214.9)}
    assert {row["device"] for g in groups for row in g["rows"]} == {"AMD EPYC 7B13"}


def test_an_edited_report_is_not_merged(tmp_path: Path):
    report = tmp_path / "report.json"
    write_report(bench_report.raw_report(pairs=1, noise=0.0), report)
    report.write_text(report.read_text().replace('"wall_s": ', '"wall_s": 1', 1))
    with pytest.raises(IntegrityError) as caught:
        devices_verb.main([str(report), "-o", str(tmp_path / "devices.json")])
    assert caught.value.code == "report.raw_changed"
    assert not (tmp_path / "devices.json").exists()
