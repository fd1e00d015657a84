"""Static int8 in ONNX Runtime against NumPy's own whole-number arithmetic, and what it runs as."""

from __future__ import annotations

from pathlib import Path

import layer_graphs
import numpy as np
import onnx_ir as ir
import pytest
import torch
from layer_graphs import Sketch, kernels, run, save, snr_db

from hummingbird_export.quantize import calibrate, quantize_graph
from hummingbird_export.quantize.plan import Mode

ALL = {"exclude": (), "weight_only": ()}


def quantized(
    model: ir.Model, feeds: dict[str, np.ndarray], folder: Path, precision: str = "int8", **options
) -> tuple[Path, Path, ir.Model]:
    """(float32 file, quantized file, quantized model)."""
    exact = save(model, folder / "exact")
    ranges = calibrate(exact, [feeds], threads=1)
    model = ir.load(exact)
    quantize_graph(model, precision, ranges=ranges, **{**ALL, **options})
    return exact, save(model, folder / "quantized"), model


def constants(model: ir.Model) -> dict[str, np.ndarray]:
    return {name: value.const_value.numpy() for name, value in model.graph.initializers.items()}


def big_conv(rng: np.random.Generator, **options):
    """At least 4096 weights, below which a layer is left alone."""
    return layer_graphs.conv_pair(rng, channels=24, **options)


def test_a_convolution_is_exactly_its_whole_number_arithmetic(tmp_path: Path) -> None:
    model, feeds = big_conv(np.random.default_rng(0), clones=1)
    _, path, done = quantized(model, feeds, tmp_path)
    (got,) = run(path, feeds)
    c = constants(done)
    node = next(node for node in done.graph if node.op_type == "QuantizeLinear")
    zero = int(np.ravel(node.inputs[2].const_value.numpy())[0])
    scale = np.broadcast_to(node.inputs[1].const_value.numpy(), 24).reshape(1, -1, 1, 1)
    q = np.clip(np.rint(feeds["x"] / scale) + zero, 0, 255) - zero
    total = torch.nn.functional.conv2d(
        torch.from_numpy(q.astype(np.float64)),
        torch.from_numpy(c["block.conv.weight"].astype(np.float64)),
        padding=1,
    ).numpy() + c["block.conv.bias.int32"].reshape(1, -1, 1, 1)
    result = np.rint(total * c["block.conv.bias.scale"].astype(np.float64).reshape(1, -1, 1, 1))
    result = np.clip(result + 128, 0, 255)
    step = c["block.conv.result.scale"].reshape(1, -1, 1, 1)
    want = np.maximum((result - c["block.conv.result.zero"].reshape(1, -1, 1, 1)) * step, 0)
    off = np.abs(got - want) / step
    assert off.max() <= 1.001  # a tie that float32 rounds the other way
    assert (off > 0.5).mean() < 1e-3


def test_clones_share_every_constant_and_the_weight_is_int8_once(tmp_path: Path) -> None:
    model, feeds = big_conv(np.random.default_rng(0), clones=2)
    exact, path, done = quantized(model, feeds, tmp_path)
    convs = [node for node in done.graph if node.op_type == "Conv"]
    assert len(convs) == 2
    assert convs[0].inputs[1] is convs[1].inputs[1]
    assert convs[0].inputs[2] is convs[1].inputs[2]
    weights = {n: array.dtype for n, array in constants(done).items() if n.endswith(".weight")}
    assert weights == {"block.conv.weight": np.int8}
    sources = [node for node in done.graph if node.op_type == "QuantizeLinear" and node.inputs[0]]
    assert len({id(node.inputs[1]) for node in sources}) == 2  # one scale in, one scale out
    assert snr_db(run(path, feeds)[0], run(exact, feeds)[0]) > 30
    ops = kernels(path, feeds)
    assert ops.count("QLinearConv") == 2
    assert "Conv" not in ops


def test_scales_along_channels_pay_where_channels_differ(tmp_path: Path) -> None:
    figures = {}
    for along in (True, False):
        model, feeds = big_conv(np.random.default_rng(3), spread=1.5)
        folder = tmp_path / str(along)
        exact, path, _ = quantized(model, feeds, folder, along_channels=along)
        got, want = run(path, feeds)[0], run(exact, feeds)[0]
        # per output channel, so that the loudest does not hide the others
        loud = [c for c in range(24) if want[:, c].any()]
        figures[along] = np.mean([snr_db(got[:, c], want[:, c]) for c in loud])
        assert kernels(path, feeds).count("QLinearConv") == 2
    assert figures[True] > figures[False] + 4


def test_a_convolution_of_zeros_still_adds_its_bias(tmp_path: Path) -> None:
    model, feeds = big_conv(np.random.default_rng(0), clones=1)
    weight = model.graph.initializers["block.conv.weight"]
    array = weight.const_value.numpy().copy()
    array[:3] = 0
    array[3] *= 1e-9
    weight.const_value = ir.tensor(array, name=weight.name)
    exact, path, done = quantized(model, feeds, tmp_path)
    got, want = run(path, feeds)[0], run(exact, feeds)[0]
    steps = constants(done)["block.conv.result.scale"].reshape(1, -1, 1, 1)
    assert np.all(np.abs(got - want)[:, :4] <= 0.51 * steps[:, :4])


