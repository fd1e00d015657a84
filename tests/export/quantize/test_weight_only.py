"""Weight-only storage: ONNX Runtime reads the numbers that NumPy wrote, in every layout."""

from __future__ import annotations

from pathlib import Path

import layer_graphs
import numpy as np
import onnx_ir as ir
import pytest
from layer_graphs import Sketch, kernels, run, save, snr_db

from hummingbird_export.quantize import quantize_graph
from hummingbird_export.quantize import weight_only as module
from hummingbird_export.quantize.layers import find_layers
from hummingbird_export.quantize.weights import (
    EIGHT_BITS,
    FOUR_BITS,
    blocked,
    per_channel,
    restore,
)


def rounded(model: ir.Model, precision: str) -> ir.Model:
    """The float32 model with every weight replaced by what its numbers stand for."""
    for layer in find_layers(model).values():
        rows = layer.rows()
        if precision == "w8":
            near = restore(per_channel(rows, EIGHT_BITS), rows.shape)
        else:
            near = restore(blocked(rows, FOUR_BITS, clip=True), rows.shape)
        layer.weight.const_value = ir.tensor(layer.from_rows(near), name=layer.weight.name)
    return model


def blocks(kind: str) -> tuple[ir.Model, dict[str, np.ndarray]]:
    rng = np.random.default_rng(2)
    if kind == "Conv":
        return layer_graphs.conv_pair(rng, channels=32)
    op, rank = kind.split()
    return layer_graphs.token_block(rng, op=op, rank=int(rank), width=96)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("precision", ["w8", "w4"])
@pytest.mark.parametrize("kind", ["Conv", "Gemm 2", "MatMul 3"])
def test_the_graph_computes_with_the_restored_weights(
    tmp_path: Path, kind: str, precision: str, fused: bool
) -> None:
    model, feeds = blocks(kind)
    exact = save(model, tmp_path / "exact")
    near = save(rounded(ir.load(exact), precision), tmp_path / "near")
    model = ir.load(exact)
    report = quantize_graph(model, precision, exclude=(), fused=fused)
    assert set(report.plan.values()) == {precision}
    path = save(model, tmp_path / "stored")
    got, want = run(path, feeds)[0], run(near, feeds)[0]
    nbits = kernels(path, feeds).count("MatMulNBits")
    assert nbits == (0 if kind == "Conv" else 3)
    # ONNX Runtime turns DequantizeLinear and a product into MatMulNBits that rounds activations to
    # int8 in blocks of 32; written as such, the operator leaves them alone
    exactly = kind == "Conv" or (fused and precision == "w4")
    assert snr_db(got, want) > (100 if exactly else 33)
    assert snr_db(want, run(exact, feeds)[0]) > (35 if precision == "w8" else 14)
    share = path.stat().st_size / exact.stat().st_size
    assert share < (0.35 if precision == "w8" else 0.25)
    assert report.bytes_after < 0.3 * report.bytes_before


def test_layers_that_do_not_divide_into_blocks_take_eight_bits() -> None:
    s = Sketch()
    x = s.input("x", ["m", 100])
    y = s.op("Gemm", x, s.weight("a.weight", np.ones((100, 50), np.float32)))
    report = quantize_graph(s.model(s.op("Relu", y)), "w4")
    assert report.plan == {"a": "w8"}


def test_large_embedding_tables_become_int8_per_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TABLE_SIZE", 50 * 32)
    rng = np.random.default_rng(0)
    table = (rng.standard_normal((50, 32)) * rng.lognormal(0, 1, (50, 1))).astype(np.float32)
    s = Sketch()
    ids = s.input("ids", [1, "l"], ir.DataType.INT64)
    small = s.weight("small", table[:10])
    rows = s.op("Gather", s.weight("table", table), ids, axis=0)
    y = s.op("Add", rows, s.op("Gather", small, s.weight("zero", np.array([3])), axis=0))
    exact = save(s.model(s.op("Relu", y)), tmp_path / "exact")
    model = ir.load(exact)
    assert quantize_graph(model, "w8").tables == 1
    assert model.graph.initializers["table"].const_value.dtype == ir.DataType.INT8
    assert model.graph.initializers["small"].const_value.dtype == ir.DataType.FLOAT
    feeds = {"ids": np.array([[4, 49, 0, 4]])}
    got = run(save(model, tmp_path / "stored"), feeds)[0]
    q = per_channel(table[:, :, None], EIGHT_BITS)
    near = np.maximum(restore(q, (50, 32, 1))[[4, 49, 0, 4], :, 0] + table[3], 0)
    np.testing.assert_allclose(got[0], near, rtol=1e-5, atol=1e-5)
