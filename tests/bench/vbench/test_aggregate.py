"""VBench's formula: the published constants, the paper's own rows, and what is missing."""

from __future__ import annotations

import math

import pytest

from hummingbird_bench.vbench.aggregate import DIMENSIONS, QUALITY, SEMANTIC, aggregate, normalise
from hummingbird_bench.vbench.published import PUBLISHED
from hummingbird_bench.vbench.report import score_table, weights_table
from hummingbird_runtime.errors import InputError, UsageError


@pytest.mark.parametrize("model", PUBLISHED)
def test_quality_of_every_published_row_follows_from_its_dimension_scores(model: str) -> None:
    row = PUBLISHED[model]
    quality = aggregate({name: score / 100 for name, score in row.scores.items()}).quality
    assert quality is not None
    # seven scores and the result are each rounded to 0.005; the largest slope is 1 / 0.2915 / 6.5
    assert 100 * quality == pytest.approx(row.quality, abs=0.0101)


@pytest.mark.parametrize(
    ("model", "quality"),
    [
        ("Hummingbird, 16 frames", "83.73"),
        ("Hummingbird, 26 frames", "83.11"),
        ("VideoCrafter2", "82.20"),
    ],
)
def test_the_three_rows_of_the_comparison_recompute_to_the_printed_digit(
    model: str, quality: str
) -> None:
    scores = {name: score / 100 for name, score in PUBLISHED[model].scores.items()}
    assert f"{100 * aggregate(scores).quality:.2f}" == quality


def test_total_is_four_parts_quality_and_one_part_semantic() -> None:
    tops = {name: d.high for name, d in DIMENSIONS.items()}
    assert aggregate(tops).total == pytest.approx(1.0)
    no_semantic = tops | {name: d.low for name, d in SEMANTIC.items()}
    assert aggregate(no_semantic).total == pytest.approx(0.8)
    no_motion = tops | {"dynamic_degree": 0.0}
    assert aggregate(no_motion).quality == pytest.approx(1 - 0.5 / 6.5)  # its weight is a half


def test_constants_are_those_that_are_published() -> None:
    assert len(QUALITY) == 7
    assert len(SEMANTIC) == 9
    assert (QUALITY["motion_smoothness"].low, QUALITY["motion_smoothness"].high) == (0.706, 0.9975)
    assert (SEMANTIC["appearance_style"].low, SEMANTIC["appearance_style"].high) == (0.0009, 0.2855)
    assert SEMANTIC["scene"].high == 0.8222
    assert sum(d.weight for d in QUALITY.values()) == 6.5


def test_a_missing_dimension_leaves_its_figures_out_unless_it_is_to_count_as_zero() -> None:
    scores = {name: d.high for name, d in QUALITY.items()}
    part = aggregate(scores)
    assert part.quality == pytest.approx(1.0)
    assert part.semantic is None
    assert part.total is None
    # as VBench's script: raw 0, which is below zero where the constant minimum is not 0
    official = aggregate(scores, missing_as_zero=True)
    assert official.semantic == pytest.approx(-0.0009 / (0.2855 - 0.0009) / 9)


def test_scores_outside_the_constants_are_not_clipped() -> None:
    assert normalise("motion_smoothness", 1.0) > 1
    assert normalise("subject_consistency", 0.0) < 0


def test_an_unknown_dimension_and_nan_are_refused() -> None:
    with pytest.raises(UsageError, match="subject consistency"):
        normalise("subject consistency", 0.5)
    with pytest.raises(InputError, match="finite"):
        aggregate({"color": math.nan})


def test_the_table_stands_beside_published_rows_and_says_what_is_missing() -> None:
    table = score_table(dict.fromkeys(QUALITY, 0.9))
    assert "| imaging_quality | 90.00 | 90.00 | 71.04 | 69.94 | 67.22 |" in table
    assert "9 dimensions not measured (0 of quality)" in table
    assert "| **total** | – |" in table
    assert "amt-s.pth" in weights_table()
