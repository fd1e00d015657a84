"""Which nodes of a bundle's graphs each provider of ONNX Runtime would leave to the CPU, and why.

Judged from static lists (``provider_operators``) and from shapes at the clip's sizes; neither the
provider nor its hardware is needed. Also the largest pieces of each graph, against the target's
limits. ``coverage`` prints it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
from onnx import helper

from hummingbird_export.graph_shapes import GraphShapes, infer_shapes, item_size
from hummingbird_export.provider_operators import REMOVED, Provider, providers
from hummingbird_export.targets import PROTOBUF_LIMIT, Target
from hummingbird_runtime.bundle import Bundle
from hummingbird_runtime.errors import UsageError
from hummingbird_runtime.manifest import ModelFacts

PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""Operators that quantization is for."""


@dataclass(frozen=True)
class Fallback:
    """Nodes of one operator that a provider leaves to the CPU for one reason."""

    operator: str
    nodes: int
    reason: str


@dataclass(frozen=True)
class ProviderCoverage:
    """One graph under one provider."""

    provider: Provider
    nodes: int
    """Nodes to be run, folded ones left out."""
    fallbacks: tuple[Fallback, ...]
    islands: int
    """Groups of connected nodes on the CPU: each costs a copy there and back."""
    refused: str
    """Why the provider takes no node of this graph; empty when it takes what it can."""
    remarks: tuple[str, ...]

    @property
    def taken(self) -> int:
        """Nodes that the provider runs."""
        return 0 if self.refused else self.nodes - sum(f.nodes for f in self.fallbacks)


@dataclass(frozen=True)
class Piece:
    """A named piece of memory."""

    name: str
    bytes: int


@dataclass(frozen=True)
class GraphCoverage:
    """One graph of a bundle."""

    role: str
    precision: str
    sizes: Mapping[str, int]
    """What its free sizes were taken to be; empty for a graph of fixed sizes."""
    nodes: int
    """All of them."""
    folded: int
    """Nodes that compute shapes or unpack weights: gone where sizes are fixed."""
    files: tuple[Piece, ...]
    initializer: Piece
    """The largest weight."""
    activation: Piece | None
    """The largest value between nodes, None when no shape could be told."""
    unknown: int
    """Values whose shape could not be told."""
    operators: tuple[str, ...]
    providers: tuple[ProviderCoverage, ...]


def clip_sizes(
    facts: ModelFacts, *, frames: int | None, height: int | None, width: int | None
) -> dict[str, int]:
    """Free sizes of a bundle's graphs for one clip.

    Args:
        facts: the bundle's; its defaults stand in for None.
        frames: of the clip.
        height: pixels.
        width: pixels.

    Raises:
        UsageError: ``export.coverage_size``.
    """
    cell = facts.vae_scale_factor
    sides = {"height": (height, facts.height), "width": (width, facts.width)}
    for name, (given, side) in sides.items():
        if given is not None and given % side.multiple_of:
            raise UsageError(
                "export.coverage_size",
                f"{name}, got {given}, expected a multiple of {side.multiple_of}",
                hint="the U-Net halves the latent's sides several times",
            )
    return {
        "F": frames or facts.frames.default,
        "N": facts.decode_chunk,
        "h": (height or facts.height.default) // cell,
        "w": (width or facts.width.default) // cell,
    }


def cover_bundle(
    bundle: Bundle, sizes: Mapping[str, int], chosen: Iterable[Provider] | None = None
) -> tuple[GraphCoverage, ...]:
    """Coverage of every graph of a bundle.

    Args:
        bundle: verified.
        sizes: as ``clip_sizes`` gives them.
        chosen: providers to judge; None is all.
    """
    entries = bundle.manifest.graphs.items()
    selected = tuple(providers() if chosen is None else chosen)
    return tuple(
        cover_graph(bundle.path(role), role, graph.precision, sizes, selected)
        for role, graph in entries
    )


