"""Seconds and memory of published-size graphs at 26 x 40 x 64 latents, 2 threads, interleaved.

    python docs/measure_full_size.py passes ARM=BUNDLE ... [--torch] [--openvino GRAPH] [--rounds 4]
    python docs/measure_full_size.py decode BUNDLE ... [--frames 26]

Each arm lives in a process of its own. A round runs one U-Net pass of every arm in turn, so that
what else the machine does hits all arms alike; the memory after round 4 is that of four steps.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

SIZE = (26, 40, 64)
THREADS = 2


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("passes", "decode", "serve"))
    parser.add_argument("arms", nargs="+")
    parser.add_argument("--torch", action="store_true", help="also 0.7B in torch eager")
    parser.add_argument("--openvino", metavar="GRAPH", help="also OpenVINO on a portable graph")
    parser.add_argument("--openvino-python", default=sys.executable, help="where OpenVINO is")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--frames", type=int, default=26)
    parser.add_argument("--json", type=Path)
    parsed = parser.parse_args()
    if parsed.what == "serve":
        serve(json.loads(parsed.arms[0]))
    elif parsed.what == "passes":
        arms = [arm.partition("=") for arm in parsed.arms]
        asked = {name: {"kind": "graph", "bundle": path} for name, _, path in arms}
        if parsed.torch:
            asked["torch eager"] = {"kind": "torch"}
        if parsed.openvino:
            asked["OpenVINO, portable"] = {
                "kind": "openvino",
                "graph": parsed.openvino,
                "python": parsed.openvino_python,
            }
        interleave(asked, parsed.rounds, parsed.json)
    else:
        for bundle in parsed.arms:
            decode(Path(bundle), parsed.frames)


def interleave(asked: dict[str, dict[str, Any]], rounds: int, out: Path | None) -> None:
    """Open every arm, then pass by pass in turn."""
    arms = {name: Arm(question) for name, question in asked.items()}
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    peaks: dict[str, float] = {}
    for index in range(rounds):
        for name, arm in arms.items():
            before = _busy()
            answer = arm.ask()
            others = _busy() - before - answer["cpu"]
            seconds[name].append(answer["seconds"])
            peaks[name] = answer["peak"]
            print(
                f"round {index + 1}  {name:24}{answer['seconds']:8.1f} s  cpu {answer['cpu']:6.1f}"
                f"  others {others:5.1f}  peak {answer['peak']:5.2f} GB",
                flush=True,
            )
    first = next(iter(arms))
    print(f"\n| arm | median s | passes | against {first} | peak GB after {rounds} |")
    print("|---|---|---|---|---|")
    for name, values in seconds.items():
        ratio = statistics.median(b / a for a, b in zip(seconds[first], values, strict=True))
        listed = ", ".join(f"{value:.1f}" for value in values)
        middle = statistics.median(values)
        print(f"| {name} | {middle:.1f} | {listed} | {ratio:.3f} | {peaks[name]:.2f} |")
    if out:
        out.write_text(json.dumps({"seconds": seconds, "peak_gb": peaks, "size": SIZE}, indent=1))
    for arm in arms.values():
        arm.close()


class Arm:
    """A process that runs a pass for every line it is sent."""

    def __init__(self, question: dict[str, Any]) -> None:
        self._child = subprocess.Popen(
            [question.get("python", sys.executable), __file__, "serve", json.dumps(question)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._read()

    def ask(self) -> dict[str, float]:
        """One pass."""
        assert self._child.stdin is not None
        self._child.stdin.write("\n")
        self._child.stdin.flush()
        return self._read()

    def close(self) -> None:
        """End the process."""
        self._child.kill()
        self._child.wait()

    def _read(self) -> dict[str, float]:
        assert self._child.stdout is not None
        line = self._child.stdout.readline()
        if not line:
            raise SystemExit(f"an arm ended with status {self._child.wait()}")
        answer: dict[str, float] = json.loads(line)
        return answer


def serve(question: dict[str, Any]) -> None:
    """Open one arm, say so, then answer each line with a pass."""
    run = {"graph": _graph, "torch": _torch, "openvino": _openvino}[question["kind"]](question)
    print(json.dumps({"peak": _peak()}), flush=True)
    for _ in sys.stdin:
        cpu, start = sum(os.times()[:2]), time.perf_counter()
        run()
        seconds = time.perf_counter() - start
        used = sum(os.times()[:2]) - cpu
        print(json.dumps({"seconds": seconds, "cpu": used, "peak": _peak()}), flush=True)


def _feeds(tensors: Any) -> dict[str, Any]:
    import numpy as np

    rng = np.random.default_rng(0)
    sizes = dict(zip("Fhw", SIZE, strict=True))
    feeds: dict[str, Any] = {}
    for tensor in tensors:
        shape = tuple(sizes.get(dim, dim) for dim in tensor.dims)
        if tensor.name == "timestep":
            feeds[tensor.name] = np.full(shape, 519, np.int64)
        elif tensor.name == "fps":
            feeds[tensor.name] = np.full(shape, 8, np.int64)
        else:
            feeds[tensor.name] = rng.standard_normal(shape, dtype=np.float32)
    return feeds


def _graph(question: dict[str, Any]) -> Any:
    """The U-Net of a bundle, or a graph file alone under the settings of target cpu."""
    from hummingbird_runtime.bundle import Bundle
    from hummingbird_runtime.session import OnnxRuntimeBackend, SessionOptions

    path, options = Path(question["bundle"]), SessionOptions(threads=THREADS)
    if path.suffix == ".onnx":
        from hummingbird_export.targets import find_target

        options = options.for_graph(find_target("cpu").settings("unet", "fp32"))
    else:
        bundle = Bundle.open(path)
        options = options.for_graph(bundle.graph("unet").session)
        path = bundle.path("unet")
    session = OnnxRuntimeBackend().open(path, options)
    feeds = _feeds(session.inputs)
    return lambda: session.run(feeds)


def _torch(question: dict[str, Any]) -> Any:
    import torch

    from hummingbird_export.random_models import preset, random_unet

    torch.set_num_threads(THREADS)
    unet = random_unet(preset("07b").unet, seed=0)
    frames, rows, columns = SIZE
    sample, context = torch.randn(1, 4, frames, rows, columns), torch.randn(1, 77, 1024)
    cond, t, fps = torch.randn(1, 256), torch.tensor(519), torch.tensor([8])

    def run() -> None:
        with torch.inference_mode():
            unet(sample, t, context, timestep_cond=cond, fps=fps)

    return run


def _openvino(question: dict[str, Any]) -> Any:
    import openvino

    from hummingbird_runtime.manifest import Tensor

    core = openvino.Core()
    core.set_property("CPU", {"INFERENCE_NUM_THREADS": THREADS})
    model = core.read_model(question["graph"])
    tensors = [
        Tensor(port.any_name, "float32", _dims(port.partial_shape, port.any_name))
        for port in model.inputs
    ]
    feeds = _feeds(tensors)
    model.reshape({name: list(array.shape) for name, array in feeds.items()})
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    request = compiled.create_infer_request()
    return lambda: request.infer(feeds)


def _dims(shape: Any, name: str) -> tuple[int | str, ...]:
    """Sizes of an input; the free ones of the sample are F, h and w."""
    letters = iter("Fhw" if name == "sample" else "")
    return tuple(next(letters) if dim.is_dynamic else dim.get_length() for dim in shape)


def decode(path: Path, frames: int) -> None:
    """Every decoder of a bundle over the frames of one clip, in a process of its own."""
    code = (
        "import sys, time, numpy as np\n"
        "from hummingbird_runtime.bundle import Bundle\n"
        "from hummingbird_runtime.session import OnnxRuntimeBackend, SessionOptions\n"
        "from hummingbird_runtime.deep_check import peak_memory\n"
        "bundle, role, frames = Bundle.open(sys.argv[1]), sys.argv[2], int(sys.argv[3])\n"
        "entry = bundle.graph(role)\n"
        f"options = SessionOptions(threads={THREADS}).for_graph(entry.session)\n"
        "session = OnnxRuntimeBackend().open(bundle.path(role), options)\n"
        f"x = np.random.default_rng(0).standard_normal((1, 4, {SIZE[1]}, {SIZE[2]}))\n"
        "feeds, seconds = {'latent_sample': x.astype(np.float32)}, []\n"
        "for i in range(frames):\n"
        "    start = time.perf_counter()\n"
        "    session.run(feeds)\n"
        "    seconds.append(time.perf_counter() - start)\n"
        "    peak = peak_memory() / 1e9\n"
        "    if i in (0, frames // 2, frames - 1):\n"
        "        print(f'{role} {entry.precision}: frame {i + 1}, {sum(seconds):.1f} s, '\n"
        "              f'peak {peak:.2f} GB', flush=True)\n"
    )
    for role in ("vae_decoder", "vae_decoder_tiny"):
        if (path / role).is_dir():
            subprocess.run([sys.executable, "-c", code, str(path), role, str(frames)], check=True)


def _busy() -> float:
    """CPU seconds that the machine has spent so far."""
    numbers = [int(n) for n in Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
    return (sum(numbers[:3]) + sum(numbers[5:8])) / os.sysconf("SC_CLK_TCK")


def _peak() -> float:
    from hummingbird_runtime.deep_check import peak_memory

    return (peak_memory() or 0) / 1e9


if __name__ == "__main__":
    main()
