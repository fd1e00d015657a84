"""The verbs of `hummingbird curate`: what they print, what they refuse, how they exit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("pyarrow")
pytest.importorskip("av")

import inline_engine
from curation_source import write_source

from hummingbird_runtime.errors import ExecutionError, InputError, IntegrityError, UsageError
from hummingbird_train.curation import cli
from hummingbird_train.curation.config import load_config
from hummingbird_train.curation.engines import local
from hummingbird_train.curation.rules import Rules
from hummingbird_train.curation.run import Tally

RULES = """
builder = "fake_stages:build"
[rules]
"second.good" = { equals = true }
"""


@pytest.fixture(autouse=True)
def inline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "score", inline_engine.score)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "curation.toml"
    path.write_text(RULES)
    return path


def run(*words: object) -> int:
    return cli.main([str(word) for word in words])


def test_help_names_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--help") == 0
    shown = capsys.readouterr().out
    for verb in ("score", "cut", "recaption", "pack", "report", "estimate", "ledger", "defects"):
        assert f"\n  {verb} " in shown


@pytest.mark.parametrize("verb", cli.VERBS.table)
def test_every_verb_has_help(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        run(verb, "--help")
    assert stopped.value.code == 0
    assert f"usage: hummingbird curate {verb} " in capsys.readouterr().out


@pytest.mark.parametrize("words", [[], ["scor"]])
def test_an_unknown_verb_is_a_usage_error(words: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        run(*words)
    assert caught.value.code == "usage.unknown_verb"


def test_score_then_cut_then_look(
    tmp_path: Path, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, folder = write_source(tmp_path / "s", ["a", "raise", "b"]), tmp_path / "run"
    assert run("score", source, "-o", folder, "--config", config) == 0
    out, err = capsys.readouterr()
    assert "| second.good missing | 1 | 1 | 2 |" in out
    assert "kept 2 of 3 clips (66.7%)" in out
    assert "3 clips, 3 measured now" in err
    assert "warning[curation.failures]: 1 clips failed (clip.corrupt 1)" in err
    assert (folder / "curation.toml").read_text() == RULES
    summary = json.loads((folder / "cut.json").read_text())
    assert (summary["clips"], summary["kept"]) == (3, 2)

    config.write_text(RULES + '"first.number" = { max = -1 }\n')
    assert run("cut", folder, "--config", config, "--dry-run") == 0
    assert "kept 0 of 3" in capsys.readouterr().out
    assert json.loads((folder / "cut.json").read_text()) == summary
    assert run("cut", folder, "--config", config) == 0
    assert json.loads((folder / "cut.json").read_text())["kept"] == 0
    capsys.readouterr()

    assert run("ledger", folder) == 0
    out = capsys.readouterr().out
    assert "| second | 2 | 1 | 0 |" in out
    assert "clip.corrupt\tsecond\t" in out
    assert run("ledger", folder, "--canonical") == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 9
    assert lines == sorted(lines, key=lambda line: json.loads(line)["clip_id"])
    assert run("ledger", folder, "--failed") == 0
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_score_only_leaves_the_cut_alone(
    tmp_path: Path, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, folder = write_source(tmp_path / "s", ["a"]), tmp_path / "run"
    assert run("score", source, "-o", folder, "--config", config, "--score-only", "-q") == 0
    assert capsys.readouterr().out == ""
    assert not (folder / "cut.parquet").exists()
    assert run("cut", folder) == 0  # by the rules of the run's own configuration
    assert (folder / "cut.parquet").exists()


def test_strict_makes_failures_an_exit_code(tmp_path: Path, config: Path) -> None:
    source, folder = write_source(tmp_path / "s", ["a", "raise"]), tmp_path / "run"
    with pytest.raises(ExecutionError) as caught:
        run("score", source, "-o", folder, "--config", config, "--strict", "-q")
    assert caught.value.code == "curation.failures"
    with pytest.raises(ExecutionError):  # also when they failed in an earlier call
        run("score", source, "-o", folder, "--config", config, "--strict", "-q")
    assert run("score", source, "-o", folder, "--config", config, "-q") == 0
    assert (folder / "cut.parquet").exists()


def test_what_is_wrong_is_said_before_anything_is_measured(tmp_path: Path, config: Path) -> None:
    source, folder = write_source(tmp_path / "s", ["a"]), tmp_path / "run"
    config.write_text(RULES + '"a.b" = { minimum = 1 }\n')
    with pytest.raises(UsageError) as caught:
        run("score", source, "-o", folder, "--config", config)
    assert caught.value.code == "rules.invalid"
    with pytest.raises(UsageError):
        run("score", source, "-o", folder, "--ray-address", "auto")
    with pytest.raises(UsageError):
        run("score", source)
    assert not folder.exists()


def test_cut_needs_rules_and_a_run(tmp_path: Path, config: Path) -> None:
    source, folder = write_source(tmp_path / "s", ["a"]), tmp_path / "run"
    config.write_text('builder = "fake_stages:build"\n')
    assert run("score", source, "-o", folder, "--config", config, "-q") == 0
    with pytest.raises(UsageError) as caught:
        run("cut", folder)
    assert caught.value.code == "rules.none"
    with pytest.raises(InputError):
        run("cut", tmp_path / "nowhere")
    config.write_text(RULES)
    with pytest.raises(InputError) as caught:
        run("cut", tmp_path / "s", "--config", config)
    assert caught.value.code == "curation.no_run"


def test_a_damaged_ledger_is_exit_4_and_scoring_mends_it(
    tmp_path: Path, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, folder = write_source(tmp_path / "s", ["a", "b"]), tmp_path / "run"
    words = ["score", source, "-o", folder, "--config", config, "-q"]
    assert run(*words) == 0
    (part,) = (folder / "ledger").glob("part-*.parquet")
    part.write_bytes(part.read_bytes()[:-20])
    with pytest.raises(IntegrityError) as caught:
        run("ledger", folder)
    assert caught.value.code == "ledger.damaged"
    assert caught.value.exit_code == 4
    words.remove("-q")
    assert run(*words) == 0
    assert "warning[ledger.damaged]: part-" in capsys.readouterr().err
    assert run("ledger", folder) == 0


def test_the_progress_line_says_how_long_it_will_take() -> None:
    text = progress = cli.progress_text(Tally(200, 50, 40, 3, 20.0))
    assert "50/200" in text
    assert "2.00 clips/s" in text
    assert "0:01:15 left" in text
    assert "3 failed" in text
    assert progress.count("#") == 6
    assert "0:00:00 left" in cli.progress_text(Tally(1, 1, 0, 0, 0.0))


def test_the_built_in_configuration_and_the_recipe_are_valid() -> None:
    from hummingbird_train.curation.stage import DEFAULT_STAGES, STAGES

    default = load_config(None)
    assert not default.stages  # so that there is one list of them
    recipe = load_config(Path(__file__).parents[3] / "train" / "recipes" / "curation.toml")
    for config in (default, recipe):
        rules = Rules.from_toml(config.rules)
        named = {name.partition(".")[0] for name in rules.named_scores()}
        assert len(named) > 8
        assert named <= set(config.stages or DEFAULT_STAGES) <= STAGES.keys()
