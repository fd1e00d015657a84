"""The estimate: a seeded sample, the same on every machine, and arithmetic that can be checked."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pyarrow")
pytest.importorskip("av")

import inline_engine
from curation_source import write_source

from hummingbird_runtime.errors import InputError
from hummingbird_train.curation import cli
from hummingbird_train.curation.clip import Clip
from hummingbird_train.curation.config import CurationConfig
from hummingbird_train.curation.engines import local
from hummingbird_train.curation.estimate import DECODE, Estimate, draw, estimate, interval
from hummingbird_train.curation.run import ScoreOptions

GIVEN = Estimate(100, 4, 1, 1.2, 1.0, 1.5, {DECODE: 0.9, "camera": 0.3}, 5.0)


def clips(count: int) -> list[Clip]:
    return [Clip(f"{number:032x}", f"/{number}.mp4") for number in range(count)]


def test_the_projection_is_its_formula() -> None:
    assert GIVEN.core_hours(10_700_000) == pytest.approx(10_700_000 * 1.2 / 3600)
    assert GIVEN.hours(10_700_000, 64) == pytest.approx(10_700_000 * 1.2 / 3600 / 64)
    text = GIVEN.text(10_700_000, 64, 0.04)
    assert "10,700,000 clips x 1.2000 s / 3600 = 3,566.7 (2,972.2 to 4,458.3)" in text
    assert "3,566.7 core-hours / 64 cores = 55.73" in text
    assert "3,566.7 core-hours x 0.04 = 142.67 (118.89 to 178.33)" in text
    assert "0.83 clips/s a core (95 % interval 0.67 to 1.00)" in text
    assert "| (decode) | 0.9000 | 75.0% |" in text


def test_the_draw_depends_on_the_seed_and_not_on_the_order() -> None:
    everything = clips(500)
    shuffled = random.Random(1).sample(everything, 500)
    total, chosen = draw(everything, 20, 7)
    assert (total, len(chosen)) == (500, 20)
    assert draw(shuffled, 20, 7) == (500, chosen)
    assert draw(everything, 20, 8)[1] != chosen
    assert draw(everything, 30, 7)[1][:20] == chosen  # a larger sample contains the smaller
    assert len(draw(everything[:5], 20, 7)[1]) == 5


def test_the_interval_covers_the_mean_of_a_known_law() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for seed in range(80):
        low, high = interval(rng.exponential(1.0, 60), seed)
        covered += low <= 1.0 <= high
    assert 66 <= covered <= 79  # 95 % less what a bootstrap of 60 skewed values lacks


def test_a_sample_is_measured_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "score", inline_engine.score)
    source = write_source(tmp_path / "s", ["a", "raise", "b", "c"])
    before = sorted(path.name for path in tmp_path.rglob("*"))
    seen: list[tuple[int, int]] = []
    config = CurationConfig({}, {}, "fake_stages:build", "")
    found = estimate(source, config, ScoreOptions(), sample=3, watch=lambda *now: seen.append(now))
    assert (found.clips, found.sampled) == (4, 3)
    assert seen == [(1, 3), (2, 3), (3, 3)]
    assert found.stages.keys() == {DECODE, "first", "second", "third"}
    assert sum(found.stages.values()) == pytest.approx(found.seconds)
    assert found.low <= found.seconds <= found.high
    assert sorted(path.name for path in tmp_path.rglob("*")) == before


def test_the_verb_prints_the_projection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(local, "score", inline_engine.score)
    source = write_source(tmp_path / "s", ["a", "b"])
    words = ["--stages", "fake_stages:build", "--clips", "1000", "--cores", "8", "--price", "0.5"]
    assert cli.main(["estimate", str(source), *words]) == 0
    out = capsys.readouterr().out
    assert "core-hours: 1,000 clips x " in out
    assert "/ 8 cores" in out
    assert "core-hours x 0.5 = " in out
    with pytest.raises(InputError):
        cli.main(["estimate", str(tmp_path / "none")])
