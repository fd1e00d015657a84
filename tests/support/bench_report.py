"""A synthetic benchmark report with known times: every figure of it can be worked out by hand."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from hummingbird_bench.identity import Identity
from hummingbird_bench.sample import Sample, StageTime
from hummingbird_bench.workload import Workload

FRAMES = 26
CHUNKS = 2
THEIRS = "VideoCrafter2, torch eager"
OURS = "Hummingbird 0.7B, int8, tiny decoder"
PARTS = {
    # arm: (text, seconds a pass, seconds to decode a frame, rest)
    THEIRS: (0.9, 152.0, 12.1, 0.4),
    "0.7B, torch eager": (0.9, 93.0, 12.1, 0.4),
    "Hummingbird 0.7B, fp32, full decoder": (0.5, 86.5, 9.4, 0.3),
    "Hummingbird 0.7B, int8, full decoder": (0.5, 49.5, 9.4, 0.3),
    OURS: (0.5, 49.5, 0.62, 0.3),
}


def workload(name: str, **changes: Any) -> Workload:
    """A valid workload of 4 steps."""
    theirs = name == THEIRS
    values: dict[str, Any] = {
        "name": name,
        "kind": "torch" if "torch" in name else "runtime",
        "bundle": None if "torch" in name else "bundles/07b",
        "model": "vc2" if theirs else "07b",
        "steps": 50 if theirs else 4,
        "guidance": 12.0 if theirs else 7.5,
        "passes_per_step": 2 if theirs else 1,
        "sampler": "ddim" if theirs else "lcm",
        "eta": 1.0 if theirs else 0.0,
        "frames": FRAMES,
        "height": 320,
        "width": 512,
        "precision": "int8" if "int8" in name else "fp32",
        "provider": "CPUExecutionProvider",
        "threads": 2,
        "decoder": "tiny" if "tiny" in name else "full",
        "prompt": "a hummingbird over a red flower",
        "seed": 123,
        "unet_passes": 1 if theirs else None,
    }
    return Workload(**{**values, **changes})


def identity(work: Workload) -> dict[str, Any]:
    """What the arm of a workload computes."""
    tiny = work.decoder == "tiny"
    passes = work.steps * work.passes_per_step
    return Identity(
        height=work.height,
        width=work.width,
        frames=work.frames,
        prompt_sha256="1" * 64,
        noise_sha256="2" * 64,
        threads=work.threads,
        device="cpu",
        model="VideoCrafter2" if work.model == "vc2" else "Hummingbird 0.7B",
        sampler=work.sampler,
        eta=work.eta,
        steps=work.steps,
        passes=passes,
        guidance=work.guidance,
        engine=work.kind,
        provider=work.provider,
        graphs={"unet": work.model + work.precision, "decoder": work.decoder},
        precision={"unet": work.precision},
        decoder=work.decoder,
        weights="trained",
        decoder_weights="random" if tiny else "trained",
        flops={
            "unet_pass": 20_460_000_000_000 if work.model == "vc2" else 12_950_000_000_000,
            "passes": passes,
            "decoded_frame": 88_000_000_000 if tiny else 1_563_000_000_000,
            "total": passes,
        },
    ).to_json()


def sample(work: Workload, ordinal: int, factor: float = 1.0, **changes: Any) -> Sample:
    """A run whose times are those of ``PARTS`` times a factor."""
    name = work.name.removesuffix(" (again)")
    text, unet, decode, rest = (factor * part for part in PARTS.get(name, PARTS[OURS]))
    at, stages = 0.0, []
    steps = work.unet_passes or work.steps
    unet_name = "step" if work.unet_passes is None else "pass"
    per_step = work.passes_per_step if unet_name == "step" else 1
    plan = [("text", 0, text)]
    plan += [(unet_name, i, per_step * unet) for i in range(steps)]
    decoded = work.decode_frames or work.frames
    plan += [("decode", i, decode * decoded / CHUNKS) for i in range(CHUNKS)]
    for name, index, seconds in plan:
        stages.append(StageTime(name=name, index=index, start_s=at, seconds=seconds))
        at += seconds
    values: dict[str, Any] = {
        "arm": work.name,
        "ordinal": ordinal,
        "phase": "steady",
        "wall_s": at + rest,
        "cpu_s": 1.9 * at,
        "stages": tuple(stages),
        "peak_rss_bytes": 1_700_000_000 if "int8" in work.name else 3_900_000_000,
        "peak_pss_bytes": None,
        "load_before": 0.2,
        "load_after": 1.9,
        "steal_ticks_before": 10,
        "steal_ticks_after": 12,
        "outputs": {"latents": "a" * 64, "frames": "b" * 64},
        "providers": {"CPUExecutionProvider": 1500},
    }
    return Sample(**{**values, **changes})


def raw_report(pairs: int = 6, noise: float = 0.01, seed: int = 0) -> dict[str, Any]:
    """The raw part of a report of five arms, an A/A run, an invalid arm and a waterfall."""
    generator = np.random.default_rng(seed)
    works = [workload(name) for name in PARTS]
    works.append(dataclasses.replace(works[-1], name=f"{OURS} (again)"))
    samples, ordinal = [], 0
    for work in works:
        samples.append(sample(work, ordinal := ordinal + 1, 1.4, phase="first"))
    for pair in range(pairs):
        for work in works if pair % 2 == 0 else works[::-1]:
            factor = float(np.exp(generator.normal(0, noise)))
            samples.append(sample(work, ordinal := ordinal + 1, factor))
    broken = workload("OpenVINO, int8", kind="openvino")
    return {
        "schema": "hummingbird-bench/1",
        "title": "Hummingbird against VideoCrafter2 on two cores",
        "scale": "full",
        "made": {
            "version": "0.1.0",
            "command": "hummingbird bench speedup --scale full",
            "started": "2026-11-23T01:00:00Z",
            "finished": "2026-11-23T04:31:00Z",
        },
        "environment": {
            "processor": {
                "model": "AMD EPYC 7B13",
                "usable_cores": 2,
                "flags": ["avx2", "fma"],
                "governor": None,
            },
            "memory": {"total_bytes": 25_000_000_000},
            "system": {"name": "Linux", "release": "6.1"},
            "software": {"onnxruntime": "1.31.1", "torch": "2.13.0+cpu", "numpy": "2.4.6"},
            "energy": "not measured",
        },
        "arms": [
            {
                "workload": dataclasses.asdict(work),
                "identity": identity(work),
                "gate": {"snr_db": 22.3 if "int8" in work.name else 111.0, "cosine": 0.99789,
                         "passed": True},
                "invalid": "",
            }
            for work in works
        ]
        + [
            {
                "workload": dataclasses.asdict(broken),
                "identity": {**identity(broken), "threads": 4},
                "gate": {"snr_db": 3.1, "cosine": 0.71, "passed": False},
                "invalid": "",
            }
        ],
        "samples": [dataclasses.asdict(one) for one in samples],
        "comparisons": [
            *(
                {
                    "row": "26 against 26 frames",
                    "a": THEIRS,
                    "b": name,
                    "treatment": ["steps", "model", "precision", "decoder", "engine"],
                    "metric": "clip",
                    "headline": "int8" in name,
                }
                for name in list(PARTS)[2:]
            ),
            {
                "row": "26 against 26 frames",
                "a": THEIRS,
                "b": "OpenVINO, int8",
                "treatment": ["steps", "model"],
                "metric": "clip",
                "headline": False,
            },
            {
                "row": "A/A",
                "a": OURS,
                "b": f"{OURS} (again)",
                "treatment": [],
                "metric": "clip",
                "headline": False,
            },
        ],
        "waterfalls": [waterfall()],
        "validations": [{"arm": "tiny VideoCrafter2", "predicted_s": 10.3, "measured_s": 10.0}],
        "stop_rule": "Fixed beforehand: exactly 6 pairs.",
        "notes": ["Weights are random: these figures show the architecture and the engine, not "
                  "the quality of a clip. VideoCrafter2's clip is extrapolated from passes."],
    }  # fmt: skip


def waterfall() -> dict[str, Any]:
    """From VideoCrafter2 to int8 with the tiny decoder, in five changes."""
    _, pruned, fp32, int8, tiny = PARTS
    rows = [
        ("start", "VideoCrafter2 in torch, 100 passes", THEIRS, THEIRS, 100, THEIRS),
        ("fewer passes", "50 steps of 2 to 4 steps of 1", THEIRS, THEIRS, 4, THEIRS),
        ("pruning", "1.4 B to 0.7 B weights", pruned, pruned, 4, pruned),
        ("engine", "torch eager to our graphs", fp32, fp32, 4, fp32),
        ("precision", "float32 to int8", int8, int8, 4, int8),
        ("decoder", "full to tiny", tiny, tiny, 4, tiny),
    ]
    return {
        "title": "From 100 passes in torch to 4 in 8 bits",
        "a": THEIRS,
        "b": OURS,
        "steps": [
            dict(zip(("name", "label", "text", "unet", "passes", "decoder"), row, strict=True))
            for row in rows
        ],
    }
