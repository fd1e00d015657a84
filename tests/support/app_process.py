"""Starts the demo app's driver as a child process and reads what its scene saw."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

DRIVER = Path(__file__).parents[1] / "demo" / "app_driver.py"


def run_app(scene: str, folder: Path, size: str = "360x800", **options: object) -> dict:
    pairs = [f"{name}={value}" for name, value in options.items()]
    done = subprocess.run(
        [sys.executable, str(DRIVER), scene, str(folder), size, *pairs],
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, "KIVY_HOME": str(folder / "kivy"), "HOME": str(folder)},
    )
    if "Unable to find any valuable Window provider" in done.stderr + done.stdout:
        pytest.skip("no OpenGL driver, not even a software one")
    assert done.returncode == 0, done.stderr[-2000:]
    result = json.loads(done.stdout.splitlines()[-1])
    assert "error" not in result, result["error"]
    return result
