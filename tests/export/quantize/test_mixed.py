"""Mixed precision: budgets hold, cheap layers go first, measured costs find the fragile layer."""

from __future__ import annotations

from pathlib import Path

import layer_graphs
import numpy as np
import onnx_ir as ir
import pytest
from layer_graphs import Sketch, run, save, snr_db

from hummingbird_export.quantize import calibrate, quantize_graph
from hummingbird_export.quantize.mixed import (
    BYTES_PER_WEIGHT,
    choose_mixed,
    estimate_sensitivity,
    to_json,
)
from hummingbird_export.quantize.sensitivity import measure_sensitivity
from hummingbird_runtime.errors import UsageError


def chain(rng: np.random.Generator) -> tuple[ir.Model, dict[str, np.ndarray]]:
    """Three residual branches of equal weights whose results count 1, 0.1 and 3 times."""
    s = Sketch()
    h = s.op("Tanh", s.input("x", ["m", 96]))
    for name, gain in (("a", 1.0), ("b", 0.1), ("c", 3.0)):
        matrix = (rng.standard_normal((96, 96)) / np.sqrt(96)).astype(np.float32)
        branch = s.op("Gemm", s.op("Tanh", h), s.weight(f"{name}.0.weight", matrix), name=name)
        h = s.op("Add", h, s.op("Mul", branch, s.weight(f"gain.{name}", np.float32(gain))))
    feeds = {"x": rng.standard_normal((256, 96)).astype(np.float32)}
    return s.model(s.op("Tanh", h)), feeds


def test_local_figures_are_the_noise_of_the_layer_itself(tmp_path: Path) -> None:
    model, feeds = layer_graphs.token_block(np.random.default_rng(0), width=96)
    exact = save(model, tmp_path / "exact")
    ranges = calibrate(exact, [feeds], threads=1)
    found = estimate_sensitivity(ir.load(exact), ranges)
    for mode in ("int8", "int8-int4"):
        model = ir.load(exact)
        overrides = {"to_q": "fp32", "to_v": "fp32", "to_out": mode}
        quantize_graph(model, "mixed", ranges=ranges, overrides=overrides)
        # Tanh(0.1 y) is nearly linear: the ratio at the output is that of to_out
        got, want = run(save(model, tmp_path / mode), feeds)[0], run(exact, feeds)[0]
        spread = want - want.mean(axis=0)
        ratio = np.square(got - want).sum() / np.square(spread).sum()
        local = found["to_out"].local_int8 if mode == "int8" else found["to_out"].local_int4
        assert ratio == pytest.approx(local, rel=0.5)


def test_measured_costs_follow_what_a_layer_means_to_the_output(tmp_path: Path) -> None:
    model, feeds = chain(np.random.default_rng(0))
    exact = save(model, tmp_path)
    ranges = calibrate(exact, [feeds], threads=1)
    found = measure_sensitivity(exact, [feeds], ranges, depth=1, threads=1)
    assert list(found) == ["a.0", "b.0", "c.0"]
    costs = [found[name].int4 for name in found]
    assert costs[1] < 0.1 * costs[0]
    assert costs[0] < costs[2]
    assert all(one.int8 < one.int4 for one in found.values())
    table = to_json(found)
    assert list(table) == ["c.0", "a.0", "b.0"]
    assert table["c.0"]["group"] == "c"
    assert table["c.0"]["int4"] == pytest.approx(10 * np.log10(costs[2]), abs=0.01)


def test_the_layer_that_costs_least_gives_up_its_bits_first(tmp_path: Path) -> None:
    model, feeds = chain(np.random.default_rng(0))
    exact = save(model, tmp_path / "exact")
    ranges = calibrate(exact, [feeds], threads=1)
    found = measure_sensitivity(exact, [feeds], ranges, depth=1, threads=1)
    model = ir.load(exact)
    assert choose_mixed(model, found, bytes_per_weight=1.1) == {}
    assert choose_mixed(model, found, bytes_per_weight=0.95) == {"b.0": "int8-int4"}
    everything = choose_mixed(model, found, bytes_per_weight=0.6)
    assert set(everything) == {"a.0", "b.0", "c.0"}
    with pytest.raises(UsageError, match="every layer in its fewest bits") as caught:
        choose_mixed(model, found, bytes_per_weight=0.3)
    assert caught.value.code == "export.budget"
    sizes, figures = [], []
    for overrides in ({}, {"b.0": "int8-int4"}, everything):
        model = ir.load(exact)
        quantize_graph(model, "mixed", ranges=ranges, overrides=overrides)
        path = save(model, tmp_path / str(len(overrides)))
        sizes.append(path.stat().st_size)
        figures.append(snr_db(run(path, feeds)[0], run(exact, feeds)[0]))
    assert sizes == sorted(sizes, reverse=True)
    assert figures[0] - figures[1] < 1 < figures[1] - figures[2]


def test_mixed_chooses_by_itself(tmp_path: Path) -> None:
    model, feeds = chain(np.random.default_rng(0))
    exact = save(model, tmp_path / "exact")
    ranges = calibrate(exact, [feeds], threads=1)
    model = ir.load(exact)
    report = quantize_graph(model, "mixed", ranges=ranges)
    assert report.counts() == {"int8": 1, "int8-int4": 2}  # a scale per channel is 4 % here
    assert report.bytes_after <= BYTES_PER_WEIGHT * 3 * 96**2
