"""The wheel in a clean environment: NumPy and ONNX Runtime are enough to draw a clip."""

from __future__ import annotations

import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BIN = "Scripts" if sys.platform == "win32" else "bin"


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run([str(c) for c in command], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.slow
def test_a_clean_environment_draws_a_clip_from_the_wheel(tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    build = ["wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(tmp_path)]
    run(*pip, *build, ROOT, cwd=tmp_path)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    for part in ("_bundles/shapes-v1/manifest.json", "py.typed", "data/clip_merges.txt.gz"):
        assert any(name.endswith(part) for name in names), part

    venv.create(tmp_path / "clean", with_pip=True)
    python = tmp_path / "clean" / BIN / "python"
    constraint = ROOT / "constraints" / "video.txt"
    run(python, "-m", "pip", "install", "--quiet", "-c", constraint, wheel, cwd=tmp_path)
    listed = run(python, "-m", "pip", "list", "--format", "freeze", cwd=tmp_path).lower()
    assert not {"torch", "onnx", "av", "pillow"} & {line.split("==")[0] for line in listed.split()}
    command = tmp_path / "clean" / BIN / "hummingbird"
    assert "every hash right" in run(command, "verify", cwd=tmp_path)
    run(command, "generate", "a large blue ring on a grey background", "-o", "x.png", cwd=tmp_path)
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")
