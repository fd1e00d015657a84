"""The arm of OpenVINO on a bundle's own ONNX graphs: passes of the U-Net between text and decoding.

``python -m hummingbird_bench.arms.openvino_arm WORKLOAD.json``. Only bundles of standard operators
can be read, which the portable target writes. Whole clips are not run: a sample is some passes.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from hummingbird_bench.arms.runtime_arm import StageClock
from hummingbird_bench.extrapolation import stratified_steps
from hummingbird_bench.identity import bundle_identity
from hummingbird_bench.workload import Workload, read_workload_json
from hummingbird_runtime.bundle import Bundle
from hummingbird_runtime.cli.verbs import missing_extra
from hummingbird_runtime.decode import to_uint8
from hummingbird_runtime.deep_check import peak_memory
from hummingbird_runtime.errors import ExecutionError, HummingbirdError, InputError
from hummingbird_runtime.guidance import guidance_embedding
from hummingbird_runtime.manifest import DECODERS
from hummingbird_runtime.noise import noise
from hummingbird_runtime.schedule import timesteps
from hummingbird_runtime.tokenizer import Tokenizer

Feeds = Mapping[str, NDArray[Any]]


def openvino_run(work: Workload, bundle: Bundle) -> Callable[[str, Feeds], NDArray[np.float32]]:
    """Graphs of a bundle by OpenVINO, each compiled when it is first used and then kept.

    Args:
        work: threads, and the device as its provider.
        bundle: verified.

    Raises:
        ResourceError: ``extra.missing`` without the openvino package.
        ExecutionError: ``bench.arm_failed`` from the function, for a graph that OpenVINO refuses.
    """
    try:
        import openvino
    except ModuleNotFoundError as error:
        raise missing_extra("the openvino arm", "openvino", "interop") from error
    core = openvino.Core()
    options = {
        "INFERENCE_NUM_THREADS": work.threads,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
    }
    compiled: dict[str, Any] = {}

    def run(role: str, feeds: Feeds) -> NDArray[np.float32]:
        try:
            if role not in compiled:
                model = core.read_model(str(bundle.path(role)))
                compiled[role] = core.compile_model(model, work.provider, options)
            values = compiled[role](dict(feeds))
        except RuntimeError as error:  # the only class that OpenVINO raises
            first = (str(error).strip().splitlines() or [""])[0]
            raise ExecutionError(
                "bench.arm_failed",
                f"arm {work.name}: OpenVINO refused {role}: {first[:300]}",
                hint="export the bundle for the portable target",
            ) from error
        return np.asarray(values[0], np.float32)

    return run


class OpenVinoArm:
    """Graphs and request of one workload.

    Args:
        work: of kind openvino, with ``unet_passes``.

    Raises:
        InputError: ``bench.workload`` for a whole clip; ``bundle.*``.
        ResourceError: ``extra.missing``.
    """

    def __init__(self, work: Workload) -> None:
        if work.unet_passes is None:
            raise InputError(
                "bench.workload",
                f"arm {work.name}: got a whole clip, expected unet_passes for kind openvino",
                hint="give unet_passes",
            )
        self.work, self.passes = work, work.unet_passes
        self.bundle = Bundle.open(work.bundle)
        self.graph = openvino_run(work, self.bundle)
        self.tokenizer = Tokenizer.from_files(self.bundle.folder("tokenizer"))
        self.facts = self.bundle.manifest.model
        self.number = 0

    def run(self) -> dict[str, Any]:
        """One sample; graphs are compiled in the first one."""
        work, facts = self.work, self.facts
        cpu, clock = time.process_time(), StageClock()
        contexts = []
        for index in range(work.passes_per_step):
            ids = self.tokenizer.encode("" if index else work.prompt).ids
            contexts.append(self.graph("text_encoder", {"input_ids": ids}))
            clock.lap("text", index)
        cell = facts.vae_scale_factor
        sizes = work.frames, facts.latent_channels, work.height // cell, work.width // cell
        x = noise(work.seed, 0, *sizes)
        clock.lap("noise")
        feeds: dict[str, NDArray[Any]] = {
            "sample": x,
            "fps": np.array([facts.fps_condition.default], np.int64),
        }
        if facts.timestep_cond_dim is not None:
            scale = facts.guidance.default if work.guidance is None else work.guidance
            feeds["timestep_cond"] = guidance_embedding(scale, facts.timestep_cond_dim)
        schedule = timesteps(self.bundle.scheduler, work.steps)
        steps = stratified_steps(work.steps, self.number, self.passes)
        for number, step in enumerate(steps):
            feeds["timestep"] = np.array(int(schedule[step]), np.int64)
            feeds["encoder_hidden_states"] = contexts[number % len(contexts)]
            self.graph("unet", feeds)
            clock.lap("pass", step)
        self.number += 1
        frames = hashlib.sha256()
        for index in range(work.decode_frames or work.frames):
            part = np.ascontiguousarray(x[:, :, index]) / np.float32(facts.scaling_factor)
            pixels = self.graph(DECODERS[work.decoder], {"latent_sample": part})
            frames.update(to_uint8(pixels.transpose(0, 2, 3, 1)).tobytes())
            clock.lap("decode", index)
        return {
            "wall_s": time.perf_counter() - clock.start,
            "cpu_s": time.process_time() - cpu,
            "stages": clock.stages,
            "peak_rss_bytes": peak_memory() or 0,
            "outputs": {"frames": frames.hexdigest()},
            "providers": {},
        }


def serve(work: Workload, lines: Iterable[str], out: TextIO) -> None:
    """Answer ``run`` lines until ``exit`` or the end of the input."""
    arm = OpenVinoArm(work)
    import openvino

    engine = f"openvino {openvino.__version__}"
    identity = bundle_identity(work, arm.bundle, engine=engine, device=work.provider.lower())
    _say(out, {"event": "ready", "identity": identity.to_json()})
    for line in lines:
        words = line.split()
        if words[:1] == ["exit"]:
            return
        if words[:1] == ["run"]:
            arm.number = int(words[1]) if len(words) > 1 else arm.number
            _say(out, {"event": "sample", **arm.run()})


def main(argv: list[str]) -> int:
    """Serve the workload of a file."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    try:
        serve(read_workload_json(Path(argv[0])), sys.stdin, out)
    except HummingbirdError as error:
        _say(out, {"event": "error", "code": error.code, "message": str(error)})
        return error.exit_code
    return 0


def _say(out: TextIO, event: dict[str, Any]) -> None:
    out.write(json.dumps(event) + "\n")
    out.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
