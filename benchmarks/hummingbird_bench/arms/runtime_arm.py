"""The arm of our own runtime: one process, one workload, one sample for every line ``run``.

``python -m hummingbird_bench.arms.runtime_arm WORKLOAD.json``; see ``child`` for the lines. Stages
are timed from the pipeline's own events. With ``unet_passes`` only these passes of the U-Net run,
at timesteps spread over the schedule, between text encoding and decoding.
"""

from __future__ import annotations

import gc
import hashlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from hummingbird_bench.extrapolation import stratified_steps
from hummingbird_bench.identity import runtime_identity
from hummingbird_bench.workload import Workload, read_workload_json
from hummingbird_runtime import stages
from hummingbird_runtime.cancel import CancelToken
from hummingbird_runtime.decode import to_uint8
from hummingbird_runtime.deep_check import peak_memory
from hummingbird_runtime.errors import HummingbirdError
from hummingbird_runtime.events import Done, Frames, Step
from hummingbird_runtime.opening import open_parts
from hummingbird_runtime.pipeline import TextToVideoPipeline
from hummingbird_runtime.request import Options, check_request
from hummingbird_runtime.schedule import timesteps
from hummingbird_runtime.video import Video
from hummingbird_runtime.writers import find_writer


class StageClock:
    """Stages of one run; each begins where the one before ended."""

    def __init__(self) -> None:
        self.start = self._mark = time.perf_counter()
        self.stages: list[dict[str, Any]] = []

    def lap(self, name: str, index: int = 0, *, end: float | None = None) -> None:
        """Book the time since the last mark, up to now or to an earlier moment.

        Args:
            name: of the stage.
            index: its number.
            end: moment of ``perf_counter``.
        """
        moment = time.perf_counter() if end is None else max(end, self._mark)
        self.stages.append(
            {
                "name": name,
                "index": index,
                "start_s": self._mark - self.start,
                "seconds": moment - self._mark,
            }
        )
        self._mark = moment

    @property
    def seconds(self) -> float:
        """From the start to the last mark."""
        return self._mark - self.start


def request_options(work: Workload) -> Options:
    """What the pipeline is asked for."""
    return {
        "num_frames": work.frames,
        "height": work.height,
        "width": work.width,
        "num_inference_steps": work.steps,
        "guidance_scale": work.guidance,
        "seed": work.seed,
        "decoder": "tiny" if work.decoder == "tiny" else "full",
        "upscale": False,  # frames of the size that the workload says
    }


def run_clip(
    pipe: TextToVideoPipeline, work: Workload, clock: StageClock
) -> tuple[NDArray[Any], NDArray[Any]]:
    """A whole clip, text to uint8 frames and perhaps a file.

    Returns:
        The final latent and the frames.
    """
    latents: NDArray[Any] = np.zeros(0)
    frames: NDArray[Any] = np.zeros(0)
    chunk = 0
    for event in pipe.stream(work.prompt, **request_options(work)):
        if isinstance(event, Step):
            now = time.perf_counter()
            if event.i == 0:
                clock.lap("text", end=now - event.seconds)
            clock.lap("step", event.i, end=now)
            latents = event.denoised
        elif isinstance(event, Frames):
            clock.lap("decode", chunk)
            chunk += 1
        elif isinstance(event, Done):
            assert isinstance(event.video, Video), "the output type is video"
            frames = event.video.frames
            if work.encode:
                with tempfile.TemporaryDirectory() as folder:
                    event.video.save(Path(folder, f"clip{work.encode}"))
                    clock.lap("encode")
    return latents, frames


