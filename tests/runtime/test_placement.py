"""Which provider took which nodes, and what is refused because of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tiny_onnx

from hummingbird_runtime.errors import ResourceError
from hummingbird_runtime.placement import count, nodes
from hummingbird_runtime.session import CPU, OnnxRuntimeBackend, SessionOptions, machine

AZURE = "AzureExecutionProvider"  # in every onnxruntime package, takes no standard node


@pytest.fixture
def three_products(tmp_path: Path) -> Path:
    names = ["x", "t0", "t1", "y"]
    chain = [tiny_onnx.node("MatMul", [names[i], "w"], [names[i + 1]]) for i in range(3)]
    sides = [(name, "float32", ["N", 8]) for name in ("x", "y")]
    path = tmp_path / "model.onnx"
    weight = np.eye(8, dtype=np.float32)
    path.write_bytes(tiny_onnx.model(chain, sides[:1], sides[1:], {"w": weight}))
    return path


def refusal(path: Path, *providers: str) -> ResourceError:
    if AZURE not in machine().listed:
        pytest.skip("this build has no second provider")
    with pytest.raises(ResourceError) as caught:
        OnnxRuntimeBackend().open(path, SessionOptions(providers=providers))
    assert caught.value.exit_code == 5
    return caught.value


def test_no_node_falls_to_the_cpu_unless_it_was_asked_for(three_products: Path) -> None:
    error = refusal(three_products, AZURE)
    assert error.code == "provider.unsupported_nodes"
    assert f"{AZURE} takes 0 of 3 nodes; left are 3 MatMul" in error.message
    assert CPU in error.hint


def test_a_provider_with_nothing_to_do_is_an_error_with_the_cpu_beside_it(
    three_products: Path,
) -> None:
    error = refusal(three_products, AZURE, CPU)
    assert error.code == "provider.no_nodes"
    assert f"{AZURE} takes none of its 3 nodes" in error.message


def test_nodes_are_counted_by_provider() -> None:
    found = {"A": {"Conv": 3, "Add": 2}, CPU: {"Gather": 1}}
    assert (count(found), count(found, "A"), count(found, "B")) == (6, 5, 0)
    assert nodes(found) == {"A": 5, CPU: 1}


def test_the_cpu_alone_keeps_no_record(three_products: Path) -> None:
    session = OnnxRuntimeBackend().open(three_products, SessionOptions())
    assert session.placement == {}
