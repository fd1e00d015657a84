"""The export verbs of the command line: help without torch, typed refusals."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from hummingbird_export import build, cli, random_models
from hummingbird_runtime.errors import UsageError


@pytest.mark.parametrize("words", [["--help"], ["build", "--help"], ["random", "--help"]])
def test_help_needs_no_torch_and_no_onnx(words: list[str]):
    code = (
        "import sys\n"
        "from hummingbird_export.cli import main\n"
        "try:\n"
        f"    assert main({words!r}) == 0\n"
        "except SystemExit as stop:\n"
        "    assert stop.code == 0\n"
        "loaded = {'torch', 'onnx', 'onnx_ir', 'onnxruntime', 'onnxscript'} & set(sys.modules)\n"
        "assert not loaded, loaded\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "usage: hummingbird export" in result.stdout


@pytest.mark.parametrize(
    ("words", "match"),
    [
        ([], "got no verb"),
        (["quantise"], "got 'quantise', expected one of build, random"),
        (["random"], "--output"),
        (["random", "-o", "x", "--config", "13b"], "13b"),
        (["random", "-o", "x", "--seed", "-1"], "-1"),
        (["build", "-o", "x", "--precison", "fp32"], "did you mean --precision"),
    ],
)
def test_wrong_calls_are_typed(words: list[str], match: str):
    with pytest.raises(UsageError, match=match):
        cli.main(words)


def test_an_existing_output_is_refused_before_any_work(tmp_path: Path):
    (tmp_path / "file").write_text("kept")
    with pytest.raises(UsageError) as caught:
        cli.main(["random", "-o", str(tmp_path)])
    assert caught.value.code == "output.exists"


def test_the_choices_of_the_flags_are_those_of_the_code():
    assert cli.PRESETS == random_models.PRESETS
    assert all(build.check_precision(name) == name for name in cli.PRECISIONS)
