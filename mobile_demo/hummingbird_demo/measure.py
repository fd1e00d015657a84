"""How fast this device draws, as the document that ``hummingbird bench devices`` merges.

One cold clip (opening the model counts), one right after, then steady ones, all of one prompt and
seed, so that devices can be compared. Schema ``hummingbird-device/1``.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hummingbird_runtime import CancelToken, SessionBackend, TextToVideoPipeline, Video, __version__
from hummingbird_runtime.atomic import atomic_file
from hummingbird_runtime.events import Done, Step
from hummingbird_runtime.system_memory import read_memory

SCHEMA = "hummingbird-device/1"
STEADY = 3
SEED = 7
CPU = "CPUExecutionProvider"


@dataclass(frozen=True)
class Measurement:
    """What was measured; ``document`` is the JSON."""

    document: dict[str, Any]

    @property
    def clip_s(self) -> float:
        """Median seconds of a steady clip."""
        samples = self.document["samples"]
        return float(statistics.median(s["wall_s"] for s in samples if s["phase"] == "steady"))

    @property
    def peak_bytes(self) -> int | None:
        """Highest resident memory of any clip; None where the system does not tell."""
        peaks = [sample["peak_memory_bytes"] for sample in self.document["samples"]]
        return max(peaks) if None not in peaks else None


def measure(
    bundle: Path | None,
    *,
    threads: int | None = None,
    report: Callable[[int, int], None],
    cancel: CancelToken,
    kind: str = "desktop",
    backend: SessionBackend | None = None,
    steady: int = STEADY,
) -> Measurement:
    """Draw a few clips of a bundle and time them.

    Args:
        bundle: its folder; None is the built-in one.
        threads: of one graph; None is the engine's choice.
        report: told which run begins, and how many there are.
        cancel: stops it.
        kind: ``desktop``, ``phone`` or ``tablet``.
        backend: opens graphs; None is the onnxruntime package.
        steady: clips after the first two, at least 1.

    Raises:
        HummingbirdError: what opening or drawing raises; ``runtime.cancelled``.
    """
    phases = ["cold", "first", *["steady"] * steady]
    samples: list[dict[str, Any]] = []
    latents = b""
    started = time.perf_counter()
    report(1, len(phases))
    pipeline = TextToVideoPipeline.from_pretrained(
        bundle, threads=threads, backend=backend, preload=False
    )
    with pipeline as pipe:
        manifest = pipe.bundle.manifest
        examples = manifest.model.vocabulary_examples
        prompt = examples[0] if examples else "a red ball"
        for number, phase in enumerate(phases):
            report(number + 1, len(phases))
            cancel.raise_if_cancelled()
            begun = started if phase == "cold" else time.perf_counter()
            steps: list[float] = []
            peak = 0
            for event in pipe.stream(prompt, seed=SEED, upscale=False, cancel=cancel):
                if isinstance(event, Step):
                    steps.append(event.seconds)
                    latents = event.denoised.astype("<f4").tobytes()
                peak = max(peak, read_memory().held or 0)
                if isinstance(event, Done) and isinstance(event.video, Video):
                    video = event.video
            wall = time.perf_counter() - begun
            samples.append(
                {
                    "phase": phase,
                    "wall_s": wall,
                    "text_s": video.timings["text"],
                    "steps_s": steps,
                    "decode_s": video.timings["decode"],
                    "peak_memory_bytes": peak or None,
                }
            )
        count, height, width, _ = video.frames.shape
        decoder = "full" if "vae_decoder" in manifest.graphs else "tiny"
        document = {
            "schema": SCHEMA,
            "measured_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "device": _device(kind),
            "software": {
                "program": "hummingbird-demo",
                "version": __version__,
                "engine": _engine(),
                "provider": CPU,
            },
            "bundle": {"id": manifest.bundle_id, "name": manifest.name},
            "clip": {
                "prompt": prompt,
                "seed": SEED,
                "frames": count,
                "height": height,
                "width": width,
                "steps": len(steps),
                "guidance": None,
                "decoder": decoder,
                "precision": manifest.graphs["unet"].precision,
                "threads": threads,
            },
            "samples": samples,
            "latents_sha256": hashlib.sha256(latents).hexdigest(),
        }
    return Measurement(document)


def write_measurement(measurement: Measurement, target: Path) -> Path:
    """Write the document to a file, or into a folder under a name that tells the device.

    Raises:
        UsageError, ResourceError: ``output.*``.
    """
    path = target
    if target.is_dir():
        name = re.sub(r"[^A-Za-z0-9]+", "-", measurement.document["device"]["name"]).strip("-")
        stamp = time.strftime("%Y%m%d-%H%M%S")
        path = target / f"hummingbird-{name.lower() or 'device'}-{stamp}.json"
    text = json.dumps(measurement.document, ensure_ascii=False, indent=2, allow_nan=False)
    with atomic_file(path, overwrite=True) as partial:
        partial.write_text(text + "\n", encoding="utf-8")
    return path


def _device(kind: str) -> dict[str, Any]:
    names = platform.uname()
    return {
        "name": os.environ.get("HUMMINGBIRD_DEVICE_NAME") or f"{names.system} {names.machine}",
        "kind": kind,
        "system": f"{names.system} {names.release}",
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_bytes": _memory(),
    }


def _processor() -> str:
    """The processor's name as Linux and Android have it, else the platform's."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.processor() or platform.machine()
    names = re.findall(r"^(?:model name|Hardware)\s*:\s*(.+)$", text, re.MULTILINE)
    return names[0].strip() if names else platform.machine()


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def _engine() -> str:
    """The library that ran the graphs: the onnxruntime package, or its C library alone."""
    module = sys.modules.get("onnxruntime")
    return f"onnxruntime {module.__version__}" if module is not None else "onnxruntime, C library"
