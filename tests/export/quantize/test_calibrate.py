"""Observed statistics against NumPy, shared by clones, and stored without loss."""

from __future__ import annotations

from pathlib import Path

import layer_graphs
import numpy as np
import pytest
from layer_graphs import Sketch

from hummingbird_export.quantize import calibrate, load_ranges, save_ranges
from hummingbird_export.quantize.ranges import Spread
from hummingbird_runtime.errors import ExecutionError, InputError


def check(spread: Spread, values: np.ndarray, axes: tuple[int, ...]) -> None:
    np.testing.assert_array_equal(spread.low, values.min(axis=axes))
    np.testing.assert_array_equal(spread.high, values.max(axis=axes))
    np.testing.assert_allclose(spread.mean, values.mean(axis=axes), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(spread.square, np.square(values).mean(axis=axes), rtol=1e-4)


@pytest.mark.parametrize("passes", [1, 3])
@pytest.mark.parametrize("external", [False, True])
def test_statistics_are_those_of_all_inputs_and_clones(
    tmp_path: Path, passes: int, external: bool
) -> None:
    rng = np.random.default_rng(0)
    model, feeds = layer_graphs.conv_pair(rng)
    path = layer_graphs.save(model, tmp_path / "m", external=external)
    other = {"x": 3 * rng.standard_normal((2, 16, 4, 4)).astype(np.float32)}
    ranges = calibrate(path, [feeds, other], passes=passes, threads=1)
    assert list(ranges) == ["block.conv"]
    seen = ranges["block.conv"]
    flat = np.concatenate(
        [one["x"].transpose(1, 0, 2, 3).reshape(16, -1) for one in (feeds, other)], axis=1
    )
    check(seen.source, flat, (1,))
    assert (seen.rank, seen.values) == (4, 4 * 64 + 2 * 16)
    assert sorted(entry.name for entry in path.parent.iterdir()) == sorted(
        ["model.onnx", "model.onnx_data"] if external else ["model.onnx"]
    )


@pytest.mark.parametrize(("op", "rank"), [("Gemm", 2), ("MatMul", 2), ("MatMul", 3)])
def test_matrices_are_watched_along_their_last_axis(tmp_path: Path, op: str, rank: int) -> None:
    model, feeds = layer_graphs.token_block(np.random.default_rng(1), op=op, rank=rank)
    ranges = calibrate(layer_graphs.save(model, tmp_path), [feeds], threads=1)
    assert list(ranges) == ["to_q", "to_v", "to_out"]
    x = feeds["x"].reshape(-1, 64)
    normal = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-5)
    weights = {name: value.const_value.numpy() for name, value in model.graph.initializers.items()}
    y = normal * weights["norm.weight"] + weights["norm.bias"]
    for name in ("to_q", "to_v"):
        np.testing.assert_allclose(ranges[name].source.high, y.max(axis=0), rtol=1e-4, atol=1e-5)
    assert ranges["to_q"].rank == rank
    q = y @ weights["to_q.weight"]
    np.testing.assert_allclose(ranges["to_q"].result.low, q.min(axis=0), rtol=1e-3, atol=1e-4)


def test_ranges_survive_the_disk_and_damage_is_told(tmp_path: Path) -> None:
    model, feeds = layer_graphs.token_block(np.random.default_rng(1))
    ranges = calibrate(layer_graphs.save(model, tmp_path), [feeds], threads=1)
    save_ranges(ranges, tmp_path / "ranges.npz")
    again = load_ranges(tmp_path / "ranges.npz")
    assert list(again) == list(ranges)
    for name, seen in ranges.items():
        assert (again[name].values, again[name].rank) == (seen.values, seen.rank)
        np.testing.assert_array_equal(again[name].source.square, seen.source.square)
        np.testing.assert_array_equal(again[name].result.low, seen.result.low)
    (tmp_path / "ranges.npz").write_bytes(b"PK\x03\x04 not really")
    with pytest.raises(InputError, match="calibrate again") as caught:
        load_ranges(tmp_path / "ranges.npz")
    assert caught.value.code == "export.ranges"


def test_values_that_are_not_finite_stop_the_calibration(tmp_path: Path) -> None:
    model, feeds = layer_graphs.conv_pair(np.random.default_rng(0))
    feeds["x"][0, 3, 2, 2] = np.inf
    with pytest.raises(ExecutionError, match="not finite") as caught:
        calibrate(layer_graphs.save(model, tmp_path), [feeds], threads=1)
    assert caught.value.code == "export.calibration"


def test_a_graph_that_fails_is_named(tmp_path: Path) -> None:
    s = Sketch()
    x = s.input("x", ["m", 8])
    y = s.op("MatMul", x, s.weight("a.weight", np.ones((8, 8), np.float32)))
    path = layer_graphs.save(s.model(s.op("Relu", y)), tmp_path)
    with pytest.raises(ExecutionError, match=r"calibration of model\.onnx: ONNX Runtime failed"):
        calibrate(path, [{"x": np.ones((2, 9), np.float32)}], threads=1)


def test_merging_is_weighted_by_the_number_of_values() -> None:
    one = np.ones(1, np.float32)
    a, b = Spread(-one, one, 0 * one, one), Spread(-2 * one, 0 * one, 4 * one, 5 * one)
    both = a.merged(b, 3, 1)
    assert [float(f[0]) for f in (both.low, both.high, both.mean, both.square)] == [-2, 1, 1, 2]
