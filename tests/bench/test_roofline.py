"""Operations of a profile are counted as on paper, and shares of the machine follow from them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hummingbird_bench.peaks import Peaks, copy_rate, int8_rate, measure_peaks, sgemm_rate
from hummingbird_bench.roofline import (
    ELEMENTWISE,
    GraphProfile,
    OperatorTime,
    derive_roofline,
    group_of,
    node_flops,
    read_profile,
    roofline_figure,
)
from hummingbird_runtime.errors import InputError


@pytest.mark.parametrize(
    ("op", "inputs", "outputs", "expected"),
    [
        # a 3 x 3 convolution: 2 x outputs x input channels x 9
        ("Conv", [[1, 64, 8, 8], [32, 64, 3, 3], [32]], [[1, 32, 8, 8]], 2 * 32 * 64 * 64 * 9),
        ("Conv", [[1, 64, 8, 8], [64, 1, 3, 3]], [[1, 64, 8, 8]], 2 * 64 * 64 * 9),
        ("ConvTranspose", [[1, 8, 4, 4], [8, 3, 2, 2]], [[1, 3, 8, 8]], 2 * 8 * 16 * 3 * 4),
        (
            "QLinearConv",
            [[1, 64, 8, 8], [], [], [32, 64, 3, 3]],
            [[1, 32, 8, 8]],
            2 * 32 * 64 * 64 * 9,
        ),
        ("QLinearConv", [[1, 8, 8, 64], [], [], [32]], [[1, 8, 8, 32]], None),
        ("MatMul", [[2, 5, 7], [7, 3]], [[2, 5, 3]], 2 * 2 * 5 * 3 * 7),
        ("Gemm", [[5, 7], [7, 3], [3]], [[5, 3]], 2 * 5 * 3 * 7),
        ("MatMulIntegerToFloat", [[5, 7], []], [[5, 3]], 2 * 5 * 3 * 7),
        # queries x keys x width, twice
        ("MultiHeadAttention", [[2, 10, 64], [2, 6, 64]], [[2, 10, 64]], 2 * 2 * 2 * 10 * 6 * 64),
        ("Attention", [[2, 4, 10, 16], [2, 4, 6, 16]], [[2, 4, 10, 16]], 4 * 2 * 10 * 6 * 64),
        ("Add", [[2, 3], [2, 3]], [[2, 3]], 0),
        ("Shape", [], [[3]], 0),
    ],
)
def test_operations_are_counted_as_on_paper(
    op: str, inputs: list[list[int]], outputs: list[list[int]], expected: float | None
):
    assert node_flops(op, inputs, outputs) == expected


def node(
    name: str, op: str, at: int, us: int, inputs: Any, output: list[int], kind: str = "float"
) -> dict[str, Any]:
    return {
        "cat": "Node",
        "name": f"{name}_kernel_time",
        "ts": at,
        "dur": us,
        "args": {
            "op_name": op,
            "activation_size": "100",
            "parameter_size": "20",
            "output_size": "80",
            "input_type_shape": [{kind: shape} for shape in inputs],
            "output_type_shape": [{"float": output}],
            "provider": "CPUExecutionProvider",
        },
    }


def profile_file(path: Path, *events: dict[str, Any]) -> Path:
    run = [{"cat": "Session", "name": "model_run", "ts": t, "dur": 1000} for t in (0, 5000)]
    path.write_text(json.dumps([*run, *events]))
    return path


def test_only_the_last_run_counts_and_operators_are_summed(tmp_path: Path):
    path = profile_file(
        tmp_path / "p.json",
        node("a", "MatMul", 100, 900, [[4, 8], [8, 2]], [4, 2]),  # the run before
        node("a", "MatMul", 5100, 300, [[4, 8], [8, 2]], [4, 2]),
        node("b", "MatMul", 5400, 100, [[4, 8], [8, 2]], [4, 2]),
        node("c", "Add", 5500, 50, [[4, 2], [4, 2]], [4, 2]),
    )
    wall, operators = read_profile(path)
    assert wall == pytest.approx(1e-3)
    assert operators == (
        OperatorTime("MatMul", 2, pytest.approx(4e-4), 2 * 2 * 4 * 2 * 8, 400, 0.0, 0.0),
        OperatorTime("Add", 1, pytest.approx(5e-5), 0.0, 200, 0.0, 0.0),
    )


def test_views_move_nothing_and_products_of_bytes_are_told_apart(tmp_path: Path):
    path = profile_file(
        tmp_path / "p.json",
        node("r", "Reshape", 5100, 30, [[4, 8], [2]], [8, 4]),
        node("i", "MatMulIntegerToFloat", 5200, 20, [[4, 8], [8, 2]], [4, 2], "uint8"),
        node("f", "MatMul", 5300, 10, [[4, 8], [8, 2]], [4, 2]),
    )
    view, integers, floats = read_profile(path)[1]
    assert (view.op, view.bytes) == ("Reshape", 0.0)
    assert integers.flops == integers.flops_int8 == floats.flops == 2 * 4 * 2 * 8
    assert floats.flops_int8 == 0.0


def test_packed_weights_are_read_from_the_run_without_packing(tmp_path: Path):
    packed = node("q", "QLinearConv", 5100, 300, [[1, 8, 8, 64], [], [], [32]], [1, 8, 8, 32])
    shapes = [[1, 8, 8, 64], [], [], [32, 64, 3, 3]]
    plain = node("q", "QLinearConv", 5100, 900, shapes, [1, 8, 8, 32])
    timed = profile_file(tmp_path / "timed.json", packed)
    (alone,) = read_profile(timed)[1]
    assert (alone.flops, alone.uncounted_s) == (0.0, pytest.approx(3e-4))
    (both,) = read_profile(timed, profile_file(tmp_path / "plain.json", plain))[1]
    assert both.flops == 2 * 64 * 32 * 64 * 9
    assert both.seconds == pytest.approx(3e-4)
    assert both.uncounted_s == 0.0


@pytest.mark.parametrize("text", ["", "[]", '[{"name": "session_initialization"}]'])
def test_a_profile_without_a_run_is_refused(tmp_path: Path, text: str):
    path = tmp_path / "p.json"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        read_profile(path)
    assert caught.value.code == "report.invalid"


def profile(*operators: OperatorTime) -> GraphProfile:
    return GraphProfile("unet", "8 frames", 1.0, Peaks(2, 1e9, 4e9, 1e8, 5), operators)


def test_shares_and_roof_follow_from_rates():
    found = derive_roofline(
        profile(
            OperatorTime("MatMul", 3, 0.8, 4e8, 1e6, 0.0, 0.0),  # half of the sgemm rate
            OperatorTime("Add", 9, 0.2, 0.0, 5e6, 0.0, 0.0),  # a quarter of the copy rate
        )
    )
    products, adds = found["groups"]
    assert (products["group"], adds["group"]) == ("matrix products", ELEMENTWISE)
    assert products["share"] == pytest.approx(0.8)
    assert products["of_sgemm"] == pytest.approx(0.5)
    assert products["bound"] == "arithmetic"
    assert adds["of_bandwidth"] == pytest.approx(0.25)
    assert adds["bound"] == "memory"
    assert found["roof_s"] == pytest.approx(0.4 + 0.05)
    assert found["of_roof"] == pytest.approx(0.45)
    assert found["covered"] == pytest.approx(1.0)


def test_operations_on_bytes_are_held_against_their_own_rate():
    found = derive_roofline(
        profile(
            OperatorTime("QLinearConv", 3, 0.4, 8e8, 1e6, 8e8, 0.0),
            OperatorTime("FusedConv", 1, 0.6, 3e8, 1e6, 0.0, 0.0),
        )
    )
    (convolutions,) = found["groups"]
    assert convolutions["of_sgemm"] == pytest.approx(1.1)  # more than float32 could
    assert convolutions["of_arithmetic"] == pytest.approx(0.2 + 0.3)
    assert found["roof_s"] == pytest.approx(0.5)


def test_every_operator_has_one_group():
    assert group_of("FusedConv") == "convolutions"
    assert group_of("Gelu") == ELEMENTWISE
    assert group_of("ReorderOutput") == "layout and copies"


def test_the_figure_lists_every_group_and_the_whole():
    one = profile(OperatorTime("MatMul", 3, 0.8, 4e8, 1e6, 0.0, 0.0))
    table = roofline_figure(one, derive_roofline(one)).table
    assert [row[0] for row in table.rows] == ["matrix products", "in all"]
    assert table.rows[0][3] == "50.0 %"


def test_what_could_not_be_counted_is_said():
    one = profile(OperatorTime("QLinearConv", 3, 0.8, 0.0, 1e6, 0.0, 0.8))
    assert "not counted" in roofline_figure(one, derive_roofline(one)).caption


def test_peaks_are_those_of_a_machine():
    assert 1e8 < sgemm_rate(1) < 1e14  # a slow phone to a big server
    assert 1e8 < int8_rate(1, 1) < 1e15
    assert 1e8 < copy_rate(1, 1) < 1e13


def test_peaks_are_measured_in_a_process_with_its_own_threads():
    found = measure_peaks(1, tries=1)
    assert found.threads == found.tries == 1
    assert found.sgemm > 1e8
