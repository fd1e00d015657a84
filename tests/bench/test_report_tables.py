"""Marked tables of Markdown files are filled from verified reports, and nothing else changes."""

from __future__ import annotations

import json
from pathlib import Path

import bench_report
import pytest
from bench_report import OURS, THEIRS

from hummingbird_bench import verify_verb
from hummingbird_bench.report import write_report
from hummingbird_runtime.errors import InputError, IntegrityError, UsageError

SPEEDUP, REPORTS, END = (
    "<!-- table: speed-up -->",
    "<!-- table: reports -->",
    "<!-- end of table -->",
)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "full.json"
    write_report(bench_report.raw_report(pairs=4), path)
    return path


def test_the_readme_table_has_the_headline_ratios_and_what_must_be_said(
    report: Path, tmp_path: Path
):
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{SPEEDUP}\nold figures\n{END}\nafter\n{END}\n")
    assert verify_verb.main([str(report), "--table", str(readme)]) == 0
    text = readme.read_text()
    assert text.startswith(f"before\n{SPEEDUP}\n")
    assert text.endswith(f"{END}\nafter\n{END}\n")
    assert "old figures" not in text
    derived = json.loads(report.read_text())["derived"]
    (told,) = [line for line in text.splitlines() if line.startswith(f"| {OURS} | {THEIRS}")]
    ratio = next(c["ratio"] for c in derived["comparisons"] if c["b"] == OURS)
    assert f"{ratio['estimate']:.1f}×" in told
    assert f"{ratio['low']:.1f}, {ratio['high']:.1f}]" in told
    assert "extrapolated, architecture only" in told
    assert "OpenVINO" not in text  # no headline
    assert "(again)" not in text  # the A/A run


def test_filling_twice_changes_nothing(report: Path, tmp_path: Path):
    index = tmp_path / "README.md"
    index.write_text(f"{REPORTS}\n{END}\n{SPEEDUP}\n{END}\n")
    arguments = [str(report), "--table", str(index)]
    verify_verb.main(arguments)
    once = index.read_text()
    verify_verb.main(arguments)
    assert index.read_text() == once
    assert "| full.json | Hummingbird against VideoCrafter2 on two cores | AMD EPYC 7B13 |" in once
    assert json.loads(report.read_text())["sha256"]["raw"][:16] in once


@pytest.mark.parametrize("text", ["no mark", f"{SPEEDUP}\nno end", f"{END}\n{SPEEDUP}"])
def test_a_file_without_its_marks_is_left_alone(report: Path, tmp_path: Path, text: str):
    target = tmp_path / "README.md"
    target.write_text(text)
    with pytest.raises(InputError) as caught:
        verify_verb.main([str(report), "--table", str(target)])
    assert caught.value.code == "report.no_mark"
    assert target.read_text() == text


def test_an_edited_report_fills_no_table(report: Path, tmp_path: Path):
    document = json.loads(report.read_text())
    document["derived"]["comparisons"][0]["ratio"]["estimate"] = 99.0
    edited = tmp_path / "edited.json"
    edited.write_text(json.dumps(document))
    target = tmp_path / "README.md"
    target.write_text(f"{SPEEDUP}\n{END}\n")
    with pytest.raises(IntegrityError) as caught:
        verify_verb.main([str(edited), "--table", str(target)])
    assert caught.value.code == "report.derived_changed"
    assert target.read_text() == f"{SPEEDUP}\n{END}\n"


def test_a_table_needs_a_file(report: Path, tmp_path: Path):
    with pytest.raises(UsageError) as caught:
        verify_verb.main([str(report), "--table", str(tmp_path / "none.md")])
    assert caught.value.code == "report.not_found"
