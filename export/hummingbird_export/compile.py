"""One network to one verified graph file, in the form and precision that a target asks for.

U-Net: written (lowering). Every other network: traced by torch, simplified. Then, for all: saved in
float32 and compared with torch; where a lower precision is asked for, calibrated on the model's own
trajectories, quantized, saved again and held to its quality gate. What fails a check is not kept.
"""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes.common import LiftConstantsToInitializersPass
from torch import nn

from hummingbird_export.calibration_process import calibrate_apart
from hummingbird_export.graph_process import GraphProcess
from hummingbird_export.initializer_map import write_initializer_map
from hummingbird_export.lowering.unet import lower_unet
from hummingbird_export.passes.split_linear import split_linear_layers
from hummingbird_export.passes.weight_storage import store_weights_as_half, store_weights_as_int8
from hummingbird_export.precision import FLOATS
from hummingbird_export.quality import Judge
from hummingbird_export.quantize import calibrate, quantize_graph
from hummingbird_export.quantize.mixed import choose_mixed, estimate_sensitivity, to_json
from hummingbird_export.quantize.plan import Mode
from hummingbird_export.quantize.ranges import Ranges
from hummingbird_export.simplify import Simplifier, simplify_graph
from hummingbird_export.storage import EXTERNAL_THRESHOLD, save_graph
from hummingbird_export.targets import Target
from hummingbird_export.trace import check_allowed, check_signature, operators, trace
from hummingbird_export.verify import (
    TOLERANCE,
    Case,
    Parity,
    compare_graph,
    open_session,
    run_session,
    standard_cases,
    torch_cases,
)
from hummingbird_export.wrappers import Feeds, Signature, run_module
from hummingbird_runtime.errors import ExecutionError
from hummingbird_runtime.manifest import Graph, Precision, SessionSettings
from hummingbird_runtime.manifest import Tensor as TensorSpec
from hummingbird_runtime.probe_inputs import ProbeInput, probe_feeds
from hummingbird_runtime.probes import write_probe
from hummingbird_train.models.unet import VideoUNet

Run = Callable[[Feeds], NDArray[np.float32]]

STORES: Mapping[Precision, Callable[[ir.Model], int]] = {
    "fp16-storage": store_weights_as_half,
    "int8-storage": store_weights_as_int8,
}
"""What narrows the stored weights of a graph that computes in float32."""

CALIBRATED = ("int8", "mixed")
"""Precisions that need the ranges of activations."""

INSIDE = 1023
"""Bytes of a U-Net's tensor that stays in the protobuf; no weight of a layer is that small."""

PROBE_SEED = 7


@dataclass(frozen=True)
class Job:
    """What the graphs of one bundle have in common."""

    bundle: Path
    """Folder under construction."""
    target: Target
    simplifier: Simplifier
    identity: str
    """The bundle's id, kept in every graph's metadata."""
    size: tuple[int, int, int]
    """Frames, rows and columns of the usual latent; decides the pieces of chunked work."""
    fixed: Mapping[str, int] = field(default_factory=dict)
    """Sizes that the target fixes, by letter."""
    least: Mapping[str, int] = field(default_factory=dict)
    """Smallest sizes that its graphs take, by letter."""
    note: Callable[[str], None] = lambda text: None
    """Told what is being done, for people who wait."""


@dataclass(frozen=True)
class CompiledGraph:
    """A graph file and what is known about it."""

    path: Path
    """``<role>/model.onnx``, verified."""
    graph: Graph
    """The manifest's entry."""
    simplification: str
    """What the simplifier did, or why its result is not used."""
    model: ir.Model
    """As written; its weights may lie in the file."""


