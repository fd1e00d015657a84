"""The whole training side on a few steps: every stage runs, resumes, and can be published."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from hummingbird_runtime.cli import main
from hummingbird_train.feedback.judge import Judge, JudgeConfig, save_judge

ROOT = Path(__file__).parents[2]


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    text = (ROOT / "train" / "recipes" / "shapes.toml").read_text("utf-8")
    text = re.sub(r"^steps = \d+", "steps = 2", text, flags=re.M)
    text = re.sub(r"cache_clips = \d+", "cache_clips = 4", text)
    text = re.sub(r"^batch = \d+", "batch = 2", text, flags=re.M)
    path = tmp_path / "recipe.toml"
    path.write_text(re.sub(r"images_batch = \d+", "images_batch = 2", text), "utf-8")
    return path


@pytest.fixture
def judges(tmp_path: Path) -> Path:
    """Of random weights, where stage `feedback` looks for them."""
    folder = tmp_path / "run" / "judges"
    for name, build in (("a", "frames"), ("b", "volume")):
        (folder / name).mkdir(parents=True)
        save_judge(folder / name / "judge.safetensors", Judge(JudgeConfig(width=8, build=build)))
    return folder


@pytest.mark.slow
@pytest.mark.usefixtures("judges")
def test_every_stage_trains_and_the_run_is_published(recipe: Path, tmp_path: Path) -> None:
    run = ["--run", str(tmp_path / "run"), "--processes", "1", "-q"]
    assert main(["train", "all", str(recipe), *run]) == 0
    out = tmp_path / "shapes-test"
    licence = ["--licence-file", str(ROOT / "LICENSE")]
    assert main(["train", "publish", str(recipe), *run[:2], "-o", str(out), *licence]) == 0
    files = {"unet.safetensors", "tiny_decoder.safetensors", "upscaler.safetensors", "build.json"}
    assert {p.name for p in out.iterdir()} >= files
    build = json.loads((out / "build.json").read_text("utf-8"))
    assert build["scheduler"]["sampler"] == "lcm"
    assert build["facts"]["guidance"]["trained"] == [1.0, 2.0]


@pytest.mark.usefixtures("judges")
def test_a_run_in_one_go_stops_where_its_minutes_end(
    recipe: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = ["--run", str(tmp_path / "run"), "--processes", "1", "-q", "--minutes", "0.0001"]
    assert main(["train", "all", str(recipe), *run]) == 0
    assert capfd.readouterr().out.startswith("vae: paused; run again to go on")
    assert not (tmp_path / "run" / "decoder").exists()


@pytest.mark.parametrize("missing", ["a", "b"])
def test_a_missing_judge_is_told_before_the_first_stage(
    recipe: Path, judges: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], missing: str
) -> None:
    shutil.rmtree(judges / missing)
    run = ["--run", str(tmp_path / "run"), "--processes", "1", "-q"]
    assert main(["train", "all", str(recipe), *run]) == 2
    last = capfd.readouterr().err.splitlines()[-1]
    assert last.startswith("error[train.order]: ")
    assert f"`hummingbird train judge {missing} --run {judges}`" in last
    assert not (tmp_path / "run" / "vae").exists()


def test_a_stage_out_of_order_is_refused_in_one_line(
    recipe: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = ["--run", str(tmp_path / "run"), "--processes", "1", "-q"]
    assert main(["train", "base", str(recipe), *run]) == 2
    assert capfd.readouterr().err.splitlines()[-1].startswith("error[train.order]: ")


def test_a_missing_recipe_is_refused_before_any_process_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "vae", str(tmp_path / "none.toml")]) == 3
    assert "error[recipe.unreadable]" in capsys.readouterr().err
