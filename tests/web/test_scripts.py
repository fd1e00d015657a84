"""The JavaScript's own tests (golden vectors, damaged bundles, order of a run) and its types."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

WEB = Path(__file__).parents[2] / "mobile_demo" / "web"

pytestmark = pytest.mark.web


def test_golden_vectors_bundles_and_runs(node: str) -> None:
    done = subprocess.run(
        [node, "--test", "--test-reporter=tap"], cwd=WEB, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    passed = re.search(r"^# pass (\d+)$", done.stdout, re.MULTILINE)
    assert passed, done.stdout
    assert int(passed[1]) >= 22, "files of tests were not found"


@pytest.mark.slow
def test_types(node: str, packages: Path) -> None:
    compiler = packages / "typescript" / "lib" / "tsc.js"
    done = subprocess.run(
        [node, str(compiler), "-p", "jsconfig.json"], cwd=WEB, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout
