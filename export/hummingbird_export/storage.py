"""Writing a graph: one file, or a small file plus one page-aligned ``model.onnx_data``.

Nothing that could name the machine of the export (stack traces, module paths) is written.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import onnx_ir as ir

from hummingbird_runtime.errors import ResourceError

EXTERNAL_THRESHOLD = 64 * 2**20
"""Weights above this many bytes leave the protobuf, which cannot exceed 2 GB."""

MAP_ALIGNMENT = 64 * 1024
"""A multiple of every page size in use, and Windows' granularity for file mappings."""

PLAIN_ALIGNMENT = 4096
"""Of files below ``EXTERNAL_THRESHOLD``, where padding would cost more than a mapping saves."""

IR_VERSION = 10
"""The ONNX IR version of written files; readable by every supported ONNX Runtime."""


def weight_bytes(model: ir.Model) -> int:
    """Bytes of all initializers."""
    tensors = (value.const_value for value in model.graph.initializers.values())
    return sum(tensor.nbytes for tensor in tensors if tensor is not None)


def strip_origin(model: ir.Model, *, keep_shapes: bool = False) -> None:
    """Remove stack traces, doc strings and, unless kept, shapes of inner values, in place."""
    graph = model.graph
    model.producer_name, model.producer_version = "hummingbird", ""
    model.doc_string = graph.doc_string = None
    model.ir_version = IR_VERSION
    model.metadata_props.clear()
    graph.metadata_props.clear()
    kept = {id(value) for value in (*graph.inputs, *graph.outputs)}
    values = [*graph.inputs, *graph.initializers.values()]
    for node in graph:
        node.metadata_props.clear()
        node.doc_string = None
        values += node.outputs
    for value in values:
        value.metadata_props.clear()
        value.doc_string = None
        if id(value) not in kept and not keep_shapes:
            value.shape = None
            value.type = None


def save_graph(
    model: ir.Model,
    folder: Path,
    *,
    metadata: Mapping[str, str] | None = None,
    external_threshold: int = EXTERNAL_THRESHOLD,
    largest_inside: int = MAP_ALIGNMENT - 1,
    keep_shapes: bool = False,
) -> Path:
    """Write ``folder/model.onnx`` (and ``model.onnx_data``); the same bytes for the same model.

    Args:
        model: left unchanged but for the loss of its debugging information.
        folder: existing folder.
        metadata: entries of the model's ``metadata_props``.
        external_threshold: total weight bytes above which large tensors go to
            ``model.onnx_data``; above ``EXTERNAL_THRESHOLD`` those of 64 KiB and more lie at
            multiples of 64 KiB, so that they can be mapped.
        largest_inside: bytes of a tensor that then still stays in ``model.onnx``.
        keep_shapes: write the shapes of inner values, for passes that read the file again.

    Returns:
        The path of ``model.onnx``.
    """
    strip_origin(model, keep_shapes=keep_shapes)
    model.metadata_props.update(metadata or {})
    path = folder / "model.onnx"
    mapped = weight_bytes(model) > EXTERNAL_THRESHOLD
    if weight_bytes(model) <= external_threshold:
        ir.save(ir.external_data.load_to_model(model), path)
    else:
        ir.save(
            model,
            path,
            external_data="model.onnx_data",
            size_threshold_bytes=largest_inside,
            alignment=MAP_ALIGNMENT if mapped else PLAIN_ALIGNMENT,
            align_threshold=MAP_ALIGNMENT - 1,
        )
        _check_whole(path)
    return path


def _check_whole(path: Path) -> None:
    """Refuse external data that are shorter than the graph says: writers may stop in silence.

    Raises:
        ResourceError: ``output.write_failed``.
    """
    tensors = (value.const_value for value in ir.load(path).graph.initializers.values())
    ends = [
        (tensor.offset or 0) + (tensor.length or 0)
        for tensor in tensors
        if isinstance(tensor, ir.ExternalTensor)
    ]
    data = path.with_name("model.onnx_data")
    size = data.stat().st_size if data.exists() else 0
    if size < max(ends, default=0):
        raise ResourceError(
            "output.write_failed",
            f"{data.name}: got {size} bytes on disk, expected {max(ends)}",
            hint="free disk space, or raise the limit on file sizes",
        )