def cover_graph(
    path: Path, role: str, precision: str, sizes: Mapping[str, int], chosen: tuple[Provider, ...]
) -> GraphCoverage:
    """Coverage of one graph file."""
    shapes = infer_shapes(path, sizes)
    graph = shapes.model.graph
    working = shapes.working_nodes
    weights = [
        Piece(tensor.name, _count(tensor.dims) * item_size(tensor.data_type))
        for tensor in graph.initializer
    ]
    outputs = [name for node in working for name in node.output if name]
    values = [(name, shapes.bytes(name)) for name in outputs if not shapes.constant(name)]
    known = [Piece(name, size) for name, size in values if size is not None]
    external = sorted(
        {entry.value for t in graph.initializer for entry in t.external_data if _is_place(entry)}
    )
    return GraphCoverage(
        role=role,
        precision=precision,
        sizes={name: sizes[name] for name in shapes.free_sizes if name in sizes},
        nodes=len(graph.node),
        folded=len(graph.node) - len(working),
        files=tuple(
            Piece(file.name, file.stat().st_size)
            for file in (path, *(path.parent / name for name in external))
        ),
        initializer=max(weights, key=lambda piece: piece.bytes, default=Piece("none", 0)),
        activation=max(known, key=lambda piece: piece.bytes, default=None),
        unknown=len(values) - len(known),
        operators=tuple(sorted({operator(node) for node in graph.node})),
        providers=tuple(_cover(working, shapes, provider) for provider in chosen),
    )


def exceeded(graph: GraphCoverage, target: Target) -> list[str]:
    """What of a graph is beyond a target's limits, a line each."""
    lines = [
        f"{piece.name}: {piece.bytes} bytes, one file may have {limit}"
        for piece in graph.files
        for limit in (target.limits.largest_file,)
        if limit is not None and piece.bytes > limit
    ]
    if graph.files[0].bytes > PROTOBUF_LIMIT:
        lines.append(f"{graph.files[0].name}: {graph.files[0].bytes} bytes, a protobuf's limit is")
        lines[-1] += f" {PROTOBUF_LIMIT}"
    limit = target.limits.largest_tensor
    for kind, tensor in (("weight", graph.initializer), ("activation", graph.activation)):
        if limit is not None and tensor is not None and tensor.bytes > limit:
            lines.append(f"{kind} {tensor.name}: {tensor.bytes} bytes, one tensor may have {limit}")
    if target.static_sizes and graph.sizes:
        lines.append(f"sizes {', '.join(graph.sizes)} are free, {target.name} needs them fixed")
    foreign = sorted(set(graph.operators) - target.operators)
    if foreign:
        lines.append(f"operators {', '.join(foreign)} are not of this target")
    return lines


def largest_tensor(graphs: Iterable[GraphCoverage]) -> Piece:
    """The largest weight or activation of any graph, named ``role/tensor``."""
    return max(
        (
            Piece(f"{graph.role}/{tensor.name}", tensor.bytes)
            for graph in graphs
            for tensor in (graph.initializer, graph.activation)
            if tensor is not None
        ),
        key=lambda piece: piece.bytes,
    )


def largest_file(graphs: Iterable[GraphCoverage]) -> Piece:
    """The largest file of any graph, which is read into one buffer, named ``role/file``."""
    return max(
        (
            Piece(f"{graph.role}/{file.name}", file.bytes)
            for graph in graphs
            for file in graph.files
        ),
        key=lambda piece: piece.bytes,
    )


def operator(node: onnx.NodeProto) -> str:
    """``domain:Name`` of a node."""
    return f"{node.domain or 'ai.onnx'}:{node.op_type}"