def compile_graph(
    job: Job,
    network: nn.Module,
    module: nn.Module,
    signature: Signature,
    precision: Precision,
    *,
    probes: Sequence[tuple[str, dict[str, ProbeInput]]] = (),
    arrays: Mapping[str, NDArray[np.float32]] = MappingProxyType({}),
    judge: Judge | None = None,
) -> CompiledGraph:
    """Write ``<role>/model.onnx`` of a bundle.

    Args:
        job: bundle and target.
        network: its weights are rounded already to what the precision stores.
        module: its wrapper.
        signature: of the wrapper.
        precision: of the graph.
        probes: cases to check and to keep in the bundle, so that any machine can check again.
        arrays: inputs of probes that are stored, by name.
        judge: calibrates and judges precisions below float32.

    Raises:
        ExecutionError: ``export.trace``, ``export.not_portable``, ``export.signature``,
            ``export.verify``, ``export.calibration`` or ``export.quality``.
    """
    role = signature.role
    folder = job.bundle / role
    folder.mkdir()
    settings = job.target.settings(role, precision)
    quality: dict[str, float] = {}
    factors: dict[str, dict[str, NDArray[np.float32]]] = {}
    with tempfile.TemporaryDirectory(dir=job.bundle, prefix="work-") as work:
        exact = folder
        if precision not in FLOATS:
            exact = Path(work, "exact")
            exact.mkdir()
        job.note(f"{role}: torch reference")
        cases = list(_cases(job, module, signature, probes, arrays))
        job.note(f"{role}: writing and verifying the float32 graph")
        model, note, parity = _write_exact(
            job, network, module, signature, precision, exact, Path(work), cases
        )
        if precision not in FLOATS:
            assert judge is not None
            job.note(f"{role}: calibrating")
            with opened(exact / "model.onnx", job.target.settings(role, "fp32")) as run:
                feeds = judge.prepare(run)
            ranges = _ranges(exact / "model.onnx", feeds) if precision in CALIBRATED else None
            job.note(f"{role}: quantizing to {precision}")
            model = ir.load(exact / "model.onnx")
            fused = job.target.form == "cpu"
            overrides = _choose_mixed(model, ranges, folder) if precision == "mixed" else None
            report = quantize_graph(
                model,
                precision,
                ranges=ranges,
                overrides=overrides,
                fused=fused,
                # On the large images of a decoder, scales along channels cost half the time.
                along_channels=role == "unet",
            )
            factors = {
                "input_factors": report.input_factors,
                "output_factors": report.output_factors,
            }
            _save(model, job, role, folder)
            job.note(f"{role}: judging {precision} against float32")
            with opened(folder / "model.onnx", settings) as run:
                quality = judge.judge(run, precision)
                parity = compare_graph(run, cases, role, tolerance=judge.tolerance(precision))
    if job.fixed:
        fix_sizes(folder / "model.onnx", job.fixed)
    else:
        _keep_probes(job, role, probes, cases, parity.relative_l2, arrays)
    if role == "unet":
        write_initializer_map(folder / "model.onnx", **factors)
    graph = Graph(
        path=f"{role}/model.onnx",
        opset=model.opset_imports[""],
        inputs=fixed_tensors(signature.inputs, job.fixed),
        outputs=fixed_tensors(signature.outputs, job.fixed),
        ops=operators(model),
        precision=precision,
        parity=parity.to_json(),
        quality=quality,
        session=settings,
    )
    return CompiledGraph(folder / "model.onnx", graph, note, model)


def _write_exact(
    job: Job,
    network: nn.Module,
    module: nn.Module,
    signature: Signature,
    precision: Precision,
    folder: Path,
    work: Path,
    cases: Sequence[Case],
) -> tuple[ir.Model, str, Parity]:
    """Save the first draft that computes what torch computes."""
    role = signature.role
    settings = job.target.settings(role, precision if precision in FLOATS else "fp32")
    reason, failure = "", None
    for model, note in _drafts(job, network, module, signature, work):
        try:
            check_signature(model, signature)
            check_allowed(model, role, job.target.operators)
            if precision in STORES:
                STORES[precision](model)
            path = _save(model, job, role, folder)
            with opened(path, settings) as run:
                return model, note or reason, compare_graph(run, cases, role)
        except ExecutionError as error:
            reason, failure = f"not used: {error}", error
    assert failure is not None
    raise failure


def _drafts(
    job: Job, network: nn.Module, module: nn.Module, signature: Signature, work: Path
) -> Iterator[tuple[ir.Model, str]]:
    """Graphs to try, the best first, each with what the simplifier did; empty: see before."""
    if isinstance(network, VideoUNet):
        form = job.target.form_for(network.config, job.size)
        yield lower_unet(network, signature, form), "written without a tracer's leftovers"
        return
    traced = trace(module, signature)
    simple, note = simplify_graph(traced, work, job.simplifier)
    if simple is not None:
        LiftConstantsToInitializersPass()(simple)
        split_linear_layers(simple)
        yield simple, note
    LiftConstantsToInitializersPass()(traced)
    split_linear_layers(traced)
    yield traced, "" if simple is not None else f"not used: {note}"


