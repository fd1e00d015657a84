"""A written graph is run again and compared with the torch module that it came from.

The figure is the relative L2 error ||graph - torch|| / ||torch||, the worst over several sizes and
random inputs. It checks the file, not an object in memory: what is verified is what ships.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from torch import nn

from hummingbird_export.wrappers import Feeds, Signature, example_feeds, run_module
from hummingbird_runtime.errors import ExecutionError
from hummingbird_runtime.manifest import SessionSettings
from hummingbird_runtime.native_options import native_options
from hummingbird_runtime.session_options import SessionOptions

TOLERANCE = 1e-4
"""Largest relative L2 error of a float32 graph. Correct graphs measure about 2e-6 (order of sums),
wrong ones far above: a halved weight anywhere, a swapped GEGLU or a norm over the wrong axes."""

CASES = 5
"""Sizes and inputs that each graph is run on."""


@dataclass(frozen=True)
class Case:
    """Inputs of a graph and what the torch module makes of them."""

    name: str
    """Its sizes, for messages."""
    feeds: Feeds
    reference: NDArray[np.float32]


@dataclass(frozen=True)
class Parity:
    """The worst agreement over all cases of one graph."""

    relative_l2: float
    """||graph - torch|| / ||torch||."""
    max_abs: float
    """Largest difference of one element."""
    cases: int
    """Number of inputs compared."""

    def to_json(self) -> dict[str, float]:
        """The figures as the manifest stores them."""
        return {"relative_l2": self.relative_l2, "max_abs": self.max_abs, "cases": self.cases}


def verify_graph(
    path: Path,
    module: nn.Module,
    signature: Signature,
    *,
    tolerance: float = TOLERANCE,
    sizes: Sequence[Mapping[str, int]] | None = None,
) -> Parity:
    """Run a graph and its torch module on the same inputs.

    Args:
        path: ``model.onnx``, its external data beside it.
        module: the wrapper, with exactly the weights that the graph is meant to hold.
        signature: the graph's inputs and outputs.
        tolerance: largest allowed relative L2 error.
        sizes: free sizes of each case; None takes ``standard_cases``.

    Returns:
        The worst figures.

    Raises:
        ExecutionError: ``export.verify`` when the graph does not load or run, gives another shape,
            gives values that are not finite, or misses the tolerance.
    """
    session = open_session(path, signature.role)
    return compare_graph(
        lambda feeds: run_session(session, feeds, signature.role)[0],
        torch_cases(module, signature, sizes or standard_cases(signature)),
        signature.role,
        tolerance=tolerance,
    )


def torch_cases(
    module: nn.Module, signature: Signature, sizes: Sequence[Mapping[str, int]]
) -> Iterator[Case]:
    """Random inputs of given sizes and what the torch module makes of them."""
    for seed, case in enumerate(sizes):
        feeds = example_feeds(signature, case, seed=seed)
        if "timestep" in feeds:  # the ends of the schedule, then values between
            fixed = (999, 0, 519, 1)
            last = signature.bounds["timestep"] - 1
            feeds["timestep"] = np.array(min(fixed[seed % len(fixed)], last), np.int64)
        yield Case(str(dict(case)), feeds, run_module(module, feeds)[0])


def compare_graph(
    run: Callable[[Feeds], NDArray[np.float32]],
    cases: Iterable[Case],
    role: str,
    *,
    tolerance: float = TOLERANCE,
) -> Parity:
    """Run a graph on cases and compare with their references.

    Args:
        run: the graph as a function of its inputs.
        cases: inputs and what must come out.
        role: name of the graph in messages.
        tolerance: largest allowed relative L2 error.

    Raises:
        ExecutionError: ``export.verify``, as ``verify_graph``.
    """
    parity = Parity(0.0, 0.0, 0)
    for case in cases:
        got = run(case.feeds)
        error = _compare(got, case.reference, role, case.name)
        largest = float(np.abs(got - case.reference).max())
        parity = Parity(
            max(parity.relative_l2, error), max(parity.max_abs, largest), parity.cases + 1
        )
    if not parity.relative_l2 <= tolerance:
        raise ExecutionError(
            "export.verify",
            f"graph {role}: relative L2 error against torch, got "
            f"{parity.relative_l2:.2e}, expected at most {tolerance:.0e}",
            hint="the graph file does not compute what the torch module computes; do not ship it",
        )
    return parity


def standard_cases(signature: Signature) -> list[dict[str, int]]:
    """Sizes that differ in every axis: the smallest, an oblong, and ordinary ones."""
    axes = signature.axes
    return [
        {n: axis.multiple_of * next(islice(_sizes(n), i, None)) for n, axis in axes.items()}
        for i in range(CASES)
    ]


def _sizes(axis: str) -> Iterator[int]:
    yield from {"F": (5, 1, 2, 9, 3), "N": (2, 1, 3, 5, 1)}.get(axis, ())
    yield from {"h": (3, 1, 2, 4, 2), "w": (2, 1, 4, 4, 3)}.get(axis.lower(), ())


def open_session(
    path: Path, role: str, settings: SessionSettings | None = None
) -> onnxruntime.InferenceSession:
    """A CPU session on a graph file, with the settings that the runtime would give it.

    Raises:
        ExecutionError: ``export.verify`` when ONNX Runtime refuses the file.
    """
    asked = SessionOptions(settings=settings or SessionSettings())
    options, _ = native_options(onnxruntime, asked)
    try:
        return onnxruntime.InferenceSession(
            str(path),
            options,
            providers=["CPUExecutionProvider"],
            disabled_optimizers=list(asked.settings.disabled_optimizers),
        )
    except Exception as error:  # ONNX Runtime's classes share no narrower base
        raise _broken(role, error) from error


def run_session(
    session: onnxruntime.InferenceSession, feeds: Feeds, role: str
) -> list[NDArray[np.float32]]:
    """Outputs of a session.

    Raises:
        ExecutionError: ``export.verify`` when the run fails.
    """
    try:
        outputs: list[NDArray[np.float32]] = session.run(None, feeds)
    except Exception as error:
        raise _broken(role, error) from error
    return outputs


def relative_l2(got: NDArray[np.float32], want: NDArray[np.float32]) -> float:
    """||got - want|| / ||want|| in float64."""
    difference = np.linalg.norm((got.astype(np.float64) - want).ravel())
    return float(difference / np.linalg.norm(want.astype(np.float64).ravel()))


def _compare(got: NDArray[np.float32], want: NDArray[np.float32], role: str, case: str) -> float:
    if got.shape != want.shape or not np.isfinite(got).all() or not np.isfinite(want).all():
        finite = "finite" if np.isfinite(got).all() else "not finite"
        raise ExecutionError(
            "export.verify",
            f"graph {role} at {case}: got shape {list(got.shape)}, {finite}, "
            f"expected {list(want.shape)}, finite",
            hint="look for a size fixed by the forward, or weights that overflow",
        )
    return relative_l2(got, want)


def _broken(role: str, error: Exception) -> ExecutionError:
    first = (str(error).splitlines() or [""])[0]
    return ExecutionError(
        "export.verify",
        f"graph {role}: ONNX Runtime failed: {first[:300]}",
        hint="the file is damaged or uses what this ONNX Runtime lacks",
    )
