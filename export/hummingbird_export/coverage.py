"""``hummingbird export coverage BUNDLE``: the coverage of a bundle as a table or as JSON."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hummingbird_runtime.cli.parser import Parser, number_in

if TYPE_CHECKING:  # onnx is imported by the verb, not by ``--help``
    from hummingbird_export.graph_coverage import GraphCoverage, Piece, ProviderCoverage
    from hummingbird_export.targets import Target

WIDTH = 110
"""Columns of the table."""


def coverage_main(arguments: list[str]) -> int:
    """Print what providers would leave to the CPU; see ``hummingbird export coverage --help``."""
    parser = Parser(
        prog="hummingbird export coverage",
        description="Say which nodes of a bundle each provider of ONNX Runtime would leave to the "
        "CPU, from static lists: neither provider nor hardware is needed.",
    )
    add = parser.add_argument
    add("bundle", nargs="?", metavar="BUNDLE", help="default: the built-in bundle")
    add("--provider", action="append", metavar="P", help="one provider, may be repeated")
    add("--target", metavar="NAME", help="whose limits to check, default: the bundle's own")
    add("--frames", type=number_in(1, 1024), help="of the clip, default: the bundle's")
    add("--height", type=number_in(1, 8192), help="pixels, default: the bundle's")
    add("--width", type=number_in(1, 8192), help="pixels, default: the bundle's")
    add("--json", action="store_true", help="print one JSON document")
    parsed = parser.parse(arguments)

    from hummingbird_export.graph_coverage import clip_sizes, cover_bundle
    from hummingbird_export.provider_operators import find_provider, providers
    from hummingbird_export.targets import find_target
    from hummingbird_runtime.bundle import Bundle

    names = parsed.provider
    chosen = providers() if names is None else tuple(map(find_provider, names))
    bundle = Bundle.open(parsed.bundle)
    target = find_target(parsed.target or bundle.manifest.target)
    sizes = clip_sizes(
        bundle.manifest.model, frames=parsed.frames, height=parsed.height, width=parsed.width
    )
    graphs = cover_bundle(bundle, sizes, chosen)
    if parsed.json:
        document = _document(graphs, target, sizes, bundle.manifest.name)
        print(json.dumps(document, indent=2))
    else:
        print("\n".join(_lines(graphs, target, bundle.manifest.name)))
    return 0


def _lines(graphs: Sequence[GraphCoverage], target: Target, name: str) -> list[str]:
    from hummingbird_export.graph_coverage import exceeded

    lines = [f"bundle {name}, target {target.name}"]
    for graph in graphs:
        sizes = " ".join(f"{axis}={size}" for axis, size in graph.sizes.items())
        lines += [
            "",
            f"{graph.role}: {graph.precision}, {graph.nodes} nodes, {graph.folded} of them fold "
            f"away; {sizes or 'fixed sizes'}",
            "  files              "
            + ", ".join(f"{piece.name} {_size(piece.bytes)}" for piece in graph.files),
            f"  largest weight     {_size(graph.initializer.bytes)}  {graph.initializer.name}",
            f"  largest activation {_activation(graph)}",
            "",
            f"  {'provider':<10}{'takes':>13}{'islands':>9}  left to the CPU",
        ]
        for cover in graph.providers:
            lines += _provider_lines(cover)
    beyond = [f"  {graph.role}: {line}" for graph in graphs for line in exceeded(graph, target)]
    lines += ["", f"beyond the limits of target {target.name}:" if beyond else ""]
    lines += beyond or [f"within the limits of target {target.name}"]
    lines += ["", *_target_lines(graphs)]
    return [line for i, line in enumerate(lines) if line or lines[i - 1]]


def _target_lines(graphs: Sequence[GraphCoverage]) -> list[str]:
    """The bundle's largest tensor and file against what each target takes in one piece."""
    rows = _target_rows(graphs)
    lines = [f"{'target':<16}{'one tensor':<32}one file"]
    for name, row in rows.items():
        lines.append(f"{name:<16}{_judged(row['tensor']):<32}{_judged(row['file'])}")
    first = next(iter(rows.values()))
    lines = [
        f"largest tensor {_size(first['tensor']['bytes'])}  {first['tensor']['name']}",
        f"largest file   {_size(first['file']['bytes'])}  {first['file']['name']}",
        "",
        *lines,
    ]
    unknown = sum(graph.unknown for graph in graphs)
    return lines + ([f"(of what is known; {unknown} shapes are not)"] if unknown else [])


