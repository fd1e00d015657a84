"""The torch arm of a benchmark: one process, one workload, one sample for every line ``run``.

``python -m hummingbird_export.bench_arm WORKLOAD.json`` builds the networks with random weights and
prints ``ready``; each ``run`` on stdin gives a ``sample``, ``exit`` ends it. With ``--gate`` it
only compares its form with the fair float32 one. JSON lines on stdout, all else on stderr.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hummingbird_export.bench_flops import counted_flops
from hummingbird_export.bench_forms import as_fair, as_published
from hummingbird_export.bench_models import bench_preset
from hummingbird_export.facts import complete_facts
from hummingbird_export.random_models import Preset, random_networks
from hummingbird_export.torch_pipeline import guidance_sinusoids
from hummingbird_export.torch_sampler import inference_times, sample
from hummingbird_runtime.deep_check import peak_memory
from hummingbird_runtime.errors import HummingbirdError, UsageError
from hummingbird_runtime.manifest import ModelFacts
from hummingbird_runtime.noise import noise
from hummingbird_runtime.tokenizer import Tokenizer

FORMS = {
    "torch": "eager",
    "torch-as-published": "eager, as published",
    "torch-compile": "torch.compile",
}
"""Kind of a workload -> form of the computation."""

GATE_SIZE = (8, 24, 32)
"""Frames, rows and columns of the latents on which forms are compared."""

GATE_TIMESTEP = 999

EXACT_DB = 200.0
"""Signal to noise that stands for equal bits."""


@dataclass
class StageClock:
    """Stages of one sample; each begins where the one before ended."""

    start: float = field(default_factory=time.perf_counter)
    stages: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._mark = self.start

    def lap(self, name: str, index: int) -> None:
        """Book the time since the last mark."""
        now = time.perf_counter()
        self.stages.append(
            {
                "name": name,
                "index": index,
                "start_s": self._mark - self.start,
                "seconds": now - self._mark,
            }
        )
        self._mark = now


class TorchArm:
    """Networks and request of one workload.

    Args:
        work: the workload as JSON values.
        folder: for the tokenizer's files.
    """

    def __init__(self, work: dict[str, Any], folder: Path) -> None:
        if work["kind"] not in FORMS:
            raise UsageError(
                "bench.kind",
                f"arm {work['name']}: got kind {work['kind']!r}, expected {', '.join(FORMS)}",
                hint="start it with the program of its kind",
            )
        torch.set_num_threads(work["threads"])
        self.work = work
        self.shapes: Preset = bench_preset(work["model"])
        self.scheduler = self.shapes.scheduler
        unet, self.vae, self.text_encoder = random_networks(
            self.shapes, seed=work.get("weights_seed") or 0
        )
        self.facts: ModelFacts = complete_facts(self.shapes.facts, unet=unet, vae=self.vae)
        self.tokenizer = Tokenizer.from_files(self.shapes.write_tokenizer(folder))
        self.check_request()
        self.plain = unet
        self.unet: Callable[..., Tensor] = as_published(unet) if self.is_published else unet
        if work["kind"] == "torch-compile":
            self.unet = torch.compile(unet)
        cell = self.facts.vae_scale_factor
        self.size = (
            work["frames"],
            self.facts.latent_channels,
            work["height"] // cell,
            work["width"] // cell,
        )
        self.samples = 0

    @property
    def is_published(self) -> bool:
        """Whether the arm runs the original's form."""
        return bool(self.work["kind"] == "torch-as-published")

    @property
    def guidance(self) -> float:
        """The scale asked for, or the model's default."""
        asked = self.work["guidance"]
        return self.facts.guidance.default if asked is None else float(asked)

    def check_request(self) -> None:
        """Refuse a workload that this model does not compute.

        Raises:
            UsageError: ``bench.torch_workload``.
        """
        work, passes = self.work, 2 if self.facts.guidance.kind == "cfg" else 1
        for what, good in (
            (f"precision {work['precision']}", work["precision"] == "fp32"),
            (f"decoder {work['decoder']}", work["decoder"] == "full"),
            (f"passes_per_step {work['passes_per_step']}", work["passes_per_step"] == passes),
            (f"sampler {work['sampler']}", work["sampler"] == self.scheduler.sampler),
            (f"eta {work['eta']}", work["eta"] == self.scheduler.eta),
            ("a bundle", not work.get("bundle")),
        ):
            if not good:
                raise UsageError(
                    "bench.torch_workload",
                    f"arm {work['name']}: got {what}, expected fp32, the full decoder, no bundle, "
                    f"{passes} passes a step and {self.scheduler.sampler} with eta "
                    f"{self.scheduler.eta:g} for model {work['model']}",
                    hint="correct the workload",
                )

    def identity(self) -> dict[str, Any]:
        """What the arm computes, field by field as every arm tells it; FLOPs by torch's counter."""
        work, config = self.work, self.shapes.unet
        levels = "-".join(str(config.model_channels * m) for m in config.channel_mult)
        layouts = {(2, True): "VideoCrafter2", (1, True): "Hummingbird 0.9B"}
        layout = layouts.get((config.num_res_blocks, config.middle_block), "Hummingbird 0.7B")
        weights = f"{work['model']}, random weights, seed {work.get('weights_seed') or 0}"
        passes = work["steps"] * work["passes_per_step"]
        start = noise(work["seed"], 0, *self.size).astype("<f4")
        return {
            "height": work["height"],
            "width": work["width"],
            "frames": work["frames"],
            "prompt_sha256": hashlib.sha256(work["prompt"].encode()).hexdigest(),
            "noise_sha256": hashlib.sha256(start.tobytes()).hexdigest(),
            "threads": torch.get_num_threads(),
            "device": "cpu",
            "model": f"{layout}, widths {levels}",
            "sampler": self.scheduler.sampler,
            "eta": self.scheduler.eta,
            "steps": work["steps"],
            "passes": passes,
            "guidance": self.guidance,
            "engine": f"torch {torch.__version__}, {FORMS[work['kind']]}",
            "provider": "torch cpu",
            "graphs": dict.fromkeys(("text", "unet", "decoder"), weights),
            "precision": dict.fromkeys(("text", "unet", "decoder"), "fp32"),
            "decoder": "full",
            "weights": "random",
            "decoder_weights": "random",
            "flops": counted_flops(self.shapes, self.size, passes, work["passes_per_step"]),
        }

    def run(self) -> dict[str, Any]:
        """One sample: the whole clip, or the passes that the workload asks for."""
        cpu, clock = time.process_time(), StageClock()
        with torch.inference_mode():
            outputs = self._clip(clock) if self.work["unet_passes"] is None else self._part(clock)
        wall = time.perf_counter() - clock.start
        self.samples += 1
        return {
            "wall_s": wall,
            "cpu_s": time.process_time() - cpu,
            "stages": clock.stages,
            "peak_rss_bytes": peak_memory() or 0,
            "outputs": outputs,
            "providers": {"torch cpu": sum(1 for _ in self.plain.modules())},
        }

    def gate(self) -> dict[str, Any]:
        """Signal to noise and cosine of one pass against the fair form in float32.

        The arm is in the fair form afterwards, so this is the last thing that it does.
        """
        size = GATE_SIZE if self.size[2] >= GATE_SIZE[1] else (8, *self.size[2:])
        shape = (1, self.facts.latent_channels, *size)
        x = torch.from_numpy(noise(7, 0, size[0], shape[1], *size[1:]))
        config = self.shapes.text
        context = torch.from_numpy(noise(7, 1, 1, 1, config.max_length, config.width))[0, 0]
        with torch.inference_mode():
            got = self._pass(self.unet, x, GATE_TIMESTEP, context).numpy()
            want = self._pass(as_fair(self.plain), x, GATE_TIMESTEP, context).numpy()
        return {"case": "x".join(map(str, size)), **agreement(got, want)}

    def _clip(self, clock: StageClock) -> dict[str, str]:
        contexts = self._contexts(clock)
        done = -1

        def step_ended() -> None:
            nonlocal done
            if done >= 0:
                clock.lap("step", done)
            done += 1

        def predict(x: Tensor, t: int) -> Tensor:
            step_ended()  # the solver's arithmetic and its noise belong to the step before
            out = self._pass(self.unet, x, t, contexts[0])
            if len(contexts) == 1:
                return out
            other = self._pass(self.unet, x, t, contexts[1])
            return other + self.guidance * (out - other)

        latents = sample(
            predict,
            torch.from_numpy(noise(self.work["seed"], 0, *self.size)),
            self.scheduler,
            self.work["steps"],
            lambda i: torch.from_numpy(noise(self.work["seed"], 1 + i, *self.size)),
        )[-1]
        step_ended()
        frames = self._decode(clock, latents, self.work["frames"])
        return {"latents": _sha256(latents.numpy()), "frames": _sha256(frames)}

    def _part(self, clock: StageClock) -> dict[str, str]:
        contexts = self._contexts(clock)
        work = self.work
        times = inference_times(self.scheduler, work["steps"])
        x = torch.from_numpy(noise(work["seed"], 0, *self.size))
        clock.lap("noise", 0)
        first = self.samples * work["unet_passes"]
        for j in range(first, first + work["unet_passes"]):
            step = stratified_step(work["steps"], j)
            self._pass(self.unet, x, times[step], contexts[j % len(contexts)])
            clock.lap("pass", step)
        frames = self._decode(clock, x, work.get("decode_frames") or work["frames"])
        return {"frames": _sha256(frames)}

    def _contexts(self, clock: StageClock) -> list[Tensor]:
        """The prompt, and the empty one for two-pass guidance: float [1, L, D] each."""
        found = []
        for i in range(self.work["passes_per_step"]):
            ids = self.tokenizer.encode("" if i else self.work["prompt"]).ids
            found.append(self.text_encoder(torch.from_numpy(ids)))
            clock.lap("text", i)
        return found

    def _pass(
        self, unet: Callable[..., Tensor], x: Tensor, timestep: int, context: Tensor
    ) -> Tensor:
        cond, wide = None, self.facts.timestep_cond_dim
        if wide is not None:
            cond = guidance_sinusoids(self.guidance, wide)
        fps = torch.tensor([self.facts.fps_condition.default])
        return unet(x, torch.tensor(timestep), context, timestep_cond=cond, fps=fps)

    def _decode(self, clock: StageClock, latents: Tensor, count: int) -> NDArray[np.uint8]:
        """One frame at a time, as the original decodes: uint8 [F, H, W, 3]."""
        shown = []
        for i in range(count):
            pixels = self.vae.decode(latents[:, :, i] / self.facts.scaling_factor)
            unit = ((pixels + 1) / 2).clamp(0, 1)
            frame = unit.mul(255).add(0.5).floor().to(torch.uint8)
            shown.append(frame[0].permute(1, 2, 0).contiguous().numpy())
            clock.lap("decode", i)
        return np.stack(shown)


