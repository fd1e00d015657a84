"""How near each group of operators comes to what the machine can do, from an ONNX Runtime profile.

The roof of a group is the longer of its arithmetic at the measured rates of matrix products, in
float32 or 8-bit integers, and its bytes at the measured copy rate (Williams, Waterman, Patterson
2009). Counted are matrix products, convolutions (channels as their kernels fill them up) and
attention, and every input and output once, but not of mere views. Caches can make bytes cheaper
than copies, so a share of the copy rate can exceed 100 %.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hummingbird_bench import amounts
from hummingbird_bench.charts import legend, stacks
from hummingbird_bench.page import Figure, Table
from hummingbird_bench.peaks import Peaks
from hummingbird_bench.sealed_document import invalid

GROUPS: dict[str, tuple[str, ...]] = {
    "convolutions": ("Conv", "FusedConv", "ConvTranspose", "QLinearConv", "ConvInteger",
                     "NhwcFusedConv"),
    "matrix products": ("MatMul", "Gemm", "FusedMatMul", "FusedGemm", "TransposeMatMul",
                        "QLinearMatMul", "QGemm", "MatMulInteger", "MatMulIntegerToFloat",
                        "DynamicQuantizeMatMul", "MatMulNBits"),
    "attention": ("MultiHeadAttention", "Attention", "Softmax", "QLinearSoftmax"),
    "normalisation": ("InstanceNormalization", "LayerNormalization", "GroupNormalization",
                      "GroupNorm", "SkipLayerNormalization", "ReduceMean",
                      "SimplifiedLayerNormalization", "BatchNormalization"),
    "8-bit conversion": ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "Cast"),
    "layout and copies": ("Transpose", "Reshape", "Concat", "Split", "Slice", "Expand", "Gather",
                          "Pad", "ReorderInput", "ReorderOutput", "Resize", "Upsample", "Squeeze",
                          "Unsqueeze", "Identity", "Tile", "DepthToSpace"),
}  # fmt: skip
"""Operators by what they do; every other one is elementwise."""
ELEMENTWISE = "elementwise"
VIEWS = ("Reshape", "Squeeze", "Unsqueeze", "Identity")
"""Operators that as a rule hand on the bytes they were given."""
_BYTES = ("int8", "uint8")


@dataclass(frozen=True)
class OperatorTime:
    """All runs of one operator in one run of a graph."""

    op: str
    calls: int
    seconds: float
    flops: float
    """a multiplication and an addition being two; 0 where the operator is not counted"""
    bytes: float
    """of inputs, weights and outputs, each once; 0 for views"""
    flops_int8: float
    """of the operations, those whose first input is 8-bit integers"""
    uncounted_s: float
    """of the seconds, those whose operations the profile does not tell"""


@dataclass(frozen=True)
class GraphProfile:
    """One run of one graph, and what the machine can do."""

    role: str
    """such as unet"""
    what: str
    """size and precision, for people"""
    wall_s: float
    """seconds of the run"""
    peaks: Peaks
    operators: tuple[OperatorTime, ...]


def read_profile(
    path: Path, unpacked: Path | None = None
) -> tuple[float, tuple[OperatorTime, ...]]:
    """Seconds and operators of the last run in a profile file of ONNX Runtime.

    Args:
        path: the timed run.
        unpacked: a run of the same graph with prepacking off, whose sizes are taken: the profile of
            a kernel that packed its weights no longer lists them.

    Raises:
        InputError: ``report.invalid`` when one holds no run.
    """
    length, nodes = _last_run(path)
    sizes = {} if unpacked is None else {n["name"]: n["args"] for n in _last_run(unpacked)[1]}
    known = [{**node, "args": sizes.get(node["name"], node["args"])} for node in nodes]
    return length / 1e6, sum_operators(known)


def _last_run(path: Path) -> tuple[float, list[dict[str, Any]]]:
    """Microseconds of the last run, and its node events."""
    try:
        events = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise invalid(str(path), f"not JSON: {error}") from error
    runs = [event for event in events if event.get("name") == "model_run"]
    if not runs:
        raise invalid(str(path), "got no event model_run, expected a profile with a run")
    start, length = runs[-1]["ts"], runs[-1]["dur"]
    nodes = [
        event
        for event in events
        if event.get("cat") == "Node"
        and str(event.get("name", "")).endswith("_kernel_time")
        and start <= event["ts"] <= start + length
    ]
    return length, nodes


def sum_operators(nodes: Iterable[Mapping[str, Any]]) -> tuple[OperatorTime, ...]:
    """Node events of a profile by operator, the longest first."""
    sums: dict[str, list[float]] = {}
    for node in nodes:
        arguments = node["args"]
        op = str(arguments["op_name"])
        moved = sum(
            float(arguments.get(key, 0))
            for key in ("activation_size", "parameter_size", "output_size")
            if op not in VIEWS
        )
        seconds, flops = node["dur"] / 1e6, node_flops(op, *_shapes(arguments))
        counted = flops or 0.0
        eight_bit = counted if _first_type(arguments) in _BYTES else 0.0
        parts = (1, seconds, counted, moved, eight_bit, seconds if flops is None else 0.0)
        sums[op] = [a + b for a, b in zip(sums.get(op, [0.0] * 6), parts, strict=True)]
    found = [OperatorTime(op, int(calls), *rest) for op, (calls, *rest) in sums.items()]
    return tuple(sorted(found, key=lambda one: (-one.seconds, one.op)))


def node_flops(
    op: str, inputs: Sequence[Sequence[int]], outputs: Sequence[Sequence[int]]
) -> float | None:
    """Operations of one node from its shapes; 0 where none are counted, None where it packed them.

    Args:
        op: name of the operator.
        inputs: shape of each input.
        outputs: shape of each output.
    """
    if not inputs or not outputs:
        return 0.0
    out, first = math.prod(outputs[0]), math.prod(inputs[0])
    if op in GROUPS["convolutions"]:
        # weights are (out, in / groups, kernel...), of a transposed one (in, out / groups, ...)
        place = 3 if op == "QLinearConv" else 1
        weights = inputs[place] if len(inputs) > place else []
        if len(weights) < 3:
            return None
        return 2.0 * (first if op == "ConvTranspose" else out) * math.prod(weights[1:])
    if op in GROUPS["matrix products"] and inputs[0]:
        return 2.0 * out * inputs[0][-1]
    if op in ("MultiHeadAttention", "Attention") and len(inputs) > 1 and len(inputs[1]) > 1:
        return 4.0 * first * inputs[1][-2]  # scores, then the weighted sum: queries x keys x width
    return 0.0


def group_of(op: str) -> str:
    """The group of an operator."""
    return next((group for group, ops in GROUPS.items() if op in ops), ELEMENTWISE)


def derive_roofline(profile: GraphProfile) -> dict[str, Any]:
    """Groups with their share of the time and of the machine; pure.

    Returns:
        ``groups``, longest first: seconds, share of the run, rates, their shares of the peaks,
        ``roof_s`` (what the machine would need at least) and ``of_roof``; then the same in all.
    """
    total, peaks = sum(one.seconds for one in profile.operators), profile.peaks
    names = sorted({group_of(one.op) for one in profile.operators})
    groups = []
    for name in names:
        members = [one for one in profile.operators if group_of(one.op) == name]
        seconds, flops, eight_bit, moved = (
            sum(getattr(one, field) for one in members)
            for field in ("seconds", "flops", "flops_int8", "bytes")
        )
        by_arithmetic = (flops - eight_bit) / peaks.sgemm + eight_bit / peaks.int8
        by_bytes = moved / peaks.bandwidth
        groups.append(
            {
                "group": name,
                "calls": sum(one.calls for one in members),
                "seconds": seconds,
                "share": seconds / total if total else 0.0,
                "flops": flops,
                "flops_int8": eight_bit,
                "bytes": moved,
                "of_sgemm": flops / peaks.sgemm / seconds if seconds else 0.0,
                "of_arithmetic": by_arithmetic / seconds if seconds else 0.0,
                "of_bandwidth": by_bytes / seconds if seconds else 0.0,
                "roof_s": max(by_arithmetic, by_bytes),
                "bound": "arithmetic" if by_arithmetic >= by_bytes else "memory",
                "uncounted_s": sum(one.uncounted_s for one in members),
            }
        )
    groups.sort(key=lambda group: (-float(str(group["seconds"])), str(group["group"])))
    roof = sum(float(str(group["roof_s"])) for group in groups)
    return {
        "groups": groups,
        "seconds": total,
        "flops": sum(one.flops for one in profile.operators),
        "roof_s": roof,
        "of_roof": roof / total if total else 0.0,
        "of_sgemm": sum(one.flops for one in profile.operators) / peaks.sgemm / total
        if total
        else 0.0,
        "covered": total / profile.wall_s if profile.wall_s else 0.0,
        "uncounted_s": sum(one.uncounted_s for one in profile.operators),
    }


def roofline_figure(profile: GraphProfile, derived: Mapping[str, Any]) -> Figure:
    """Where the time of one graph goes, and how near each part is to the machine's limits."""
    groups = derived["groups"]
    colours = {group["group"]: f"c{min(i, 5)}" for i, group in enumerate(groups)}
    rows = tuple(
        (
            group["group"],
            amounts.seconds(group["seconds"]),
            amounts.percent(group["share"]),
            amounts.percent(group["of_sgemm"]) if group["flops"] else "–",
            amounts.percent(group["of_arithmetic"]) if group["flops"] else "–",
            amounts.percent(group["of_bandwidth"]),
            group["bound"],
            amounts.seconds(group["roof_s"]),
        )
        for group in groups
    )
    whole = (
        "in all",
        amounts.seconds(derived["seconds"]),
        "100 %",
        amounts.percent(derived["of_sgemm"]),
        "",
        "",
        "",
        amounts.seconds(derived["roof_s"]),
    )
    said = (
        f"{profile.what}, {profile.peaks.threads} threads. This machine does "
        f"{amounts.significant(profile.peaks.sgemm / 1e9)} GFLOP/s in float32 matrix products "
        f"(sgemm) and {amounts.significant(profile.peaks.int8 / 1e9)} in those of 8-bit integers, "
        f"and copies {amounts.significant(profile.peaks.bandwidth / 1e9)} GB/s, read and written. "
    )
    if derived["of_roof"] < 1:
        said += (
            f"{amounts.percent(derived['of_roof'])} of the time is what these rates allow at "
            "least; the rest is the most that better kernels could win without less arithmetic or "
            "fewer bits."
        )
    else:
        said += "By these rates it would take no less: better kernels have nothing to win."
    if derived["uncounted_s"]:
        share = amounts.percent(derived["uncounted_s"] / derived["seconds"])
        said += f" Operations of kernels with {share} of the time are not counted."
    return Figure(
        title=f"Where the time of {profile.role} goes",
        caption=said,
        drawing=legend([(colours[g["group"]], g["group"]) for g in groups])
        + stacks(
            [
                ("time", amounts.seconds(derived["seconds"]),
                 [(colours[g["group"]], g["share"]) for g in groups]),
                ("least time by these rates", amounts.seconds(derived["roof_s"]),
                 [(colours[g["group"]], g["roof_s"] / max(derived["seconds"], derived["roof_s"]))
                  for g in groups]),
            ]
        ),
        table=Table(
            f"One run of {profile.role} by group of operators",
            (("group", ""), ("time", "n"), ("share", "n"), ("of sgemm peak", "n"),
             ("of its own peak", "n"), ("of copy rate", "n"), ("bound by", ""), ("at least", "n")),
            (*rows, whole),
        ),
        beside=False,
    )  # fmt: skip


def _first_type(arguments: Mapping[str, Any]) -> str:
    """Element type of a node's first input, empty where it has none."""
    first: Mapping[str, Any] = next(iter(arguments.get("input_type_shape", [])), {})
    return next(iter(first), "")


def _shapes(arguments: Mapping[str, Any]) -> tuple[list[list[int]], list[list[int]]]:
    """Input and output shapes of a node event: each entry is {type: shape}."""

    def of(key: str) -> list[list[int]]:
        return [next(iter(entry.values()), []) for entry in arguments.get(key, [])]

    return of("input_type_shape"), of("output_type_shape")
