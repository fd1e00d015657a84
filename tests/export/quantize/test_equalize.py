"""Channel factors: folding is exact in float32, found only where it is, and lessens the noise."""

from __future__ import annotations

from pathlib import Path

import layer_graphs
import numpy as np
import onnx_ir as ir
import pytest
from layer_graphs import Sketch, run, save, snr_db

from hummingbird_export.quantize import calibrate
from hummingbird_export.quantize.equalize import (
    apply_fold,
    choose_factor,
    estimate_noise,
    find_folds,
    fold_scales,
)
from hummingbird_export.quantize.layers import find_layers
from hummingbird_export.quantize.ranges import Spread
from hummingbird_export.quantize.weights import per_channel


def folds_of(model: ir.Model) -> dict[str, list[str]]:
    """Name of what is divided -> layers whose weights are multiplied."""
    return {
        fold.before.name if fold.before else fold.vectors[0].name or "": [
            layer.name for layer in fold.layers
        ]
        for fold in find_folds(model, find_layers(model))
    }


@pytest.mark.parametrize(("op", "rank"), [("Gemm", 2), ("MatMul", 3)])
def test_folding_changes_no_output_and_statistics_follow(
    tmp_path: Path, op: str, rank: int
) -> None:
    model, feeds = layer_graphs.token_block(np.random.default_rng(0), op=op, rank=rank)
    exact = save(model, tmp_path / "exact")
    ranges = calibrate(exact, [feeds], threads=1)
    model = ir.load(exact)
    assert folds_of(model) == {"norm.weight": ["to_q", "to_v"], "to_v": ["to_out"]}
    layers = find_layers(model)
    factors = iter([np.linspace(0.05, 9, 64, dtype=np.float32), np.geomspace(0.1, 5, 64)])
    for fold in find_folds(model, layers):
        apply_fold(fold, next(factors).astype(np.float32), ranges)
    folded = save(model, tmp_path / "folded")
    got, want = run(folded, feeds)[0], run(exact, feeds)[0]
    assert snr_db(got, want) > 110  # float32 rounding only
    assert not np.array_equal(got, want)
    again = calibrate(folded, [feeds], threads=1)
    for name, seen in ranges.items():
        np.testing.assert_allclose(seen.source.high, again[name].source.high, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(seen.result.square, again[name].result.square, rtol=1e-3)


def test_an_affine_norm_reaches_through_layout_and_clones() -> None:
    s = Sketch()
    x = s.input("x", [1, 8, "h", "w"])
    ones, zeros = (
        s.weight("ones", np.ones(8, np.float32)),
        s.weight("zeros", np.zeros(8, np.float32)),
    )
    normal = s.op("InstanceNormalization", x, ones, zeros)
    gain = s.weight("norm.weight", np.ones((8, 1, 1), np.float32))
    shift = s.weight("norm.bias", np.ones((8, 1, 1), np.float32))
    y = s.op("Add", s.op("Mul", normal, gain), shift)
    tokens = s.op("Reshape", y, s.weight("shape", np.array([8, -1])))
    tokens = s.op("Transpose", tokens, perm=[1, 0])
    w = s.weight("proj.weight", np.eye(8, dtype=np.float32))
    halves = s.ops("Split", tokens, axis=0, num_outputs=2, outputs=2)
    made = [s.op("Gemm", half, w, name=f"proj@{i}") for i, half in enumerate(halves)]
    model = s.model(s.op("Relu", s.op("Concat", *made, axis=0)))
    assert folds_of(model) == {"norm.weight": ["proj"]}


@pytest.mark.parametrize("spoiler", ["output", "sigmoid", "other layer", "width"])
def test_nothing_is_folded_where_someone_else_looks(spoiler: str) -> None:
    s = Sketch()
    x = s.input("x", ["m", 8])
    gain = s.weight("norm.weight", np.ones(8, np.float32))
    shift = s.weight("norm.bias", np.ones(8, np.float32))
    y = s.op("LayerNormalization", x, gain, shift, axis=-1)
    read = s.op("Reshape", y, s.weight("shape", np.array([-1, 4]))) if spoiler == "width" else y
    width = 4 if spoiler == "width" else 8
    w = s.weight("a.weight", np.ones((width, 8), np.float32))
    outputs = [s.op("Relu", s.op("Gemm", read, w))]
    if spoiler == "output":
        outputs.append(y)
    elif spoiler == "sigmoid":
        outputs.append(s.op("Sigmoid", y))
    elif spoiler == "other layer":  # the same weight also reads what has no factor
        outputs.append(s.op("Relu", s.op("Gemm", x, w)))
    assert folds_of(s.model(*outputs)) == {}


def test_keys_of_an_attention_take_no_factor_but_values_do() -> None:
    s = Sketch()
    x = s.input("x", [1, "m", 8])
    q, k, v = (
        s.op("MatMul", x, s.weight(f"to_{n}.weight", np.eye(8, dtype=np.float32)), name=f"to_{n}")
        for n in "qkv"
    )
    scores = s.op("Softmax", s.op("MatMul", q, s.op("Transpose", k, perm=[0, 2, 1])), axis=-1)
    h = s.op("MatMul", scores, v)
    out = s.op("MatMul", h, s.weight("to_out.weight", np.eye(8, dtype=np.float32)), name="to_out")
    assert folds_of(s.model(s.op("Relu", out))) == {"to_v": ["to_out"]}


def test_the_estimate_is_the_noise_that_rounding_makes() -> None:
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((32, 64, 1)).astype(np.float32)
    spread = rng.lognormal(0, 1, 64)
    x = (rng.standard_normal((4096, 64)) * spread).astype(np.float32)
    seen = Spread(x.min(0), x.max(0), x.mean(0), np.square(x).mean(0))
    for factor in (np.ones(64, np.float32), spread.astype(np.float32)):
        scaled = (rows * factor[None, :, None])[:, :, 0]
        q = per_channel(scaled[:, :, None])
        near = q.q[:, :, 0] * q.scale[:, None]
        z = x / factor
        low, high = min(z.min(), 0), max(z.max(), 0)
        step = (high - low) / 255
        rounded = np.rint(z / step) * step
        true = np.square(rounded @ near.T - z @ scaled.T).mean(axis=0).sum()
        assert estimate_noise(rows, seen, factor) == pytest.approx(true, rel=0.1)


def test_the_chosen_factor_beats_none_and_is_none_on_equal_channels() -> None:
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((64, 64, 1)).astype(np.float32)
    gains = np.ones(64, np.float32)
    gains[:4] = 20
    seen = Spread(-3 * gains, 3 * gains, 0 * gains, np.square(gains))
    factor = choose_factor([rows], seen)
    none = np.ones(64, np.float32)
    assert estimate_noise(rows, seen, factor) < 0.3 * estimate_noise(rows, seen, none)
    assert factor[:4].min() > 2 * factor[4:].max()
    flat = Spread(-3 * none, 3 * none, 0 * none, none)
    assert np.ptp(choose_factor([rows], flat)) < 0.5


def test_layers_that_stay_in_float32_are_not_touched(tmp_path: Path) -> None:
    model, feeds = layer_graphs.token_block(np.random.default_rng(0))
    ranges = calibrate(save(model, tmp_path), [feeds], threads=1)
    done = fold_scales(model, find_layers(model), ranges, lambda layer: layer.name != "to_q")
    assert list(done.inputs) == ["to_out"]
    assert list(done.outputs) == ["to_v"]
    np.testing.assert_array_equal(done.inputs["to_out"], done.outputs["to_v"])
