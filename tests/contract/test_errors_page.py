"""docs/errors.md lists every error code of the sources, no other, and is up to date."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

from hummingbird_runtime import errors

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    path = ROOT / "docs" / "generate_errors.py"
    spec = importlib.util.spec_from_file_location("generate_errors", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def collected(generator: ModuleType) -> tuple[dict[str, set[str]], list[str]]:
    return generator.collect()


def test_every_code_is_documented_and_none_is_stale(generator: ModuleType, collected) -> None:
    assert generator.problems(*collected, generator.read_meanings()) == []


def test_the_page_is_up_to_date(generator: ModuleType, collected) -> None:
    expected = generator.page(collected[0], generator.read_meanings())
    assert (ROOT / "docs" / "errors.md").read_text(encoding="utf-8") == expected, (
        "run python docs/generate_errors.py"
    )


def test_codes_have_one_form(collected) -> None:
    for code in collected[0]:
        assert re.fullmatch(r"[a-z]+\.[a-z_]+", code), code


def test_exit_codes_are_those_of_the_classes(generator: ModuleType) -> None:
    for name, code in generator.error_classes().items():
        assert getattr(errors, name).exit_code == code


def test_codes_are_found_through_parameters_and_unclear_ones_are_reported(
    generator: ModuleType, tmp_path: Path
) -> None:
    for source in generator.SOURCES:
        (tmp_path / source).mkdir(parents=True)
    (tmp_path / generator.SOURCES[0] / "a.py").write_text(
        "raise InputError('a.plain', 'x')\n"
        "def check(code, name):\n"
        "    raise UsageError(code, 'x')\n"
        "    raise InputError(f'b.{name}', 'x')\n"
        "class Stop(Cancelled): pass\n"
        "warnings.append(Warning('c.warned', 'x'))\n"
    )
    (tmp_path / generator.SOURCES[1] / "b.py").write_text(
        "def outer(code):\n    check(code, 'size')\nouter('d.passed')\n"
    )
    found, unclear = generator.collect(tmp_path)
    assert found == {
        "a.plain": {"3"}, "b.size": {"3"}, "c.warned": {"warning"}, "d.passed": {"2"}
    }  # fmt: skip
    assert unclear == []
    (tmp_path / generator.SOURCES[2] / "c.py").write_text("raise InputError(CODES[0], 'x')\n")
    assert generator.collect(tmp_path)[1] == ["export/hummingbird_export/c.py:1"]