class Passes:
    """Single passes of the U-Net between text encoding and decoding.

    Args:
        work: with ``unet_passes``.

    Raises:
        HummingbirdError: as ``TextToVideoPipeline``.
    """

    def __init__(self, work: Workload) -> None:
        self.work = work
        self.bundle, self.graphs, self.tokenizer = open_parts(
            work.bundle, providers=[work.provider], threads=work.threads
        )
        self.graphs.preload()
        self.request, _ = check_request(
            self.bundle.manifest.model,
            self.bundle.scheduler,
            prompt=work.prompt,
            graphs=self.bundle.manifest.graphs,
            options=request_options(work),
        )
        self.runs = 0

    def run(
        self, clock: StageClock, number: int | None = None
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """One measurement; the latent given back is the last output of the network.

        Args:
            clock: freshly made.
            number: of the measurement, which decides where in the schedule its passes lie; None
                counts on.
        """
        facts, request = self.bundle.manifest.model, self.request
        cancel, work = CancelToken(), self.work
        with self.graphs.stage("text_encoder", cancel) as encoder:
            contexts = []
            for index, text in enumerate(stages.texts(request, facts).values()):
                contexts.append(stages.encode_text(encoder, self.tokenizer.encode(text)))
                clock.lap("text", index)
        x = stages.initial_noise(request, facts)
        clock.lap("noise")
        assert work.unet_passes is not None, "a whole clip is run by the pipeline"
        schedule = timesteps(self.bundle.scheduler, work.steps)
        self.runs = self.runs if number is None else number
        steps = stratified_steps(work.steps, self.runs, work.unet_passes)
        with self.graphs.stage("unet", cancel) as unet:
            clock.lap("open")
            out = x
            for place, step in enumerate(steps):
                # given one context it is one evaluation, also of a model that is guided by two
                context = {"prompt": contexts[place % len(contexts)]}
                denoise = stages.make_denoiser(unet, request, facts, context)
                out = denoise(x, int(schedule[step]))
                clock.lap("pass", step)
        self.runs += 1
        frames = self._decode(clock, x[:, :, : work.decode_frames or work.frames])
        return out, frames

    def _decode(self, clock: StageClock, latents: NDArray[np.float32]) -> NDArray[np.uint8]:
        facts = self.bundle.manifest.model
        chunk = self.bundle.manifest.model.decode_chunk
        shown = []
        with self.graphs.stage(self.request.decoder, CancelToken()) as decoder:
            parts = stages.decode_frames(decoder, latents, self.request, facts, chunk=chunk)
            for index, (_, pixels) in enumerate(parts):
                shown.append(to_uint8(pixels))
                clock.lap("decode", index)
        return np.concatenate(shown)

    def close(self) -> None:
        """Free the graphs."""
        self.graphs.close()


class RuntimeArm:
    """Opened bundle of one workload.

    Args:
        work: of kind runtime.

    Raises:
        HummingbirdError: as ``TextToVideoPipeline``; ``extra.missing`` for a file format.
    """

    def __init__(self, work: Workload) -> None:
        self.work = work
        self.passes: Passes | None = None
        self.pipe: TextToVideoPipeline | None = None
        if work.encode:
            find_writer(f"clip{work.encode}")
        if work.unet_passes is not None:
            self.passes = Passes(work)
            self.bundle = self.passes.bundle
        else:
            self.pipe = TextToVideoPipeline.from_pretrained(
                work.bundle, providers=[work.provider], threads=work.threads
            )
            self.bundle = self.pipe.bundle

    def run(self, number: int | None = None) -> dict[str, Any]:
        """One sample; hashes are taken after the clock stopped.

        Args:
            number: of the sample among all of its arm, for single passes; None counts on.
        """
        cpu, clock = time.process_time(), StageClock()
        if self.passes is not None:
            latents, frames = self.passes.run(clock, number)
        else:
            assert self.pipe is not None, "one of the two is open"
            latents, frames = run_clip(self.pipe, self.work, clock)
        clock.lap("finish")
        cpu = time.process_time() - cpu
        return {
            "wall_s": clock.seconds,
            "cpu_s": cpu,
            "stages": clock.stages,
            "peak_rss_bytes": peak_memory() or 0,
            "outputs": {"latents": _sha256(latents), "frames": _sha256(frames)},
            "providers": {},
        }

    def close(self) -> None:
        """Free everything."""
        for part in (self.passes, self.pipe):
            if part is not None:
                part.close()


def serve(work: Workload, lines: Iterable[str], out: TextIO) -> None:
    """Answer ``run`` lines until ``exit`` or the end of the input."""
    with ExitStack() as stack:
        arm = RuntimeArm(work)
        stack.callback(arm.close)
        _say(out, {"event": "open"})
        _say(out, {"event": "ready", "identity": runtime_identity(work, arm.bundle).to_json()})
        for line in lines:
            words = line.split()
            if words[:1] == ["exit"]:
                return
            if words[:1] == ["run"]:
                number = int(words[1]) if len(words) > 1 else None
                _say(out, {"event": "sample", **arm.run(number)})
                gc.collect()  # between runs, so that no run pays for the one before


def main(argv: list[str]) -> int:
    """Serve the workload of a file."""
    # what a library prints must not mix with the protocol: stdout is kept for it alone
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


def _sha256(array: NDArray[Any]) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
