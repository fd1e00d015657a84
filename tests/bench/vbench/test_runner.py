"""The runner, driving an executable that stands in for the environment of the real package."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from hummingbird_bench.cli import main as bench
from hummingbird_bench.vbench.aggregate import DIMENSIONS, aggregate
from hummingbird_bench.vbench.runner import main
from hummingbird_runtime.errors import ExecutionError, InputError, TimeLimitError, UsageError

STAND_IN = """#!{python} -IS
import json, os, pathlib, sys, time
plan = json.loads((pathlib.Path(__file__).parent.parent / "plan.json").read_text())
with open(pathlib.Path(__file__).parent.parent / "calls.jsonl", "a") as log:
    log.write(json.dumps(sys.argv[1:]) + "\\n")
words = sys.argv[1:]
value = dict(zip(words, words[1:]))
if "static_filter" in words:
    chosen = pathlib.Path(value["--result_path"]) / "filtered_videos"
    chosen.mkdir(parents=True)
    for path in sorted(pathlib.Path(value["--videos_path"]).glob("*.mp4"))[: plan["static"]]:
        (chosen / path.name).write_bytes(path.read_bytes())
    (chosen.parent / "filtered_static_video.json").write_text("{{}}")
    sys.exit(0)
assert words[:2] == ["-m", "vbench.launch.evaluate"], words
name = value["--dimension"]
print("evaluating", name)
if name == plan.get("fails"):
    print("RuntimeError: weights not found")
    sys.exit(3)
if name == plan.get("hangs"):
    time.sleep(30)
if name != plan.get("silent"):
    out = pathlib.Path(value["--output_path"]) / "results_2026-01-01-00:00:00_eval_results.json"
    out.write_text(json.dumps({{name: [plan["scores"][name], []]}}))
"""


@pytest.fixture
def venv(tmp_path: Path) -> Path:
    folder = tmp_path / "ve nv"
    (folder / "bin").mkdir(parents=True)
    python = folder / "bin" / "python"
    python.write_text(STAND_IN.format(python=sys.executable))
    python.chmod(0o755)
    _plan(folder)
    return folder


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    folder = tmp_path / "my clips"
    folder.mkdir()
    for i in range(3):
        (folder / f"a cat; rm -rf $HOME-{i}.mp4").write_bytes(b"clip")
    return folder


def _plan(venv: Path, **changes: object) -> None:
    scores = {name: 0.3 + 0.02 * i for i, name in enumerate(DIMENSIONS)}
    (venv / "plan.json").write_text(json.dumps({"scores": scores, "static": 2} | changes))


def _calls(venv: Path) -> list[list[str]]:
    return [json.loads(line) for line in (venv / "calls.jsonl").read_text().splitlines()]


def _run(clips: Path, venv: Path, *words: str) -> int:
    return main([str(clips), "--python", str(venv), "-q", *words])


def test_every_dimension_runs_once_and_the_formula_is_applied(
    clips: Path, venv: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(clips, venv, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    expected = {name: 0.3 + 0.02 * i for i, name in enumerate(DIMENSIONS)}
    assert document["scores"] == pytest.approx(expected)
    assert document["total"] == pytest.approx(aggregate(expected).total)
    assert json.loads((clips.parent / "my clips.vbench" / "scores.json").read_text()) == document
    assert len(_calls(venv)) == 17  # sixteen dimensions and the static filter
    assert _run(clips, venv) == 0
    assert len(_calls(venv)) == 17  # nothing is measured twice
    assert "| **total** |" in capsys.readouterr().out


def test_flickering_is_judged_on_the_clips_that_the_static_filter_picked(
    clips: Path, venv: Path
) -> None:
    assert _run(clips, venv, "--dimensions", "temporal_flickering,color") == 0
    calls = _calls(venv)
    folder = calls[1][calls[1].index("--videos_path") + 1]
    assert folder.endswith("filtered_videos")
    assert len(list(Path(folder).iterdir())) == 2
    assert calls[2][calls[2].index("--videos_path") + 1] == str(clips)  # spaces and ; untouched


def test_no_static_clip_is_an_error_unless_the_filter_is_left_out(clips: Path, venv: Path) -> None:
    _plan(venv, static=0)
    with pytest.raises(ExecutionError, match="temporal_flickering"):
        _run(clips, venv, "--dimensions", "temporal_flickering")
    assert _run(clips, venv, "--dimensions", "temporal_flickering", "--no-static-filter") == 0


def test_a_failing_dimension_does_not_cost_the_others(
    clips: Path, venv: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _plan(venv, fails="scene", silent="color")
    with pytest.raises(ExecutionError, match="2 failures") as caught:
        _run(clips, venv, "--dimensions", "scene,color,human_action")
    assert caught.value.code == "vbench.incomplete"
    talk = capsys.readouterr()
    assert "failed[vbench.failed] scene: scene: exit code 3" in talk.err
    assert "weights not found" in talk.err
    assert "failed[vbench.no_result] color" in talk.err
    assert "| human_action | 48.00 |" in talk.out
    _plan(venv)
    assert _run(clips, venv, "--dimensions", "scene,color,human_action") == 0


def test_a_dimension_has_a_time_limit(
    clips: Path, venv: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _plan(venv, hangs="color")
    with pytest.raises(ExecutionError):
        _run(clips, venv, "--dimensions", "color", "--timeout", "0.5")
    assert "failed[vbench.timeout]" in capsys.readouterr().err
    assert issubclass(TimeLimitError, Exception)


def test_a_score_that_is_nan_or_of_another_form_is_no_score(
    clips: Path, venv: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _plan(venv, scores={"color": float("nan"), "scene": []})
    with pytest.raises(ExecutionError, match="2 failures"):
        _run(clips, venv, "--dimensions", "color,scene")
    err = capsys.readouterr().err
    assert "failed[vbench.score] color" in err
    assert "failed[vbench.result] scene" in err


def test_custom_input_judges_six_dimensions(clips: Path, venv: Path) -> None:
    assert _run(clips, venv, "--mode", "custom_input") == 0
    assert len(_calls(venv)) == 6
    with pytest.raises(UsageError, match="custom_input"):
        _run(clips, venv, "--mode", "custom_input", "--dimensions", "color")


def test_wrong_places_are_named(clips: Path, venv: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no interpreter"):
        main([str(clips), "--python", str(tmp_path / "nowhere")])
    with pytest.raises(UsageError, match="--python"):
        main([str(clips)])
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"no \.mp4"):
        main([str(tmp_path / "empty"), "--python", str(venv)])
    broken = tmp_path / "broken"
    broken.write_text("no program")
    broken.chmod(0o755)
    with pytest.raises(UsageError, match="broken"):
        main([str(clips), "--python", str(broken), "--dimensions", "color", "-q"])


def test_the_verb_is_reached_and_lists_weights(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench(["vbench", "--weights-list"]) == 0
    assert "ViClip-InternVid-10M-FLT.pth" in capsys.readouterr().out
    assert bench(["--help"]) == 0
    with pytest.raises(UsageError, match="expected one of run, "):
        bench(["vbenhc"])