def _target_rows(graphs: Sequence[GraphCoverage]) -> dict[str, dict[str, Any]]:
    from hummingbird_export.graph_coverage import largest_file, largest_tensor
    from hummingbird_export.targets import TARGETS

    tensor, file = largest_tensor(graphs), largest_file(graphs)
    return {
        target.name: {
            "tensor": _limited(tensor, target.limits.largest_tensor),
            "file": _limited(file, target.limits.largest_file),
        }
        for target in TARGETS
    }


def _limited(piece: Piece, limit: int | None) -> dict[str, Any]:
    fits = limit is None or piece.bytes <= limit
    return {"name": piece.name, "bytes": piece.bytes, "limit": limit, "fits": fits}


def _judged(row: Mapping[str, Any]) -> str:
    if row["limit"] is None:
        return "no limit of its own"
    return f"{_size(row['limit'])}: {'fits' if row['fits'] else 'too large'}"


def _provider_lines(cover: ProviderCoverage) -> list[str]:
    share = f"{cover.taken} of {cover.nodes}"
    islands = "-" if cover.refused else cover.islands
    notes = [f"everything: {cover.refused}"] if cover.refused else []
    by_reason: dict[str, list[str]] = {}
    for fallback in cover.fallbacks:
        found = by_reason.setdefault(fallback.reason, [])
        found.append(f"{_short(fallback.operator)} {fallback.nodes}")
    notes += [f"{reason}: {', '.join(found)}" for reason, found in by_reason.items()]
    notes += [f"({_short(remark)})" for remark in cover.remarks]
    first = f"  {cover.provider.name:<10}{share:>13}{islands:>9}  "
    indent = " " * len(first)
    rows = [row for note in notes or ["nothing"] for row in textwrap.wrap(note, WIDTH - len(first))]
    return [first + rows[0], *(indent + row for row in rows[1:])]


def _short(operator: str) -> str:
    return operator.removeprefix("ai.onnx:").replace("com.microsoft:", "m:")


def _activation(graph: GraphCoverage) -> str:
    if graph.activation is None:
        return "unknown: no shape could be told"
    text = f"{_size(graph.activation.bytes)}  {graph.activation.name}"
    return text + (f" (of what is known; {graph.unknown} shapes are not)" if graph.unknown else "")


def _size(count: int) -> str:
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:.3g} {unit}"
    return f"{count} bytes"


def _document(
    graphs: Sequence[GraphCoverage], target: Target, sizes: Mapping[str, int], name: str
) -> dict[str, Any]:
    from hummingbird_export.graph_coverage import exceeded

    return {
        "bundle": name,
        "target": target.name,
        "sizes": dict(sizes),
        "graphs": {
            graph.role: {
                "precision": graph.precision,
                "nodes": graph.nodes,
                "folded": graph.folded,
                "free_sizes": sorted(graph.sizes),
                "files": {piece.name: piece.bytes for piece in graph.files},
                "largest_weight": {graph.initializer.name: graph.initializer.bytes},
                "largest_activation": None
                if graph.activation is None
                else {graph.activation.name: graph.activation.bytes},
                "unknown_shapes": graph.unknown,
                "beyond_limits": exceeded(graph, target),
                "providers": {cover.provider.name: _cover_row(cover) for cover in graph.providers},
            }
            for graph in graphs
        },
        "targets": _target_rows(graphs),
        "lists": {
            cover.provider.name: {
                "version": cover.provider.version,
                "source": cover.provider.source,
            }
            for cover in graphs[0].providers
        },
    }


def _cover_row(cover: ProviderCoverage) -> dict[str, Any]:
    return {
        "nodes": cover.nodes,
        "taken": cover.taken,
        "islands": cover.islands,
        "refused": cover.refused,
        "fallbacks": [
            {"operator": f.operator, "nodes": f.nodes, "reason": f.reason} for f in cover.fallbacks
        ],
        "remarks": list(cover.remarks),
    }
