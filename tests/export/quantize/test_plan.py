"""Which layer is quantized how, and what is refused."""

from __future__ import annotations

from pathlib import Path

import layer_graphs
import numpy as np
import onnx_ir as ir
import pytest
from layer_graphs import Sketch, save

from hummingbird_export.quantize import calibrate, quantize_graph
from hummingbird_export.quantize.layers import find_layers
from hummingbird_export.quantize.plan import PRECISIONS, default_plan
from hummingbird_runtime.errors import UsageError


def network() -> ir.Model:
    """One layer for every rule."""
    s = Sketch()
    x, context = s.input("x", ["n", 64, "h", "w"]), s.input("context", [1, "l", 64])
    square = np.ones((64, 64), np.float32)

    def conv(name: str, value: ir.Value) -> ir.Value:
        kernel = np.ones((64, 64, 1, 1), np.float32)
        return s.op("Conv", value, s.weight(f"{name}.weight", kernel))

    def matrix(name: str, value: ir.Value) -> ir.Value:
        return s.op("Gemm", value, s.weight(f"{name}.weight", square), name=name)

    h = conv("input_blocks.1.0.in_layers.2", conv("input_blocks.0.0", x))
    flat = s.op("Reshape", h, s.weight("shape", np.array([-1, 64])))
    tokens = s.op("Squeeze", context, s.weight("axis", np.array([0])))
    k = matrix("input_blocks.1.1.attn2.to_k", tokens)
    emb = matrix("input_blocks.1.0.emb_layers.1", s.op("Relu", flat))
    q = matrix("input_blocks.1.1.attn2.to_q", s.op("Relu", emb))
    tiny = s.op("Gemm", q, s.weight("small.weight", np.ones((64, 8), np.float32)))
    return s.model(s.op("Relu", tiny), s.op("Relu", k))


@pytest.mark.parametrize(
    ("precision", "conv", "key", "query", "embedding"),
    [
        ("int8", "int8", "w8", "int8", "w8"),
        ("mixed", "int8", "w8", "int8", "w8"),
        ("int8-dynamic", "w8", "w8", "dynamic", "w8"),
        ("w8", "w8", "w8", "w8", "w8"),
        ("w4", "w4", "w4", "w4", "w8"),
    ],
)
def test_the_rules(precision: str, conv: str, key: str, query: str, embedding: str) -> None:
    assert default_plan(find_layers(network()), precision) == {
        "input_blocks.0.0": "fp32",  # first and last convolutions
        "input_blocks.1.0.in_layers.2": conv,
        "input_blocks.1.1.attn2.to_k": key,  # reads the prompt: no calibration covers them all
        "input_blocks.1.0.emb_layers.1": embedding,
        "input_blocks.1.1.attn2.to_q": query,
        "small": "fp32",
    }


def test_the_caller_has_the_last_word() -> None:
    layers = find_layers(network())
    plan = default_plan(
        layers, "w4", exclude=("*attn2*",), weight_only=(), overrides={"small": "w8"}
    )
    assert plan["input_blocks.0.0"] == "w4"
    assert plan["input_blocks.1.1.attn2.to_k"] == "fp32"
    assert plan["small"] == "w8"


def test_unknown_precisions_and_layers_are_refused() -> None:
    for arguments in ({"precision": "int7"}, {"precision": "int8", "overrides": {"x": "w8"}}):
        with pytest.raises(UsageError) as caught:
            quantize_graph(network(), **arguments)
        assert caught.value.code == "export.precision"
    assert "int8-dynamic" in PRECISIONS


def test_int8_without_ranges_names_the_layer() -> None:
    with pytest.raises(UsageError, match=r"in_layers\.2") as caught:
        quantize_graph(network(), "int8")
    assert caught.value.code == "export.ranges_missing"


@pytest.mark.parametrize("precision", ["int8", "w8"])
def test_a_graph_is_quantized_once(tmp_path: Path, precision: str) -> None:
    model, feeds = layer_graphs.token_block(np.random.default_rng(0), width=96)
    ranges = calibrate(save(model, tmp_path), [feeds], threads=1)
    model = ir.load(tmp_path / "model.onnx")
    quantize_graph(model, precision, ranges=ranges)
    with pytest.raises(UsageError, match="expected one in float32"):
        quantize_graph(model, precision, ranges=ranges)


def test_the_report_counts_layers_and_bytes(tmp_path: Path) -> None:
    model, feeds = layer_graphs.token_block(np.random.default_rng(0), width=96)
    ranges = calibrate(save(model, tmp_path / "exact"), [feeds], threads=1)
    model = ir.load(tmp_path / "exact" / "model.onnx")
    report = quantize_graph(model, "int8", ranges=ranges)
    path = save(model, tmp_path / "int8", external=True)
    assert report.to_json() == {
        "layers": {"int8": 3},
        "folds": report.folds,
        "tables": 0,
        "weight_bytes": {"float32": 3 * 4 * 96**2, "stored": 3 * (96**2 + 4 * 96)},
    }
    assert report.folds == 2
    assert set(report.input_factors) == {"to_q", "to_v", "to_out"}
    assert set(report.output_factors) == {"to_v"}
    assert path.stat().st_size < 3 * 96**2 + 20_000
