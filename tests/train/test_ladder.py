"""The ladder's arithmetic against closed forms, and its kept rungs."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from hummingbird_runtime.errors import InputError, UsageError
from hummingbird_train.frechet import frechet_distance, judge_features
from hummingbird_train.ladder import Row, Rung, climb, slug, unet_gflop
from hummingbird_train.ladder_page import difference, differences, pictures, tables
from hummingbird_train.models.unet import UNetConfig
from hummingbird_train.world.accuracy import ALL
from hummingbird_train.world.grammar import judging_prompts
from hummingbird_train.world.judge import ATTRIBUTES

RENDERED = Rung("rendered clips", "rendered")


def row(name, hits, seeds=1):
    right = {n: list(hits) for n in (*ATTRIBUTES, ALL)}
    return Row(name, seeds, right, None, None, 1.0, None, None, None)


def test_distance_of_two_normal_sets_is_the_closed_form():
    rng = np.random.default_rng(0)
    a = rng.standard_normal((20_000, 3)) * [1.0, 2.0, 3.0]
    b = rng.standard_normal((20_000, 3)) * [2.0, 2.0, 1.0] + [1.0, 0.0, -2.0]
    # independent coordinates: squared gap of means plus squared gap of deviations; 4 sigma of noise
    assert frechet_distance(a, b) == pytest.approx(5 + 1 + 0 + 4, abs=0.35)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)


def test_distance_holds_for_fewer_clips_than_features():
    rng = np.random.default_rng(1)
    a = rng.standard_normal((10, 50))
    assert frechet_distance(a, a + 2.0) == pytest.approx(50 * 4.0, rel=1e-6)


def test_difference_is_paired():
    """Rows that agree but on two clips: the interval is far below that of unpaired shares."""
    rng = np.random.default_rng(2)
    base = rng.random(400) < 0.7
    better = base.copy()
    better[np.flatnonzero(~base)[:20]] = True
    middle, low, high = difference(row("a", better), row("b", base), "shape")
    assert middle == pytest.approx(20 / 400)
    assert 0.02 < low < middle < high < 0.08


def test_prompts_not_clips_are_resampled():
    """Two equal seeds of each prompt are worth one: the interval does not shrink."""
    hits = np.random.default_rng(3).random(200) < 0.5
    none = np.zeros(200, bool)
    one = difference(row("a", hits), row("b", none), "all")
    two = difference(row("a", np.repeat(hits, 2), 2), row("b", np.repeat(none, 2), 2), "all")
    assert one == pytest.approx(two)


@pytest.mark.parametrize(
    ("other", "found"),
    [("c", "'c'"), ("short", "4 and 3 clips"), ("seeds", "1 and 2 seeds")],
)
def test_unlike_rungs_are_not_compared(other, found):
    rows = {
        "a": row("a", [1] * 4),
        "short": row("short", [1] * 3),
        "seeds": row("seeds", [1] * 4, 2),
    }
    with pytest.raises(UsageError, match=found) as caught:
        differences(rows, [("a", other)])
    assert caught.value.code == "ladder.pairs"


def test_a_finished_rung_is_not_measured_again(tmp_path):
    options = {"prompts": 3, "seeds": 2, "tier": 1, "split": "train", "folder": tmp_path}
    (first,) = climb([RENDERED], **options)
    assert first.accuracies[ALL].share == 1.0
    path = tmp_path / f"{slug(RENDERED.name)}.json"
    document = json.loads(path.read_text())
    document["row"]["motion"] = -1.0
    path.write_text(json.dumps(document))
    (again,) = climb([RENDERED], **options)
    assert again == dataclasses.replace(first, motion=-1.0)
    (other,) = climb([RENDERED], **{**options, "prompts": 2})
    assert len(other.right[ALL]) == 2
    assert other.motion > 0


def test_fewer_frames_and_untrained_triples_are_rungs_too(tmp_path):
    vae = Path(__file__).parents[2] / "train" / "checkpoints" / "shapes-v1" / "vae.safetensors"
    rungs = [
        Rung("short", "autoencoder", str(vae), frames=8),
        Rung("bundle", "bundle", frames=8, held_out=True),
    ]
    options = {"prompts": 2, "seeds": 1, "tier": 1, "split": "train"}
    short, bundle = climb(rungs, folder=tmp_path, **options)
    assert (short.gflop, len(short.right[ALL])) == (None, 2)
    with np.load(tmp_path / "bundle.npz") as kept:
        assert kept["frames"].shape == (2, 8, 64, 64, 3)
    asked = [prompt for prompt, _ in judging_prompts(2, seed=2026, tier=1, split="held_out")]
    assert asked != [prompt for prompt, _ in judging_prompts(2, seed=2026, tier=1, split="train")]
    assert bundle.gflop > 0


def test_a_rung_of_another_tier_is_asked_and_judged_there(tmp_path):
    rungs = [RENDERED, Rung("far", "rendered", tier=2)]
    near, far = climb(rungs, prompts=12, seeds=1, tier=1, split="train", folder=tmp_path)
    assert (near.accuracies[ALL].share, far.accuracies[ALL].share) == (1.0, 1.0)
    assert near.motion != far.motion


def test_a_damaged_rung_is_refused(tmp_path):
    (tmp_path / "rendered-clips.json").write_text("{")
    with pytest.raises(InputError) as caught:
        list(climb([RENDERED], prompts=1, seeds=1, tier=1, split="train", folder=tmp_path))
    assert caught.value.code == "ladder.damaged"


def test_page_shows_every_rung(tmp_path):
    (only,) = climb([RENDERED], prompts=4, seeds=1, tier=1, split="train", folder=tmp_path)
    lines = pictures([only], tmp_path, tmp_path)
    assert "![rendered clips](images/ladder-rendered-clips.webp)" in lines
    assert (tmp_path / "ladder-rendered-clips.png").stat().st_size > 1000
    assert "| rendered clips | 4 | 1.000" in tables([only], 1)


def test_a_deeper_network_costs_more():
    config = UNetConfig.tiny()
    deeper = dataclasses.replace(config, num_res_blocks=config.num_res_blocks + 1)
    assert 5 < unet_gflop(config) < unet_gflop(deeper) < 3 * unet_gflop(config)


def test_features_are_of_evenly_spaced_frames():
    from hummingbird_train.feedback.judge import Judge, JudgeConfig

    judge = Judge(JudgeConfig(width=8, frames=2)).eval()
    clip = np.zeros((26, 64, 64, 3), np.uint8)
    ends = clip.copy()
    ends[1:-1] = 255  # not looked at
    assert np.array_equal(judge_features(judge, [clip]), judge_features(judge, [ends]))