@pytest.mark.parametrize("storage", ["int8", "int8-int4"])
@pytest.mark.parametrize(
    ("op", "rank", "fused", "kernel", "count"),
    [
        ("Gemm", 2, False, "QGemm", 3),
        ("Gemm", 2, True, "MatMulIntegerToFloat", 3),
        ("MatMul", 3, False, "MatMulIntegerToFloat", 3),
        ("MatMul", 3, True, "MatMulIntegerToFloat", 3),
    ],
)
def test_products_run_on_int8_kernels(
    tmp_path: Path, op: str, rank: int, fused: bool, kernel: str, count: int, storage: Mode
) -> None:
    model, feeds = layer_graphs.token_block(np.random.default_rng(1), op=op, rank=rank, width=96)
    names = ("to_q", "to_v", "to_out")
    overrides = dict.fromkeys(names, storage)
    exact, path, done = quantized(model, feeds, tmp_path, fused=fused, overrides=overrides)
    assert snr_db(run(path, feeds)[0], run(exact, feeds)[0]) > (30 if storage == "int8" else 17)
    ops = kernels(path, feeds)
    assert ops.count(kernel) == count
    assert not {"Gemm", "MatMul", "Cast"} & set(ops)
    # q and v read one activation: quantized once
    assert sum(node.op_type == "QuantizeLinear" for node in done.graph) == 2
    if storage == "int8-int4":
        stored = done.graph.initializers["to_q.weight.int4"].const_value
        assert stored.dtype == ir.DataType.INT4
        assert done.opset_imports[""] == 21


def test_a_vector_bias_would_fall_back_to_float32_products(tmp_path: Path) -> None:
    """At fixed sizes only. When ONNX Runtime mends it, this fails and the form can be simpler."""
    model, feeds = layer_graphs.token_block(np.random.default_rng(1), op="MatMul", rank=3, width=96)
    _, _, done = quantized(model, feeds, tmp_path)
    done.graph.inputs[0].shape = ir.Shape([1, 96, 96])
    assert "Gemm" not in kernels(save(done, tmp_path / "fixed"), feeds)
    bias = done.graph.initializers["to_out.bias.float32"]
    assert bias.const_value.shape == (1, 1, 96)
    bias.const_value = ir.tensor(bias.const_value.numpy().reshape(-1), name=bias.name)
    assert "Gemm" in kernels(save(done, tmp_path / "trap"), feeds)


def test_four_bit_files_compute_with_the_same_int8_numbers(tmp_path: Path) -> None:
    model, feeds = layer_graphs.token_block(np.random.default_rng(1), width=96)
    exact, path, done = quantized(
        model, feeds, tmp_path, overrides={"to_out": "int8-int4"}, fused=True
    )
    c = constants(done)
    q = c["to_out.weight.int4"].astype(np.int8)
    assert q.shape == (3, 32, 96)
    wide = (q * c["to_out.weight.factor"]).reshape(96, 96)
    assert np.abs(wide.astype(int)).max() <= 63
    near = wide * c["to_out.weight.scale"]
    original = ir.load(exact).graph.initializers["to_out.weight"].const_value.numpy()
    factor = (near * original).sum(1) / np.square(original).sum(1)  # folded channel factors
    assert snr_db(near, original * factor[:, None]) > 18
    assert path.stat().st_size < 0.55 * exact.stat().st_size


def test_rounding_the_weights_does_not_move_the_mean_output(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    s = Sketch()
    x = s.input("x", ["m", 128])
    matrix = rng.standard_normal((128, 64)).astype(np.float32)
    matrix[0] *= 40  # makes the scale coarse
    w, b = s.weight("a.weight", matrix), s.weight("a.bias", np.zeros(64, np.float32))
    model = s.model(s.op("Relu", s.op("Gemm", s.op("Relu", x), w, b, name="a")))
    feeds = {"x": (5 + rng.standard_normal((512, 128))).astype(np.float32)}
    exact, path, done = quantized(model, feeds, tmp_path)
    c = constants(done)
    near = c["a.weight"] * c["a.weight.scale"]
    drift = feeds["x"].mean(axis=0) @ (near - matrix)
    correction = c["a.bias.int32"] * c["a.bias.scale"]
    np.testing.assert_allclose(correction, -drift, atol=2 * c["a.bias.scale"].max() + 1e-3)
    assert np.abs(drift).max() > 1  # else this would test nothing
    got, want = run(path, feeds)[0], run(exact, feeds)[0]
    loud = (want > 0).all(axis=0)  # columns that Relu leaves alone
    assert loud.sum() > 5
    error = np.abs((got - want)[:, loud].mean(axis=0))
    assert error.max() < 0.2 * np.abs(drift[loud]).max()
