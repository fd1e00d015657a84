"""The simplifier's child process: what it cannot do costs nothing but the simplification."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from hummingbird_export.simplify import Simplifier, simplify_file

FOLDABLE = """
<ir_version: 10, opset_import: ["" : 18]>
graph (float[B,2] x) => (float[B,2] y) {
    one = Constant<value_floats = [1.0, 1.0]>()
    two = Add(one, one)
    three = Add(two, one)
    y = Mul(x, three)
}
"""
MINIMAL = """
<ir_version: 10, opset_import: ["" : 18]>
graph (float[B,2] x) => (float[B,2] y) { y = Relu(x) }
"""


def save(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    onnx.save(onnx.parser.parse_model(text), path)
    return path


@pytest.mark.filterwarnings("ignore")  # of onnxsim's own imports
def test_constant_parts_are_folded_and_the_source_stays(tmp_path: Path):
    source = save(tmp_path, "source.onnx", FOLDABLE)
    before = source.read_bytes()
    target = tmp_path / "target.onnx"
    assert simplify_file(source, target) == ""
    assert source.read_bytes() == before
    assert "Add" not in {node.op_type for node in onnx.load(target).graph.node}
    x = np.array([[1.0, -2.0]], np.float32)
    run = onnxruntime.InferenceSession(str(target)).run
    np.testing.assert_array_equal(run(None, {"x": x})[0], 3 * x)


def test_one_child_serves_graphs_good_and_bad_and_survives_its_own_death(tmp_path: Path):
    good = save(tmp_path, "good.onnx", FOLDABLE)
    minimal = save(tmp_path, "minimal.onnx", MINIMAL)
    bad = tmp_path / "bad.onnx"
    bad.write_bytes(b"no model")
    with Simplifier() as simplifier:
        assert simplifier.run(bad, tmp_path / "out-bad.onnx").startswith("onnxsim")
        assert "left 1 nodes of 1" in simplifier.run(minimal, tmp_path / "out-minimal.onnx")
        assert simplifier.run(good, tmp_path / "out-good.onnx") == ""
        child = simplifier._child
        assert child is not None
        child.kill()
        assert "ended with status" in simplifier.run(good, tmp_path / "out-dead.onnx")
        assert simplifier.run(good, tmp_path / "out-again.onnx") == ""
    assert child.poll() is not None
    assert good.exists()
