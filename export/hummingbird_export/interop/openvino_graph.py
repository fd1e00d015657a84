"""One ONNX graph compiled by OpenVINO, as a function of arrays.

Arithmetic is asked to be float32: OpenVINO may choose another type by itself, on some machines.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from hummingbird_runtime.errors import InputError


class OpenVinoGraph:
    """A compiled graph; ``openvino_model`` makes one.

    Args:
        compiled: what ``openvino.Core.compile_model`` gave.
        outputs: names of the outputs in the order of the ONNX file.
    """

    def __init__(self, compiled: ov.CompiledModel, outputs: Sequence[str]) -> None:
        self.compiled = compiled
        self._request = compiled.create_infer_request()
        self._outputs = tuple(outputs)

    def __call__(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Every output by name: new arrays.

        Args:
            feeds: arrays by input name, of the graph's own number types.
        """
        results = self._request.infer(dict(feeds), share_inputs=True)
        return {
            name: np.array(results[port])
            for name, port in zip(self._outputs, self.compiled.outputs, strict=True)
        }


def openvino_model(
    path: str | os.PathLike[str],
    *,
    shapes: Mapping[str, Sequence[int]] | None = None,
    threads: int | None = None,
    device: str = "CPU",
) -> OpenVinoGraph:
    """Read and compile an ONNX file.

    Args:
        path: the ONNX file, its weights beside it; of a bundle: ``Bundle.open(folder).path(role)``.
        shapes: sizes by input name; the graph is made static before it is compiled, which is
            quicker to run. None keeps the free sizes.
        threads: threads of a run; None lets OpenVINO choose.
        device: a device of OpenVINO.

    Raises:
        InputError: ``interop.openvino`` when OpenVINO lacks an operator or cannot read the file.
    """
    core = ov.Core()
    config: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    if threads is not None:
        config["INFERENCE_NUM_THREADS"] = threads
    try:
        model = core.read_model(os.fspath(path))
        if shapes is not None:
            model.reshape({name: list(dims) for name, dims in shapes.items()})
        compiled = core.compile_model(model, device, config)
    except RuntimeError as error:
        raise InputError(
            "interop.openvino",
            f"{os.path.basename(path)}: OpenVINO refused it ({_reason(error)}), expected a graph "
            "of standard ONNX operators",
            hint="export the bundle for the portable target",
        ) from error
    return OpenVinoGraph(compiled, [port.get_any_name() for port in model.outputs])


def unsupported_operations(path: str | os.PathLike[str], *, device: str = "CPU") -> list[str]:
    """Operations of a graph that the device cannot run, as ``type name``; empty when it can all.

    Raises:
        RuntimeError: OpenVINO's own, when it cannot read the file.
    """
    core = ov.Core()
    model = core.read_model(os.fspath(path))
    supported = core.query_model(model, device)
    return [
        f"{operation.get_type_name()} {operation.get_friendly_name()}"
        for operation in model.get_ops()
        if operation.get_friendly_name() not in supported
    ]


def _reason(error: RuntimeError) -> str:
    """The last line of OpenVINO's message that says something, shortened."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:160] if lines else "no reason given"
