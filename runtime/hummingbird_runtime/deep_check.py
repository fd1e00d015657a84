"""Checks of a bundle that run it: graphs against their probes, equal runs, one whole clip."""

from __future__ import annotations

import hashlib
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hummingbird_runtime.bundle import Bundle
from hummingbird_runtime.cancel import CancelToken
from hummingbird_runtime.errors import ExecutionError
from hummingbird_runtime.facts import Side
from hummingbird_runtime.open_graph import Graph
from hummingbird_runtime.pipeline import TextToVideoPipeline
from hummingbird_runtime.probes import Probe, read_probes
from hummingbird_runtime.session import OnnxRuntimeBackend, SessionOptions
from hummingbird_runtime.signature import check_signature

Note = Callable[[str], None]


def check_graphs(
    bundle: Bundle, options: SessionOptions, *, cancel: CancelToken, note: Note
) -> int:
    """Open every graph, and run each probe of it; gives back how many probes were run.

    Raises:
        IntegrityError: ``bundle.signature_mismatch``.
        ExecutionError: ``verify.parity`` when a graph misses the gate of a probe.
    """
    count = 0
    for role, entry in bundle.manifest.graphs.items():
        session = OnnxRuntimeBackend().open(bundle.path(role), options.for_graph(entry.session))
        try:
            check_signature(session, entry, role)
            note(f"opened {role}")
            for stored in read_probes(bundle, role):
                probe, graph = stored.probe, Graph(role, session, cancel)
                output = graph(f"probe {probe.case}", stored.feeds())
                error = relative_error(probe, stored.reference, output)
                shown = f"{role} {probe.case}: relative L2 error {_shown(error)}"
                if not error <= probe.relative_l2:
                    raise ExecutionError(
                        "verify.parity",
                        f"probe of {shown}, expected at most {_shown(probe.relative_l2)}",
                        hint="this machine does not compute what was exported: try "
                        "--providers CPUExecutionProvider or another onnxruntime",
                    )
                note(f"{shown}, allowed {_shown(probe.relative_l2)}")
                count += 1
        finally:
            session.close()
        cancel.raise_if_cancelled()
    return count


def relative_error(
    probe: Probe, reference: NDArray[np.float32], output: NDArray[np.float32]
) -> float:
    """||output - reference|| / ||reference|| over the stored elements, in float64.

    Not below the difference of the norms of all elements; infinite for another shape.
    """
    if output.shape != probe.shape:
        return math.inf
    flat = output.ravel().astype(np.float64)
    stored = reference.astype(np.float64)
    scale = float(np.linalg.norm(stored)) or 1.0
    error = float(np.linalg.norm(flat[:: probe.stride] - stored)) / scale
    return max(error, abs(float(np.linalg.norm(flat)) - probe.norm) / probe.norm)


def check_equal_runs(bundle: Bundle, arguments: dict[str, Any], cancel: CancelToken) -> str:
    """Draw the smallest clip twice, each time with a fresh pipeline; the SHA-256 of its frames.

    Args:
        bundle: verified.
        arguments: keyword arguments of ``from_pretrained``.
        cancel: stops it.

    Raises:
        ExecutionError: ``verify.runs_differ``.
    """
    first, second = (_draw_smallest(bundle, arguments, cancel) for _ in range(2))
    if first != second:
        raise ExecutionError(
            "verify.runs_differ",
            f"bundle {bundle.manifest.name}: got {first[:12]} and {second[:12]} from equal "
            "requests, expected equal frames",
            hint="try --providers CPUExecutionProvider, and report it if it stays",
        )
    return first


def draw_default(
    bundle: Bundle, arguments: dict[str, Any], decoder: Any, cancel: CancelToken
) -> dict[str, float]:
    """Draw one clip of default size and steps: seconds by stage, ``load`` and ``total`` included.

    Args:
        bundle: verified.
        arguments: keyword arguments of ``from_pretrained``.
        decoder: full, tiny or None.
        cancel: stops it.
    """
    start = time.perf_counter()
    with TextToVideoPipeline.from_pretrained(bundle.root, **arguments) as pipe:
        load = time.perf_counter() - start
        video = pipe(_example(bundle), seed=0, decoder=decoder, cancel=cancel)
    seconds = {"load": load, **video.timings}
    seconds["total"] = time.perf_counter() - start
    return seconds


def peak_memory() -> int | None:
    """Most bytes of memory that this process ever held, None where the system does not tell."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM:"))
    except (OSError, StopIteration):  # not Linux
        pass
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak << 10


def _draw_smallest(bundle: Bundle, arguments: dict[str, Any], cancel: CancelToken) -> str:
    facts = bundle.manifest.model
    with TextToVideoPipeline.from_pretrained(bundle.root, **arguments) as pipe:
        video = pipe(
            _example(bundle),
            num_frames=min(max(2, facts.frames.allowed[0]), facts.frames.allowed[1]),
            height=_smallest(facts.height),
            width=_smallest(facts.width),
            num_inference_steps=facts.num_inference_steps.default,
            seed=0,
            cancel=cancel,
        )
    return hashlib.sha256(video.frames.tobytes()).hexdigest()


def _example(bundle: Bundle) -> str:
    examples = bundle.manifest.model.vocabulary_examples
    return examples[0] if examples else ""


def _smallest(side: Side) -> int:
    return -(-side.allowed[0] // side.multiple_of) * side.multiple_of


def _shown(relative_l2: float) -> str:
    decibels = math.inf if relative_l2 == 0 else -20 * math.log10(relative_l2)
    return f"{relative_l2:.2e} ({decibels:.1f} dB)"
