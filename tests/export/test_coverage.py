"""Coverage: every rule on a graph that breaks it, shapes in closed form, the printed report."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import onnxruntime.capi.onnxruntime_pybind11_state as native
import pytest
from onnx import numpy_helper

from hummingbird_export.coverage import _target_lines, _target_rows, coverage_main
from hummingbird_export.graph_coverage import (
    GraphCoverage,
    ProviderCoverage,
    cover_graph,
    exceeded,
    largest_file,
    largest_tensor,
)
from hummingbird_export.graph_shapes import infer_shapes
from hummingbird_export.provider_operators import find_provider, providers
from hummingbird_export.targets import FileLimits, find_target, target_names
from hummingbird_runtime.errors import UsageError
from hummingbird_runtime.operators import ALLOWED_OPERATORS

OPSETS = '<ir_version: 10, opset_import: ["" : 18, "com.microsoft" : 1]>'


def write(folder: Path, text: str, **weights: np.ndarray) -> Path:
    model = onnx.parser.parse_model(OPSETS + text)
    model.graph.initializer.extend(numpy_helper.from_array(a, n) for n, a in weights.items())
    path = folder / "model.onnx"
    onnx.save(model, path)
    return path


def cover(path: Path, provider: str, **sizes: int) -> ProviderCoverage:
    return graph(path, provider, **sizes).providers[0]


def graph(path: Path, *names: str, **sizes: int) -> GraphCoverage:
    return cover_graph(path, "unet", "fp32", sizes, tuple(map(find_provider, names)))


def reasons(coverage: ProviderCoverage) -> dict[str, str]:
    return {fallback.operator: fallback.reason for fallback in coverage.fallbacks}


def test_lists_name_only_operators_of_the_runtime_and_say_where_they_are_from():
    for provider in providers():
        assert provider.operators <= ALLOWED_OPERATORS, provider.name
        assert "ONNX Runtime" in provider.version or "QNN" in provider.version
        assert ".md" in provider.source or ".cc" in provider.source
        for rules in (provider.ranks, provider.constants, provider.modes, provider.remarks):
            assert set(rules) <= provider.operators, provider.name


@pytest.mark.skipif(
    onnxruntime.__version__ not in find_provider("CPU").version, reason="another ONNX Runtime"
)
def test_the_list_of_the_cpu_is_that_of_the_running_onnx_runtime():
    registered = {
        f"{kernel.domain or 'ai.onnx'}:{kernel.op_name}"
        for kernel in native.get_all_opkernel_def()
        if kernel.provider == "CPUExecutionProvider"
    }
    expanded = {"ai.onnx:GroupNormalization", "ai.onnx:HardSwish", "ai.onnx:Constant"}
    assert find_provider("CPU").operators == (registered & ALLOWED_OPERATORS) | expanded


def test_an_operator_without_a_kernel_is_counted_and_connected_ones_are_one_island(tmp_path: Path):
    path = write(
        tmp_path,
        """g (float[2, 3] x) => (float[2, 3] y) {
            a = Erf(x)
            b = Erf(a)
            c = Relu(b)
            y = Erf(c)
        }""",
    )
    found = cover(path, "NNAPI")
    assert [(f.operator, f.nodes, f.reason) for f in found.fallbacks] == [
        ("ai.onnx:Erf", 3, "no kernel")
    ]
    assert (found.nodes, found.taken, found.islands) == (4, 1, 2)
    assert cover(path, "WebGPU").taken == 4
    assert cover(path, "QNN-HTP").remarks[0].startswith("ai.onnx:Erf: only inside")


def test_a_three_dimensional_convolution_falls_back(tmp_path: Path):
    path = write(
        tmp_path,
        """g (float[1, 2, 4, 4, 4] x) => (float[1, 2, 2, 2, 2] y) { y = Conv(x, w) }""",
        w=np.ones((2, 2, 3, 3, 3), np.float32),
    )
    expected = "input of rank 5, takes 3 and 4"
    assert reasons(cover(path, "WebGPU")) == {"ai.onnx:Conv": expected}
    assert reasons(cover(path, "CoreML")) == {"ai.onnx:Conv": expected}
    assert cover(path, "QNN-HTP").taken == 1


def test_ranks_dimensions_constants_and_modes_are_limits(tmp_path: Path):
    path = write(
        tmp_path,
        """g (float[2, 3] x, int64[5] s, float[20000] long, float[1, 4, 2, 2] z) =>
            (float[1, 1, 1, 2, 3] r, float[20000] q, float[1, 1, 4, 4] d, float[2, 3] m) {
            r = Reshape(x, s)
            q = Relu(long)
            d = DepthToSpace <blocksize = 2, mode = "CRD"> (z)
            m = Softmax <axis = 1> (x)
        }""",
    )
    assert reasons(cover(path, "WebNN")) == {
        "ai.onnx:Reshape": "input 1 is not constant",
        "ai.onnx:DepthToSpace": "no kernel",
    }
    assert reasons(cover(path, "CoreML")) == {"ai.onnx:Relu": "a dimension above 16384"}
    assert reasons(cover(path, "NNAPI"))["ai.onnx:DepthToSpace"] == "mode CRD, takes DCR"
    assert "ai.onnx:Softmax" not in reasons(cover(path, "XNNPACK"))  # the last axis, as asked


def test_a_tensor_of_too_many_dimensions_falls_back(tmp_path: Path):
    path = write(
        tmp_path,
        """g (float[2, 3] x) => (float[1, 1, 1, 1, 2, 3] y) { y = Unsqueeze(x, axes) }""",
        axes=np.array([0, 1, 2, 3]),
    )
    assert reasons(cover(path, "QNN-HTP")) == {"ai.onnx:Unsqueeze": "rank 6, takes 5"}
    assert cover(path, "DirectML").taken == 1


def test_free_sizes_and_too_many_islands_refuse_the_whole_graph(tmp_path: Path):
    chain = "".join(f"v{i + 1} = com.microsoft.FusedMatMul(x, v{i})\n" for i in range(11))
    text = f"g (float[F] x) => (float[F] y) {{ v0 = Relu(x)\n{chain} y = Relu(v11) }}"
    path = write(tmp_path, text)
    found = cover(path, "MIGraphX", F=5)
    assert (found.taken, found.refused) == (0, "sizes F are free: fix them at export")
    fixed = write(tmp_path, text.replace("[F]", "[5]"))
    assert cover(fixed, "MIGraphX").refused == "more than 10 nodes left out"
    assert cover(fixed, "CPU").taken == 13


def test_arithmetic_on_shapes_folds_and_gives_the_shapes_behind_it(tmp_path: Path):
    path = write(
        tmp_path,
        """g (float[1, F, h, w] x) => (float[a, b, c] y) {
            all = Shape(x)
            rows = Gather <axis = 0> (all, two)
            half = Div(rows, two)
            shape = Concat <axis = 0> (one, half, minus)
            y = Reshape(x, shape)
        }""",
        one=np.array([1]), two=np.array([2]), minus=np.array([-1]),
    )  # fmt: skip
    shapes = infer_shapes(path, {"F": 3, "h": 8, "w": 5})
    assert shapes.shape("y") == (1, 4, 30)
    found = graph(path, "CPU", F=3, h=8, w=5)
    assert (found.nodes, found.folded, found.unknown) == (5, 4, 0)
    assert found.activation is not None
    assert (found.activation.name, found.activation.bytes) == ("y", 4 * 120)
    assert found.sizes == {"F": 3, "h": 8, "w": 5}


def test_unknown_sizes_leave_shapes_unknown(tmp_path: Path):
    path = write(tmp_path, "g (float[F, 2] x) => (float[F, 2] y) { y = Relu(x) }")
    found = graph(path, "CPU")
    assert (found.unknown, found.activation) == (1, None)


def test_shapes_go_through_operators_of_onnx_runtime(tmp_path: Path):
    path = write(
        tmp_path,
        """g (float[2, 7, 8] q, float[2, 5, 8] k, float[2, 5, 6] v, float[2, 7, 3] t) =>
            (float[2, 7, 6] a, float[2, 8, 3] m, float[2, 7, 4] n, float[2, 7, 8] h) {
            a = com.microsoft.MultiHeadAttention <num_heads = 2> (q, k, v)
            m = com.microsoft.FusedMatMul <transA = 1> (q, t)
            n = com.microsoft.MatMulNBits <K = 8, N = 4, bits = 4, block_size = 16> (q, b, s)
            h = com.microsoft.QuickGelu(q)
        }""",
        b=np.zeros((4, 1, 8), np.uint8), s=np.ones(4, np.float32),
    )  # fmt: skip
    shapes = infer_shapes(path, {})
    expected = {"a": (2, 7, 6), "m": (2, 8, 3), "n": (2, 7, 4), "h": (2, 7, 8)}
    assert {name: shapes.shape(name) for name in expected} == expected


def test_float_products_are_told_where_the_provider_is_made_for_quantized_ones(tmp_path: Path):
    text = """g (float[2, 2] x) => (float[2, 2] y) {
        q = QuantizeLinear(x, s, zero)
        d = DequantizeLinear(q, s, zero)
        y = MatMul(%s, w)
    }"""
    weights = {
        "s": np.float32(0.1), "zero": np.uint8(3), "w": np.ones((2, 2), np.float32),
    }  # fmt: skip
    assert not cover(write(tmp_path, text % "d", **weights), "QNN-HTP").remarks
    (remark,) = cover(write(tmp_path, text % "x", **weights), "QNN-HTP").remarks
    assert remark.startswith("1 of 1 products are float")


def test_what_is_beyond_a_target_is_told(tmp_path: Path):
    path = write(
        tmp_path,
        """g (float[F, 64] x) => (float[F, 64] y) {
            z = com.microsoft.Gelu(x)
            y = MatMul(z, w)
        }""",
        w=np.ones((64, 64), np.float32),
    )
    found = graph(path, "CPU", F=1000)
    qnn = find_target("android-qnn")
    tight = replace(qnn, limits=FileLimits(largest_file=100, largest_tensor=20_000))
    lines = exceeded(found, tight)
    assert len(lines) == 4
    assert lines[0].startswith("model.onnx: ")
    assert lines[1] == "activation z: 256000 bytes, one tensor may have 20000"
    assert lines[2] == "sizes F are free, android-qnn needs them fixed"
    assert lines[3] == "operators com.microsoft:Gelu are not of this target"
    assert not exceeded(found, find_target("cpu"))


def test_the_largest_tensor_and_file_are_held_against_every_target(tmp_path: Path):
    """A hidden state of 256 MiB: more than the web's 128 MiB, less than the others' 2 GiB."""
    path = write(
        tmp_path,
        "g (float[F, 64] x) => (float[F, 64] y) { y = MatMul(x, w) }",
        w=np.ones((64, 64), np.float32),
    )
    small, large = graph(path, "CPU", F=2**10), graph(path, "CPU", F=2**20)
    tensor, file = largest_tensor([small, large]), largest_file([small, large])
    assert (tensor.name, tensor.bytes) == ("unet/y", 2**28)
    assert (file.name, file.bytes) == ("unet/model.onnx", path.stat().st_size)
    assert largest_tensor([graph(path, "CPU")]).name == "unet/w"  # where no size is known
    rows = _target_rows([small, large])
    assert list(rows) == list(target_names())
    assert [name for name, row in rows.items() if not row["tensor"]["fits"]] == ["web"]
    text = _target_lines([small, large])
    assert text[0] == "largest tensor 268 MB  unet/y"
    (web,) = (line for line in text if line.startswith("web "))
    assert "134 MB: too large" in web
    assert web.endswith("2.15 GB: fits")


def test_an_unknown_provider_is_refused_with_the_nearest():
    assert find_provider("webgpuexecutionprovider").name == "WebGPU"
    with pytest.raises(UsageError, match="did you mean CoreML") as caught:
        find_provider("core-ml")
    assert caught.value.code == "export.provider"


def test_the_report_of_the_built_in_bundle(capsys: pytest.CaptureFixture[str]):
    assert coverage_main(["--provider", "CPU", "--provider", "qnn-htp", "--frames", "13"]) == 0
    text = capsys.readouterr().out
    assert "F=13 h=8 w=8" in text
    assert "everything: sizes F, h, w are free" in text
    assert "within the limits of target" in text
    assert max(map(len, text.splitlines())) <= 110


def test_the_report_as_json(capsys: pytest.CaptureFixture[str]):
    assert coverage_main(["--provider", "CPU", "--target", "android-qnn", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    unet = document["graphs"]["unet"]
    cpu = unet["providers"]["CPU"]
    assert cpu["taken"] == cpu["nodes"] == unet["nodes"] - unet["folded"]
    assert "sizes F, h, w are free, android-qnn needs them fixed" in unet["beyond_limits"]
    assert document["targets"]["web"]["tensor"]["fits"]
    assert document["lists"]["CPU"]["version"] == find_provider("CPU").version


def test_a_size_that_the_model_cannot_take_is_refused():
    with pytest.raises(UsageError, match="got 20, expected a multiple of") as caught:
        coverage_main(["--height", "20"])
    assert caught.value.code == "export.coverage_size"