def _cases(
    job: Job,
    module: nn.Module,
    signature: Signature,
    probes: Sequence[tuple[str, dict[str, ProbeInput]]],
    arrays: Mapping[str, NDArray[np.float32]],
) -> Iterator[Case]:
    """Probes first, then, for networks that are quick to run, odd sizes."""
    for name, inputs in probes:
        feeds = probe_feeds(inputs, PROBE_SEED, arrays)
        yield Case(name, feeds, run_module(module, feeds)[0])
    weights = sum(p.numel() * p.element_size() for p in module.parameters())
    if weights <= EXTERNAL_THRESHOLD or not probes:
        sizes = [
            {letter: max(size, job.least.get(letter, 1)) for letter, size in case.items()}
            for case in standard_cases(signature)
        ]
        yield from torch_cases(module, signature, sizes)


def _keep_probes(
    job: Job,
    role: str,
    probes: Sequence[tuple[str, dict[str, ProbeInput]]],
    cases: Sequence[Case],
    error: float,
    arrays: Mapping[str, NDArray[np.float32]],
) -> None:
    """Write the probes with a gate that leaves another machine's arithmetic some room."""
    for (name, inputs), case in zip(probes, cases, strict=False):
        write_probe(
            job.bundle,
            role,
            name,
            case.reference,
            inputs=inputs,
            seed=PROBE_SEED,
            relative_l2=max(TOLERANCE, 1.25 * error),
            arrays=arrays,
        )


@contextmanager
def opened(path: Path, settings: SessionSettings) -> Iterator[Run]:
    """A graph as a function; a large one runs in its own process."""
    role = path.parent.name
    if _is_large(path):
        with GraphProcess(path, settings) as process:
            yield process
    else:
        session = open_session(path, role, settings)
        yield lambda feeds: run_session(session, feeds, role)[0]


def _choose_mixed(model: ir.Model, ranges: Ranges | None, folder: Path) -> dict[str, Mode]:
    """Which layers take 4-bit weights; the sensitivities go into the bundle."""
    assert ranges is not None
    found = estimate_sensitivity(model, ranges)
    text = json.dumps(to_json(found), indent=1)
    (folder / "sensitivity.json").write_text(text + "\n", encoding="utf-8")
    return choose_mixed(model, found)


def _save(model: ir.Model, job: Job, role: str, folder: Path) -> Path:
    """Write a graph; a U-Net's weights lie outside the protobuf, where a style can replace them."""
    metadata = {"hummingbird.bundle_id": job.identity, "hummingbird.role": role}
    if role == "unet":
        return save_graph(
            model, folder, metadata=metadata, external_threshold=0, largest_inside=INSIDE
        )
    return save_graph(model, folder, metadata=metadata)


def _ranges(path: Path, feeds: Sequence[Feeds]) -> Ranges:
    return calibrate_apart(path, feeds) if _is_large(path) else calibrate(path, feeds)


def _is_large(path: Path) -> bool:
    return sum(file.stat().st_size for file in path.parent.iterdir()) > EXTERNAL_THRESHOLD


def fix_sizes(path: Path, sizes: Mapping[str, int]) -> None:
    """Replace letters by numbers in the signature of a graph file; its operators stay the same."""
    model = ir.load(path)
    for value in (*model.graph.inputs, *model.graph.outputs):
        assert value.shape is not None
        dims = (dim if isinstance(dim, int) else dim.value for dim in value.shape)
        value.shape = ir.Shape(sizes.get(d, d) if isinstance(d, str) else d for d in dims)
    ir.save(model, path)


def fixed_tensors(
    tensors: Sequence[TensorSpec], sizes: Mapping[str, int]
) -> tuple[TensorSpec, ...]:
    """The manifest's entries of a graph with some letters replaced."""
    return tuple(
        replace(t, dims=tuple(sizes.get(d, d) if isinstance(d, str) else d for d in t.dims))
        for t in tensors
    )


def count_operators(model: ir.Model) -> dict[str, int]:
    """``domain:Name`` -> number of nodes, most frequent first."""
    counts = Counter(f"{node.domain or 'ai.onnx'}:{node.op_type}" for node in model.graph)
    return dict(counts.most_common())
