"""`bench verify` holds a report against itself: edits of raw or derived figures do not pass."""

from __future__ import annotations

import copy
import hashlib
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bench_report
import pytest

from hummingbird_bench import verify_verb
from hummingbird_bench.report import REPORT, open_report, write_report
from hummingbird_bench.sealed_document import canonical, check_sealed, difference, seal
from hummingbird_runtime.errors import HummingbirdError, InputError, IntegrityError, UsageError

KINDS = {REPORT.schema: REPORT}


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return seal(REPORT, bench_report.raw_report(pairs=2))


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if isinstance(value, dict | list):
        keys = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in keys:
            yield from leaves(item, (*path, key))
    else:
        yield path


def edit(document: dict[str, Any], path: tuple[Any, ...]) -> dict[str, Any]:
    """A copy with one value changed a little, its type kept."""
    changed = copy.deepcopy(document)
    place = changed
    for key in path[:-1]:
        place = place[key]
    old = place[path[-1]]
    if isinstance(old, bool):
        new: Any = not old
    elif isinstance(old, int):
        new = old + 1
    elif isinstance(old, float):
        new = old * 1.001 + 1e-6
    else:
        new = 1 if old is None else old + "x"
    place[path[-1]] = new
    return changed


def hash_of(value: Any) -> str:
    return hashlib.sha256(canonical(value, "test")).hexdigest()


def raw_of(document: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in document.items() if k not in ("derived", "sha256")}


def some_leaves(part: Any, prefix: tuple[Any, ...], count: int) -> list[tuple[Any, ...]]:
    return random.Random(0).sample([(*prefix, *p) for p in leaves(part)], count)


def test_a_report_holds_as_written(document: dict[str, Any], tmp_path: Path):
    path = tmp_path / "report.json"
    write_report(raw_of(document), path)
    opened = open_report(path)
    assert opened.sha256 == document["sha256"]["raw"]
    assert json.loads(path.read_text()) == document


def test_every_kind_of_edit_of_a_raw_figure_is_found(document: dict[str, Any]):
    for path in some_leaves(document["samples"], ("samples",), 40):
        changed = edit(document, path)
        with pytest.raises((IntegrityError, InputError)) as caught:
            check_sealed(changed, KINDS, "it")
        # a phase is one of three words, any other figure is found by the hash alone
        wanted = "report.invalid" if path[-1] == "phase" else "report.raw_changed"
        assert caught.value.code == wanted, path


def test_every_derived_figure_is_computed_again(document: dict[str, Any]):
    for path in some_leaves(document["derived"], ("derived",), 20):
        with pytest.raises(IntegrityError) as caught:
            check_sealed(edit(document, path), KINDS, "it")
        assert caught.value.code == "report.derived_changed", path


def test_a_derived_figure_edited_with_its_hash_is_found_by_recomputing(document: dict[str, Any]):
    changed = edit(document, ("derived", "comparisons", 0, "ratio", "estimate"))
    changed["sha256"]["derived"] = hash_of(changed["derived"])
    with pytest.raises(IntegrityError, match=r"comparisons\[0\]\.ratio\.estimate") as caught:
        check_sealed(changed, KINDS, "it")
    assert caught.value.code == "report.derived_changed"


def test_a_raw_figure_edited_with_its_hash_is_found_by_recomputing(document: dict[str, Any]):
    place = next(i for i, s in enumerate(document["samples"]) if s["phase"] == "steady")
    changed = edit(document, ("samples", place, "wall_s"))
    changed["sha256"]["raw"] = hash_of(raw_of(changed))
    with pytest.raises(IntegrityError) as caught:
        check_sealed(changed, KINDS, "it")
    assert caught.value.code == "report.derived_changed"


def test_a_removed_sample_is_found(document: dict[str, Any]):
    changed = copy.deepcopy(document)
    del changed["samples"][-1]
    with pytest.raises(IntegrityError) as caught:
        check_sealed(changed, KINDS, "it")
    assert caught.value.code == "report.raw_changed"


def test_the_last_bit_of_another_processor_is_no_edit():
    assert difference({"a": [1.0, None]}, {"a": [1.0 + 1e-15, None]}, "x") == ""
    assert (
        difference({"a": [1.0]}, {"a": [1.0 + 1e-6]}, "x") == "x.a[0]: got 1.000001, expected 1.0"
    )
    assert "keys b" in difference({"a": 1}, {"a": 1, "b": 2}, "x")
    assert "entries" in difference([1], [1, 2], "x")
    assert difference(True, 1, "x")
    assert difference(None, 0, "x")
    assert difference("1", 1, "x")


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "report.invalid"),
        ("[]", "report.invalid"),
        ("{}", "report.invalid"),
        ('{"schema": 1}', "report.invalid"),
        ('{"schema": "hummingbird-bench/9"}', "report.version"),
        ('{"schema": "hummingbird-bench/1"}', "report.invalid"),
        ('{"schema": "hummingbird-bench/1", "schema": "hummingbird-bench/1"}', "report.invalid"),
        ('{"schema": NaN}', "report.invalid"),
        ("[" * 5000, "report.invalid"),
        ("\xff\xfe", "report.invalid"),
    ],
)
def test_what_is_no_report_is_refused(text: str, code: str, tmp_path: Path):
    path = tmp_path / "report.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(HummingbirdError) as caught:
        verify_verb.main([str(path)])
    assert caught.value.code == code


def test_missing_parts_are_named(document: dict[str, Any]):
    with pytest.raises(InputError, match="derived and sha256"):
        check_sealed(raw_of(document), KINDS, "it")


def test_a_file_that_is_not_there_is_a_usage_error(tmp_path: Path):
    for path in (tmp_path / "none.json", tmp_path):
        with pytest.raises(UsageError) as caught:
            verify_verb.main([str(path)])
        assert caught.value.code == "report.not_found"


def test_numbers_that_json_does_not_have_are_refused():
    raw = bench_report.raw_report(pairs=1)
    raw["samples"][0]["wall_s"] = float("nan")
    with pytest.raises(InputError) as caught:
        seal(REPORT, raw)
    assert caught.value.code == "report.invalid"


def test_the_verb_says_what_holds_and_renders(
    document: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    path = tmp_path / "report.json"
    path.write_text(json.dumps(document))
    assert verify_verb.main([str(path), "--render"]) == 0
    said = capsys.readouterr().out
    assert f"{path}: holds" in said
    assert document["sha256"]["raw"] in said
    assert (tmp_path / "report.md").read_text().startswith("# ")
    assert (tmp_path / "report.html").read_text().startswith("<!doctype html>")


def test_the_help_says_what_it_does_not_guard_against(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as caught:
        verify_verb.main(["--help"])
    assert caught.value.code == 0
    assert "not against forgery" in " ".join(capsys.readouterr().out.split())
