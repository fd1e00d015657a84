"""The house rules that a machine can check and ruff does not: see CONTRIBUTING.md."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CODE = ("runtime", "train", "export", "benchmarks", "mobile_demo", "tests", "examples")
FOLDERS = (*CODE, "docs", "constraints", ".ci")
TEXT = {".py", ".md", ".toml", ".yml", ".yaml", ".cff", ".txt", ".json", ".sh"}
TEXT_NAMES = {"Makefile", "NOTICE", ".gitignore", "run"}
SKIPPED = {"__pycache__", "_bundles", "checkpoints"}
BANNED_NAMES = {"utils", "util", "helpers", "helper", "common", "misc"}
LIMITS = {"runtime": 200}
DEFAULT_LIMIT = 400

# Written in pieces, so that this file does not find itself.
MACHINE_PATHS = re.compile(
    r"(?<![\w.:/])/" + r"(?:work|home|Users|root|opt|mnt|srv)/\w" + r"|[A-Z]:\\" + r"\\?Users"
)
UNFINISHED = re.compile(r"\b(?:TO" + r"DO|FIX" + r"ME|XX" + r"X|HA" + r"CK)\b")


def is_ours(path: Path) -> bool:
    parts = path.relative_to(ROOT).parts
    return not any(part in SKIPPED or part.endswith("_cache") for part in parts)


def text_files() -> list[Path]:
    found = [path for path in ROOT.iterdir() if path.is_file()]
    for folder in FOLDERS:
        found += (ROOT / folder).rglob("*")
    texts = [path for path in found if path.suffix in TEXT or path.name in TEXT_NAMES]
    return sorted(path for path in texts if path.is_file() and is_ours(path))


def modules() -> list[Path]:
    return [path for path in text_files() if path.suffix == ".py"]


def offending_lines(pattern: re.Pattern[str]) -> list[str]:
    return [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:80]}"
        for path in text_files()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if pattern.search(line)
    ]


def test_files_stay_short():
    long = {}
    for path in modules():
        relative = path.relative_to(ROOT)
        count = len(path.read_text(encoding="utf-8").splitlines())
        if count > LIMITS.get(relative.parts[0], DEFAULT_LIMIT):
            long[str(relative)] = count
    assert not long


def test_modules_are_named_by_what_they_hold():
    for path in modules():
        words = {path.stem, *path.relative_to(ROOT).parts[:-1]}
        assert not words & BANNED_NAMES, path.relative_to(ROOT)


@pytest.mark.parametrize("folder", [name for name in CODE if name != "tests"])
def test_modules_open_with_what_they_hold(folder: str):
    for path in modules():
        relative = path.relative_to(ROOT)
        if relative.parts[0] == folder:
            assert re.match(r'r?"""\S', path.read_text(encoding="utf-8")), relative


def test_no_path_of_one_machine():
    assert not offending_lines(MACHINE_PATHS)


def test_nothing_is_left_unfinished():
    assert not offending_lines(UNFINISHED)


def test_the_patterns_catch_what_they_are_for():
    for text in ("/" + "home/ann/x", 'open("/' + 'work/a")', "C:" + "\\Users"):
        assert MACHINE_PATHS.search(text), text
    for text in ("# TO" + "DO: later", "FIX" + "ME"):
        assert UNFINISHED.search(text), text
    assert not MACHINE_PATHS.search("https://example.org/home/page")
    assert not MACHINE_PATHS.search("runs/work/x")
