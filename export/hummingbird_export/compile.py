"""One network to one verified graph file: trace, simplify, passes, storage, verify, in this order.

The graph as traced is on disk before anything tries to improve it. An improved graph that fails its
check is dropped, and the manifest says so; a traced graph that fails its check stops the export.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir
from onnx_ir.passes.common import LiftConstantsToInitializersPass
from torch import nn

from hummingbird_export.passes.half_storage import store_weights_as_half
from hummingbird_export.passes.split_linear import split_linear_layers
from hummingbird_export.precision import Precision
from hummingbird_export.simplify import Simplifier
from hummingbird_export.storage import save_graph
from hummingbird_export.trace import OPSET, check_portable, check_signature, operators, trace
from hummingbird_export.verify import Parity, verify_graph
from hummingbird_export.wrappers import Signature
from hummingbird_runtime.errors import ExecutionError
from hummingbird_runtime.manifest import Graph


@dataclass(frozen=True)
class CompiledGraph:
    """A graph file and what is known about it."""

    path: Path
    """``<role>/model.onnx``, verified."""
    graph: Graph
    """The manifest's entry."""
    simplification: str
    """What the simplifier did, or why its result is not used."""


def compile_graph(
    module: nn.Module,
    signature: Signature,
    bundle: Path,
    *,
    simplifier: Simplifier,
    precision: Precision = "fp32",
    metadata: Mapping[str, str] | None = None,
) -> CompiledGraph:
    """Write ``bundle/<role>/model.onnx`` and verify it against the module.

    Args:
        module: wrapper of the network; for ``fp16-storage`` its weights are rounded already.
        signature: names and sizes of the graph.
        bundle: existing folder of the bundle.
        simplifier: running child process.
        precision: ``fp16-storage`` stores large weights as float16 and computes in float32.
        metadata: entries of the graph's ``metadata_props``.

    Raises:
        ExecutionError: ``export.trace``, ``export.not_portable``, ``export.signature`` or
            ``export.verify``.
    """
    folder = bundle / signature.role
    folder.mkdir()

    def finish(source: Path) -> tuple[ir.Model, Parity]:
        model = ir.load(source)
        LiftConstantsToInitializersPass()(model)
        check_portable(model, signature.role)
        check_signature(model, signature)
        split_linear_layers(model)
        if precision == "fp16-storage":
            store_weights_as_half(model)
        written = save_graph(model, folder, metadata=metadata)
        return model, verify_graph(written, module, signature)

    with tempfile.TemporaryDirectory(dir=bundle, prefix="work-") as work:
        traced, simple = Path(work, "traced"), Path(work, "simple")
        traced.mkdir()
        simple.mkdir()
        source = save_graph(trace(module, signature), traced, keep_shapes=True)
        target = simple / "model.onnx"
        reason = simplifier.run(source, target)
        if not reason:
            try:
                model, parity = finish(target)
            except ExecutionError as error:
                reason = str(error)
        if reason:
            model, parity = finish(source)
            note = f"not used: {reason}"
        else:
            note = f"onnxsim: {_count_nodes(source)} nodes to {_count_nodes(target)}"
    graph = Graph(
        path=f"{signature.role}/model.onnx",
        opset=OPSET,
        inputs=signature.inputs,
        outputs=signature.outputs,
        ops=operators(model),
        precision=precision,
        parity=parity.to_json(),
    )
    return CompiledGraph(folder / "model.onnx", graph, note)


def _count_nodes(path: Path) -> int:
    return len(ir.load(path).graph)
