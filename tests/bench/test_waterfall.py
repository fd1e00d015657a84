"""A waterfall's factors multiply to its total, and it says so when they do not."""

from __future__ import annotations

import math
from typing import Any

import bench_report
import pytest
from bench_report import FRAMES, OURS, PARTS, THEIRS

from hummingbird_bench.charts import falls
from hummingbird_bench.report import REPORT
from hummingbird_bench.sealed_document import seal
from hummingbird_bench.waterfall import CLOSES, waterfall_figure


def derived(raw: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = seal(REPORT, raw)["derived"]["waterfalls"][0]
    return found


def test_factors_are_those_of_the_parts_in_closed_form():
    found = derived(bench_report.raw_report(pairs=2, noise=0.0))
    theirs = PARTS[THEIRS]
    rest = theirs[0] + FRAMES * theirs[2] + theirs[3]
    expected = (rest + 100 * theirs[1]) / (rest + 4 * theirs[1])
    assert found["steps"][0]["factor"] == 1.0
    assert found["steps"][1]["factor"] == pytest.approx(expected, rel=1e-9)
    assert [s["name"] for s in found["steps"]][1:] == [
        "fewer passes", "pruning", "engine", "precision", "decoder",
    ]  # fmt: skip


def test_the_product_is_the_measured_total():
    found = derived(bench_report.raw_report(pairs=2, noise=0.0))
    assert found["product"] == pytest.approx(math.prod(s["factor"] for s in found["steps"]))
    assert found["product"] == pytest.approx(found["measured"], rel=1e-9)
    assert found["closes"]
    assert found["extrapolated"]


def test_one_percent_of_noise_still_closes():
    for seed in range(5):
        found = derived(bench_report.raw_report(pairs=6, noise=0.01, seed=seed))
        assert found["closes"], found["error"]
        assert abs(found["error"]) <= CLOSES


def test_a_waterfall_that_leaves_a_change_out_does_not_close():
    raw = bench_report.raw_report(pairs=2, noise=0.0)
    raw["waterfalls"][0]["steps"].pop()  # the decoder, a factor of two
    found = derived(raw)
    assert not found["closes"]
    assert found["error"] < -0.4
    assert "does NOT close" in waterfall_figure(found).caption


def test_without_a_comparison_of_its_ends_nothing_is_claimed_to_close():
    raw = bench_report.raw_report(pairs=2, noise=0.0)
    raw["comparisons"] = [c for c in raw["comparisons"] if c["b"] != OURS]
    found = derived(raw)
    assert found["measured"] is None
    assert not found["closes"]
    assert "no comparison" in waterfall_figure(found).caption


def test_a_change_that_costs_time_is_drawn_as_a_loss():
    raw = bench_report.raw_report(pairs=2, noise=0.0)
    steps = raw["waterfalls"][0]["steps"]
    steps[4], steps[3] = steps[3], steps[4]  # int8 first, then back to float32
    assert 'class="loss"' in waterfall_figure(derived(raw)).drawing


def test_equal_factors_are_equally_long():
    rows = [("a", "", "", 1000.0, 100.0, "gain"), ("b", "", "", 100.0, 10.0, "gain")]
    drawing = falls(rows, str)
    widths = [part.partition('width="')[2].partition("%")[0] for part in drawing.split("<rect")[1:]]
    assert float(widths[0]) == pytest.approx(float(widths[1]), abs=0.02)


def test_the_table_ends_with_the_product():
    found = derived(bench_report.raw_report(pairs=2, noise=0.0))
    table = waterfall_figure(found).table
    assert len(table.rows) == 7
    assert table.rows[-1][0] == "product"
    assert table.rows[-1][-1] == f"{found['product']:.1f}×"
