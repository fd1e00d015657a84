"""A torch module to a portable ONNX graph: opset 18, standard operators, free sizes kept free.

Goes through ``torch.export`` (no forward pass on real data). GroupNorm comes out in its
InstanceNormalization form, the only one that every runtime has fast. What is not portable is
refused here, not discovered on a phone.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from torch import nn
from torch.export import Dim

from hummingbird_export.translate import TRANSLATIONS
from hummingbird_export.wrappers import Signature, example_feeds
from hummingbird_runtime.errors import ExecutionError
from hummingbird_runtime.manifest import Tensor as TensorSpec
from hummingbird_runtime.operators import ALLOWED_OPERATORS

OPSET = 18

STANDARD = frozenset(op for op in ALLOWED_OPERATORS if op.startswith("ai.onnx:"))
"""Operators of the ONNX standard that the runtime takes."""


def trace(module: nn.Module, signature: Signature) -> ir.Model:
    """Trace a wrapper into an ONNX model that bears the signature's names.

    Args:
        module: a wrapper in evaluation mode; its parameters are float32.
        signature: what the wrapper takes and gives.

    Raises:
        ExecutionError: ``export.trace`` when torch cannot express the module in ONNX;
            ``export.not_portable`` and ``export.signature`` as the checks below.
    """
    sizes = {name: 3 * axis.multiple_of for name, axis in signature.axes.items()}
    if "w" in sizes:  # a square example could tie height to width
        sizes["w"] = 4 * signature.axes["w"].multiple_of
    feeds = example_feeds(signature, sizes)
    try:
        with _quiet_torch():
            program = torch.onnx.export(
                module,
                (),
                kwargs={n: torch.from_numpy(np.asarray(a)) for n, a in feeds.items()},
                dynamic_shapes=_dynamic_shapes(signature),
                output_names=[spec.name for spec in signature.outputs],
                opset_version=OPSET,
                custom_translation_table=TRANSLATIONS,
                dynamo=True,
                verbose=False,
            )
    except torch.onnx.errors.OnnxExporterError as error:
        raise ExecutionError(
            "export.trace",
            f"graph {signature.role}: torch could not trace it: {_last_line(error)}",
            hint="the model uses an operation or a shape that ONNX cannot express",
        ) from error
    assert program is not None
    model: ir.Model = program.model
    model.graph.name = signature.role
    _name_sizes(model, signature)
    check_portable(model, signature.role)
    check_signature(model, signature)
    return model


def operators(model: ir.Model) -> tuple[str, ...]:
    """Every operator of a model as ``domain:Name``, sorted."""
    nodes = list(ir.traversal.RecursiveGraphIterator(model.graph))
    nodes += [node for function in model.functions.values() for node in function]
    return tuple(sorted({f"{node.domain or 'ai.onnx'}:{node.op_type}" for node in nodes}))


def check_portable(model: ir.Model, role: str) -> None:
    """Refuse what some runtime lacks: foreign operators, control flow, sinusoids, another opset.

    Raises:
        ExecutionError: ``export.not_portable``.
    """
    check_allowed(model, role, STANDARD)


def check_allowed(model: ir.Model, role: str, allowed: Collection[str]) -> None:
    """Refuse operators that a target does not take, and another opset than ``OPSET``.

    Raises:
        ExecutionError: ``export.not_portable``.
    """
    bad = [op for op in operators(model) if op not in allowed]
    opset = model.opset_imports.get("")
    if bad or opset != OPSET:
        raise ExecutionError(
            "export.not_portable",
            f"graph {role}: got operators {bad} at opset {opset}, "
            f"expected only those of the target, at opset {OPSET}",
            hint="change the model's forward so that it needs none of them",
        )


def check_signature(model: ir.Model, signature: Signature) -> None:
    """Compare names, number formats and sizes of a model's inputs and outputs with a signature.

    Raises:
        ExecutionError: ``export.signature``.
    """
    for kind, values, specs in (
        ("inputs", model.graph.inputs, signature.inputs),
        ("outputs", model.graph.outputs, signature.outputs),
    ):
        got = [_spec(value) for value in values]
        if got != list(specs):
            raise ExecutionError(
                "export.signature",
                f"graph {signature.role}: got {kind} {got}, expected {list(specs)}",
                hint="the wrapper and its signature disagree, or a size was fixed by the forward",
            )


def _spec(value: ir.Value) -> TensorSpec:
    assert value.name is not None
    assert value.dtype is not None
    assert value.shape is not None
    dims = tuple(d if isinstance(d, int) else str(d.value) for d in value.shape)
    dtype: Any = np.dtype(value.dtype.numpy()).name
    return TensorSpec(value.name, dtype, dims)


def _dynamic_shapes(signature: Signature) -> dict[str, dict[int, Any] | None]:
    sizes: dict[str, Any] = {}
    for name, axis in signature.axes.items():
        base = Dim(name if axis.multiple_of == 1 else f"{name}_cells", min=1, max=axis.largest)
        sizes[name] = base if axis.multiple_of == 1 else axis.multiple_of * base
    return {
        spec.name: {i: sizes[dim] for i, dim in enumerate(spec.dims) if isinstance(dim, str)}
        or None
        for spec in signature.inputs
    }


def _name_sizes(model: ir.Model, signature: Signature) -> None:
    """Give free sizes the signature's letters, not the tracer's expressions (``2*h_cells``)."""
    specs: Mapping[str, TensorSpec] = {s.name: s for s in (*signature.inputs, *signature.outputs)}
    for value in (*model.graph.inputs, *model.graph.outputs):
        spec = specs.get(value.name or "")
        if spec is None or value.shape is None or len(value.shape) != len(spec.dims):
            continue  # check_signature says what is wrong
        for axis, (traced, name) in enumerate(zip(value.shape, spec.dims, strict=True)):
            if isinstance(name, str) and not isinstance(traced, int):
                value.shape[axis] = name


@contextmanager
def _quiet_torch() -> Iterator[None]:
    """Hide warnings of the exporter about itself; nothing in them is for the caller."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _last_line(error: BaseException) -> str:
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    return f"{type(cause).__name__}: {lines[0] if lines else ''}"[:300]
