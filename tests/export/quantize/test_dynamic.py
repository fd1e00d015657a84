"""Dynamic int8 runs as one fused kernel and follows the range of each input."""

from __future__ import annotations

from pathlib import Path

import layer_graphs
import numpy as np
import onnx_ir as ir
import pytest
from layer_graphs import kernels, run, save, snr_db

from hummingbird_export.quantize import quantize_graph


@pytest.mark.parametrize(("op", "rank"), [("Gemm", 2), ("MatMul", 3)])
def test_products_measure_their_input_at_every_run(tmp_path: Path, op: str, rank: int) -> None:
    model, feeds = layer_graphs.token_block(np.random.default_rng(0), op=op, rank=rank, width=96)
    exact = save(model, tmp_path / "exact")
    model = ir.load(exact)
    report = quantize_graph(model, "int8-dynamic", exclude=())
    assert report.counts() == {"dynamic": 3}
    path = save(model, tmp_path / "dynamic")
    for size in (1.0, 1000.0):  # no calibrated range would hold for both
        scaled = {"x": feeds["x"] * np.float32(size)}
        assert snr_db(run(path, scaled)[0], run(exact, scaled)[0]) > 25
    ops = kernels(path, feeds)
    assert ops.count("DynamicQuantizeMatMul") + ops.count("MatMulIntegerToFloat") == 3
    assert sum(node.op_type == "DynamicQuantizeLinear" for node in model.graph) == 2


def test_convolutions_are_stored_in_eight_bits(tmp_path: Path) -> None:
    model, feeds = layer_graphs.conv_pair(np.random.default_rng(0), channels=24)
    exact = save(model, tmp_path / "exact")
    model = ir.load(exact)
    assert quantize_graph(model, "int8-dynamic").counts() == {"w8": 1}
    path = save(model, tmp_path / "stored")
    assert snr_db(run(path, feeds)[0], run(exact, feeds)[0]) > 40
