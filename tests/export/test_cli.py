"""The export verbs of the command line: help without torch, typed refusals."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from hummingbird_export import build, cli, package, random_models
from hummingbird_export.facts import FixedSizes
from hummingbird_export.precision import PLANS
from hummingbird_export.targets import TARGETS
from hummingbird_runtime.errors import UsageError

VERBS = ("build", "random", "coverage", "sensitivity")


@pytest.mark.parametrize("words", [["--help"], *([verb, "--help"] for verb in VERBS)])
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
    if words == ["--help"]:
        assert all(f"\n  {verb} " in result.stdout for verb in VERBS)


@pytest.mark.parametrize(
    ("words", "match"),
    [
        ([], "got no verb"),
        (["quantise"], f"got 'quantise', expected one of {', '.join(VERBS)}"),
        (["random"], "--output"),
        (["random", "-o", "x", "--config", "13b"], "13b"),
        (["random", "-o", "x", "--seed", "-1"], "-1"),
        (["random", "-o", "x", "--precision", "int3"], "int3"),
        (["random", "-o", "x", "--num-frames", "26"], "expected all or none"),
        (["random", "-o", "x", "--height", "64", "--width", "64"], "expected all or none"),
        (["random", "-o", "x", "--target", "andriod-qnn"], "did you mean android-qnn"),
        (["random", "-o", "x", "--target", "web", "--precision", "int8"], "target web: got"),
        (["build", "-o", "x", "--precison", "fp32"], "did you mean --precision"),
        (["build", "-o", "x"], "got no unet"),
    ],
)
def test_wrong_calls_are_typed(words: list[str], match: str):
    with pytest.raises(UsageError, match=match):
        cli.main(words)


SIZES = ("--num-frames", "6", "--height", "48", "--width", "16")


def test_every_flag_of_a_random_bundle_reaches_the_export(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    asked: list[dict] = []

    def export(out: Path, **options) -> Path:
        asked.append(options)
        (out / "unet").mkdir(parents=True)
        (out / "unet" / "model.onnx").write_bytes(bytes(123))
        options["note"]("writing")
        return out

    monkeypatch.setattr(package, "export_bundle", export)
    assert cli.main(["random", "-o", str(tmp_path / "plain")]) == 0
    flags = ("--vae-encoder", "--force-quality", "--force", "--hard", "--seed", "7")
    words = [
        "random",
        "-o",
        str(tmp_path / "all"),
        "--target",
        "android-qnn",
        "--precision",
        "int8",
    ]
    assert cli.main([*words, *SIZES, *flags]) == 0
    captured = capsys.readouterr()
    assert captured.out.splitlines() == [str(tmp_path / "plain"), str(tmp_path / "all")]
    assert "writing" in captured.err
    assert "done, 123 bytes" in captured.err
    plain, full = asked
    assert (plain["target"], plain["precision"], plain["sizes"]) == ("portable", None, None)
    assert (plain["name"], full["name"]) == ("random-tiny", "random-tiny-hard")
    assert full["provenance"] == {"weights": "random, hard, seed 7"}
    assert (full["target"], full["precision"]) == ("android-qnn", "int8")
    assert full["sizes"] == FixedSizes(6, 48, 16)
    for switch in ("vae_encoder", "force_quality", "overwrite"):
        assert (plain[switch], full[switch]) == (False, True)
    assert plain["tiny_decoder"] is not None
    assert not plain["unet"].out[2].weight.equal(full["unet"].out[2].weight)


def test_every_flag_of_a_build_reaches_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    asked: list[tuple] = []

    def record(out: Path, plan: build.BuildPlan, **options) -> Path:
        asked.append((plan, options))
        out.mkdir()
        return out

    monkeypatch.setattr(build, "build", record)
    paths = {name: tmp_path / name for name in ("unet", "vae", "text", "tokenizer", "terms")}
    named = [f"--{name}" for name in ("unet", "vae", "text", "tokenizer")]
    words = [word for flag in named for word in (flag, str(paths[flag[2:]]))]
    words += ["--licence", "MIT", "--licence-file", str(paths["terms"]), "--name", "mine"]
    words += ["--tiny-decoder", str(tmp_path / "small"), "--target", "cpu", "--precision", "w8"]
    out = str(tmp_path / "out")
    assert cli.main(["build", "-o", out, *words, *SIZES, "--force-quality"]) == 0
    ((plan, options),) = asked
    assert plan == build.BuildPlan(
        unet=paths["unet"], vae=paths["vae"], text=paths["text"], tokenizer=paths["tokenizer"],
        licence_name="MIT", licence_file=paths["terms"], name="mine", precision="w8",
        target="cpu", tiny_decoder=tmp_path / "small",
    )  # fmt: skip
    assert options["sizes"] == FixedSizes(6, 48, 16)
    assert (options["force_quality"], options["vae_encoder"], options["overwrite"]) == (
        True, False, False,
    )  # fmt: skip


def test_an_existing_output_is_refused_before_any_work(tmp_path: Path):
    (tmp_path / "file").write_text("kept")
    with pytest.raises(UsageError) as caught:
        cli.main(["random", "-o", str(tmp_path)])
    assert caught.value.code == "output.exists"


def test_the_choices_of_the_flags_are_those_of_the_code():
    assert cli.PRESETS == random_models.PRESETS
    assert all(build.check_precision(name) == name for name in cli.PRECISIONS)
    planned = {precision for target in TARGETS for precision in target.precisions}
    assert set(cli.PRECISIONS) == set(PLANS) == planned
