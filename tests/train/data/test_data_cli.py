"""`hummingbird train data`: what it prints about a source, and its exit code."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from hummingbird_train.data.cli import main


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for i in range(3):
        np.save(tmp_path / f"{i}.npy", np.zeros((20, 16, 24, 3), np.uint8))
    (tmp_path / "0.txt").write_text("a red ball", "utf-8")
    return tmp_path


def test_a_sound_source(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    size = ["--height", "8", "--width", "8"]
    assert main([str(folder), *size, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["clips"] == report["readable"] == 3
    assert report["frames"] == [20, 20, 20]
    assert report["sizes"] == {"24x16": 3}
    assert report["fps"] == {"unknown": 3}
    assert report["without_caption"] == 2
    assert report["captions"] == ["a red ball"]
    assert main([str(folder), *size]) == 0
    text = capsys.readouterr().out
    assert "24x16 (3)" in text
    assert "20 to 20, median 20" in text


def test_failures_are_listed_and_give_exit_code_3(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "1.npy").write_bytes(b"broken")
    assert main([str(folder), "--num-frames", "20", "--height", "8", "--width", "8"]) == 3
    text = capsys.readouterr().out
    assert "1.npy: [data.corrupt]" in text
    assert "failures        1" in text