def _cover(
    nodes: list[onnx.NodeProto], shapes: GraphShapes, provider: Provider
) -> ProviderCoverage:
    reasons = {index: _reason(node, shapes, provider) for index, node in enumerate(nodes)}
    left = {index: reason for index, reason in reasons.items() if reason}
    counts = Counter((operator(nodes[index]), reason) for index, reason in left.items())
    refused = ""
    if provider.fixed_sizes and shapes.free_sizes:
        refused = f"sizes {', '.join(shapes.free_sizes)} are free: fix them at export"
    elif provider.most_left_out is not None and len(left) > provider.most_left_out:
        refused = f"more than {provider.most_left_out} nodes left out"
    present = {operator(node) for node in nodes}
    remarks = [f"{op}: {text}" for op, text in provider.remarks.items() if op in present]
    if provider.quantized_first:
        remarks += _float_products(nodes, shapes)
    return ProviderCoverage(
        provider=provider,
        nodes=len(nodes),
        fallbacks=tuple(
            Fallback(op, number, reason) for (op, reason), number in sorted(counts.items())
        ),
        islands=_islands([nodes[index] for index in left]),
        refused=refused,
        remarks=tuple(remarks),
    )


def _reason(node: onnx.NodeProto, shapes: GraphShapes, provider: Provider) -> str:
    """Why a provider leaves a node out; empty when it takes it."""
    name = operator(node)
    if name in REMOVED:
        return ""
    if name not in provider.operators:
        return "no kernel"
    rank = shapes.rank(node.input[0]) if node.input else None
    allowed = provider.ranks.get(name)
    if allowed and rank is not None and rank not in allowed:
        return f"input of rank {rank}, takes {' and '.join(map(str, allowed))}"
    for position in provider.constants.get(name, ()):
        given = position < len(node.input) and node.input[position]
        if given and not shapes.constant(given):
            return f"input {position} is not constant"
    for attribute, wanted in provider.modes.get(name, {}).items():
        got = _attribute(node, attribute)
        last = attribute == "axis" and wanted == -1 and rank is not None and got == rank - 1
        if got != wanted and not last:
            return f"{attribute} {got}, takes {wanted}"
    return _too_large(node, shapes, provider)


def _too_large(node: onnx.NodeProto, shapes: GraphShapes, provider: Provider) -> str:
    for value in (*node.input, *node.output):
        rank, shape = shapes.rank(value), shapes.shape(value)
        if provider.largest_rank is not None and rank is not None and rank > provider.largest_rank:
            return f"rank {rank}, takes {provider.largest_rank}"
        if provider.largest_dim is not None and shape and max(shape) > provider.largest_dim:
            return f"a dimension above {provider.largest_dim}"
    return ""


def _attribute(node: onnx.NodeProto, name: str) -> Any:
    for attribute in node.attribute:
        if attribute.name == name:
            value = helper.get_attribute_value(attribute)
            return value.decode() if isinstance(value, bytes) else value
    default = onnx.defs.get_schema(node.op_type).attributes[name].default_value
    value = helper.get_attribute_value(default)
    return value.decode() if isinstance(value, bytes) else value


def _float_products(nodes: list[onnx.NodeProto], shapes: GraphShapes) -> list[str]:
    made = {output: node.op_type for node in nodes for output in node.output}
    products = [node for node in nodes if node.op_type in PRODUCTS]
    plain = [node for node in products if made.get(node.input[0]) != "DequantizeLinear"]
    if not plain:
        return []
    return [
        f"{len(plain)} of {len(products)} products are float: they run as float16 on NPUs that "
        "have it, and fall back on others; int8 runs on all"
    ]


def _islands(nodes: list[onnx.NodeProto]) -> int:
    """Groups of nodes that feed one another."""
    parent = list(range(len(nodes)))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    made = {output: index for index, node in enumerate(nodes) for output in node.output}
    for index, node in enumerate(nodes):
        for value in node.input:
            if value in made:
                parent[root(index)] = root(made[value])
    return len({root(index) for index in range(len(nodes))})


def _count(dims: Iterable[int]) -> int:
    total = 1
    for dim in dims:
        total *= dim
    return total


def _is_place(entry: onnx.StringStringEntryProto) -> bool:
    return bool(entry.key == "location")
