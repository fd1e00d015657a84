"""How long OpenVINO takes for one pass of a U-Net, and how much memory: a yardstick for our own.

``python -m hummingbird_export.interop.openvino_pass GRAPH --frames 26 --height 40 --width 64``
compiles the graph for that one shape in float32 and prints seconds and peak resident memory.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hummingbird_runtime.cli import as_typed, report
from hummingbird_runtime.cli.parser import Parser, number_in
from hummingbird_runtime.cli.verbs import missing_extra
from hummingbird_runtime.errors import InputError

Feeds = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class OpenVinoTiming:
    """What was measured."""

    compile_seconds: float
    """Reading, making static and compiling."""
    seconds: tuple[float, ...]
    """Of each pass, the first included; it also allocates."""
    peak_rss_bytes: int | None
    """Highest resident memory of this process so far; None where the system does not tell."""


def openvino_seconds(
    path: str | os.PathLike[str],
    feeds: Mapping[str, NDArray[Any]],
    *,
    threads: int,
    passes: int = 1,
) -> OpenVinoTiming:
    """Time passes of a graph that OpenVINO compiled for the shapes of ``feeds``, in float32.

    Peak memory is that of the process: run it in one of its own.

    Args:
        path: ONNX file of standard operators.
        feeds: arrays by input name.
        threads: threads of one pass.
        passes: how many are timed, one after the other.

    Raises:
        InputError: ``interop.openvino``.
    """
    from hummingbird_export.interop import openvino_model

    started = time.perf_counter()
    graph = openvino_model(
        path, shapes={name: array.shape for name, array in feeds.items()}, threads=threads
    )
    compiled = time.perf_counter() - started
    seconds = []
    for _ in range(passes):
        started = time.perf_counter()
        graph(feeds)
        seconds.append(time.perf_counter() - started)
    return OpenVinoTiming(compiled, tuple(seconds), _peak_rss_bytes())


def unet_feeds(path: str | os.PathLike[str], *, frames: int, height: int, width: int) -> Feeds:
    """Random inputs of a U-Net graph: float inputs from N(0, 1), timestep 519, frame rate 8.

    Args:
        path: U-Net graph of a bundle.
        frames: F.
        height: latent rows, an eighth of the pixels.
        width: latent columns.

    Raises:
        InputError: ``interop.not_a_unet`` when the file is no ONNX graph with a U-Net's inputs.
    """
    import onnx

    try:
        inputs = onnx.load(os.fspath(path), load_external_data=False).graph.input
    except Exception as error:  # protobuf has an exception of its own for damaged files
        raise _not_a_unet(path, str(error)) from error
    free = {"F": frames, "h": height, "w": width, "B": 1}
    whole = {"timestep": 519, "fps": 8}
    generator, feeds = np.random.default_rng(0), Feeds()
    for tensor in inputs:
        dims = tensor.type.tensor_type.shape.dim
        unknown = {d.dim_param for d in dims if not d.HasField("dim_value")} - free.keys()
        if unknown:
            raise _not_a_unet(path, f"input {tensor.name} with free sizes {sorted(unknown)}")
        shape = [free[d.dim_param] if d.HasField("dim_param") else d.dim_value for d in dims]
        if tensor.name in whole:
            feeds[tensor.name] = np.full(shape, whole[tensor.name], np.int64)
        else:
            feeds[tensor.name] = generator.standard_normal(shape, np.float32)
    if not {"sample", "timestep", "encoder_hidden_states", "fps"} <= feeds.keys():
        raise _not_a_unet(path, f"inputs {', '.join(feeds) or 'none'}")
    return feeds


def main(argv: list[str] | None = None) -> int:
    """Measure one graph; returns the exit code."""
    parser = Parser(
        prog="python -m hummingbird_export.interop.openvino_pass",
        description="Time one pass of a portable U-Net graph in OpenVINO, float32, static shape.",
    )
    add = parser.add_argument
    add("graph", type=Path, metavar="GRAPH", help="unet/model.onnx of a portable bundle")
    add("--frames", type=number_in(1, 104), default=26, help="default 26")
    add("--height", type=number_in(1, 512), default=40, help="latent rows, default 40")
    add("--width", type=number_in(1, 512), default=64, help="latent columns, default 64")
    add("--threads", type=number_in(1, 1024), default=2, help="default 2")
    add("--passes", type=number_in(1, 100), default=1, help="default 1")
    add("--json", action="store_true", help="one JSON object")
    parsed = parser.parse(sys.argv[1:] if argv is None else argv)
    feeds = unet_feeds(parsed.graph, frames=parsed.frames, height=parsed.height, width=parsed.width)
    timing = openvino_seconds(parsed.graph, feeds, threads=parsed.threads, passes=parsed.passes)
    if parsed.json:
        print(json.dumps(asdict(timing)))
        return 0
    peak = timing.peak_rss_bytes
    print(f"compile   {timing.compile_seconds:.2f} s")
    print("pass     ", *(f"{seconds:.3f} s" for seconds in timing.seconds))
    print("peak RSS ", "not known" if peak is None else f"{peak / 1e9:.2f} GB")
    return 0


def _not_a_unet(path: str | os.PathLike[str], got: str) -> InputError:
    return InputError(
        "interop.not_a_unet",
        f"{os.fspath(path)}: got {got}, expected the U-Net graph of a bundle",
        hint="name the file unet/model.onnx of a bundle folder",
    )


def _peak_rss_bytes() -> int | None:
    status = Path("/proc/self/status")
    if status.is_file():  # Linux; getrusage would count the parent's memory before exec
        lines = status.read_text(encoding="ascii", errors="replace").splitlines()
        peak = next((line.split()[1] for line in lines if line.startswith("VmHWM:")), None)
        return None if peak is None else int(peak) * 1024
    if sys.platform == "darwin":
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return None


if __name__ == "__main__":
    try:
        code = main()
    except ModuleNotFoundError as error:
        code = report(missing_extra("openvino_pass", error.name or "openvino", "interop"))
    except Exception as error:
        code = report(as_typed(error))
    sys.exit(code)