STRATA = 5
"""Parts of the schedule that measured passes are spread over."""


def stratified_step(steps: int, number: int) -> int:
    """The solver's step at which measured pass ``number`` is taken: the middle of a fifth.

    The fifths are visited as 2, 0, 4, 1, 3, so that a run that ends early is spread as well.

    Args:
        steps: steps of the solver.
        number: 0-based number of the pass within the whole measurement.
    """
    part = (2, 0, 4, 1, 3)[number % STRATA]
    return min(steps - 1, (2 * part + 1) * steps // (2 * STRATA))


def agreement(got: NDArray[np.float32], want: NDArray[np.float32]) -> dict[str, float]:
    """Signal to noise in dB, 200 for equal bits, and cosine of two arrays of one shape."""
    a, b = got.astype(np.float64).ravel(), want.astype(np.float64).ravel()
    error, size = float(np.linalg.norm(a - b)), float(np.linalg.norm(b))
    decibels = 20 * float(np.log10(size / error)) if error else EXACT_DB
    return {
        "snr_db": min(decibels, EXACT_DB),
        "cosine": float(a @ b) / (float(np.linalg.norm(a)) * size),
    }


def serve(arm: TorchArm, lines: Iterable[str], out: TextIO) -> None:
    """Answer ``run`` lines, perhaps with the sample's number, until ``exit`` or the end."""
    _say(out, {"event": "ready", "identity": arm.identity()})
    for line in lines:
        words = line.split()
        if words[:1] == ["exit"]:
            return
        if words[:1] == ["run"]:
            arm.samples = int(words[1]) if len(words) > 1 else arm.samples
            _say(out, {"event": "sample", **arm.run()})


def main(argv: list[str]) -> int:
    """``python -m hummingbird_export.bench_arm WORKLOAD.json [--gate]``."""
    parser = argparse.ArgumentParser(prog="python -m hummingbird_export.bench_arm")
    parser.add_argument("workload", type=Path)
    parser.add_argument("--gate", action="store_true", help="compare with the fair form and end")
    parsed = parser.parse_args(argv)
    work = json.loads(parsed.workload.read_text("utf-8"))
    # What a library prints must not mix with the protocol: stdout is kept for it alone.
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    try:
        with tempfile.TemporaryDirectory() as folder:
            arm = TorchArm(work, Path(folder))
            if parsed.gate:
                _say(out, {"event": "gate", **arm.gate()})
            else:
                serve(arm, sys.stdin, out)
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
