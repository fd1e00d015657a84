"""Which execution provider took which nodes of an opened graph."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from hummingbird_runtime.errors import ResourceError
from hummingbird_runtime.session_options import CPU

RECORD = "session.record_ep_graph_assignment_info"
"""Session configuration entry that makes ONNX Runtime keep the answer."""

Placement = Mapping[str, Mapping[str, int]]
"""Nodes by provider and operator. A provider that fuses nodes counts those it was given."""


def placement(native: Any) -> Placement:
    """Where the nodes of an ``onnxruntime.InferenceSession`` opened with ``RECORD`` run."""
    found: dict[str, Counter[str]] = {}
    for part in native.get_provider_graph_assignment_info():
        operators = found.setdefault(part.ep_name, Counter())
        operators.update(node.op_type for node in part.get_nodes())
    return found


def require_use(found: Placement, asked: Sequence[str], name: str) -> None:
    """Refuse a graph in which an asked provider has nothing to do.

    Args:
        found: of the graph.
        asked: names of providers; the CPU may be idle.
        name: of the graph, for the message.

    Raises:
        ResourceError: ``provider.no_nodes``.
    """
    total = count(found)
    for provider in asked:
        if provider != CPU and not count(found, provider):
            raise ResourceError(
                "provider.no_nodes",
                f"graph {name}: {provider} takes none of its {total} nodes",
                hint="ask for another provider; `hummingbird doctor` shows what each would run",
            )


def leftovers(found: Placement, asked: Sequence[str], name: str) -> ResourceError:
    """The error for a graph that the asked providers cannot run without the CPU."""
    total, left = count(found), found.get(CPU, {})
    kinds = sorted(left.items(), key=lambda item: (-item[1], item[0]))
    listed = ", ".join(f"{number} {operator}" for operator, number in kinds)
    return ResourceError(
        "provider.unsupported_nodes",
        f"graph {name}: {', '.join(asked)} takes {total - count(found, CPU)} of {total} nodes; "
        f"left are {listed}",
        hint=f"add {CPU} to --providers for the rest, or export for fixed sizes: "
        "that folds the arithmetic on shapes",
    )


def count(found: Placement, provider: str | None = None) -> int:
    """Nodes of one provider, or of all."""
    parts = found.values() if provider is None else (found.get(provider, {}),)
    return sum(sum(operators.values()) for operators in parts)


def nodes(found: Placement) -> dict[str, int]:
    """Nodes by provider."""
    return {provider: count(found, provider) for provider in found}
