"""One index of what many devices measured: phones, web pages and whole benchmark reports.

A device measurement is the small document that the phone app and the web page write; its schema
is device_schema.json. ``hummingbird bench devices FILE...`` merges any number of them, and of
reports of ``bench run`` and ``bench speedup``, into index.json, index.md and index.html.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from hummingbird_bench import amounts
from hummingbird_bench.charts import Bar, bars
from hummingbird_bench.page import Figure, Page, Section, Table
from hummingbird_bench.report import Report
from hummingbird_bench.sample import Sample
from hummingbird_bench.sealed_document import (
    Kind,
    Sealed,
    canonical,
    invalid,
    read_record,
)
from hummingbird_runtime.bundle import builtin_bundle
from hummingbird_runtime.errors import InputError

MEASUREMENT = "hummingbird-device/1"
INDEX = "hummingbird-device-index/1"


@dataclass(frozen=True)
class Device:
    """What ran it."""

    name: str
    """as its owner would say it, such as Pixel 9"""
    kind: Literal["phone", "tablet", "desktop", "browser", "other"]
    system: str
    """operating system and version, or the browser's"""
    processor: str
    """its name; may be empty where the system hides it"""
    cores: int | None
    """logical processors; None where unknown"""
    memory_bytes: int | None
    """main memory; None where unknown"""


@dataclass(frozen=True)
class Software:
    """What measured."""

    program: str
    """such as hummingbird-demo"""
    version: str
    engine: str
    """such as onnxruntime 1.31.1"""
    provider: str
    """execution provider that ran the U-Net"""


@dataclass(frozen=True)
class BundleName:
    """Which model."""

    id: str
    """``bundle_id`` of its manifest; out of a report, the fingerprint of its U-Net"""
    name: str
    """its manifest's name; measurements are grouped by it"""


@dataclass(frozen=True)
class Clip:
    """What was drawn; two measurements are compared only where all of this is equal."""

    prompt: str
    seed: int
    frames: int
    height: int
    """pixels"""
    width: int
    """pixels"""
    steps: int
    guidance: float | None
    """None is the bundle's default"""
    decoder: Literal["full", "tiny"]
    precision: str
    """of the U-Net's weights, such as float32 or int8"""
    threads: int | None
    """None is the engine's choice"""


@dataclass(frozen=True)
class ClipTime:
    """One clip."""

    phase: Literal["cold", "first", "steady"]
    """cold: with opening the model; first: the first after it; steady: any later one"""
    wall_s: float
    """seconds from the call to the last frame"""
    text_s: float
    """seconds of the text encoder"""
    steps_s: tuple[float, ...]
    """seconds of each solver step"""
    decode_s: float
    """seconds of the decoder"""
    peak_memory_bytes: int | None
    """highest resident memory; None where the system does not tell"""


@dataclass(frozen=True)
class DeviceMeasurement:
    """The document that an app writes."""

    schema: Literal["hummingbird-device/1"]
    measured_at: str
    """UTC, as 2026-11-23T00:35:00Z"""
    device: Device
    software: Software
    bundle: BundleName
    clip: Clip
    samples: tuple[ClipTime, ...]
    """at least one"""
    latents_sha256: str | None
    """of the final latents, float32, little-endian; None where not kept"""


@dataclass(frozen=True)
class Source:
    """One merged document."""

    file: str
    """its name"""
    sha256: str
    """of the document"""
    measurement: DeviceMeasurement


@dataclass(frozen=True)
class DeviceIndex:
    """The raw part of an index."""

    schema: Literal["hummingbird-device-index/1"]
    sources: tuple[Source, ...]


def check_measurement(value: Any, what: str) -> DeviceMeasurement:
    """A parsed document as a measurement.

    Raises:
        InputError: ``report.invalid`` for a wrong key or type; ``report.impossible`` for times that
            cannot be: not positive, parts longer than the whole, other steps than asked.
    """
    found = read_record(DeviceMeasurement, value, what)
    if not found.samples:
        raise invalid(f"{what}.samples", "got none, expected at least one")
    if min(found.clip.frames, found.clip.height, found.clip.width, found.clip.steps) < 1:
        raise impossible(f"{what}.clip", "got a size below 1")
    for i, sample in enumerate(found.samples):
        where = f"{what}.samples[{i}]"
        parts = [sample.text_s, *sample.steps_s, sample.decode_s]
        if sample.wall_s <= 0 or min(parts) < 0 or min(sample.steps_s, default=0.0) <= 0:
            raise impossible(where, "got a duration that is not positive")
        if len(sample.steps_s) != found.clip.steps:
            raise impossible(
                where, f"got {len(sample.steps_s)} steps, expected {found.clip.steps} as asked"
            )
        if sum(parts) > 1.01 * sample.wall_s:
            raise impossible(
                where,
                f"got parts of {sum(parts):.4g} s together, expected at most the whole of "
                f"{sample.wall_s:.4g} s",
            )
    return found


def impossible(where: str, problem: str) -> InputError:
    """The error of figures that no device can have measured."""
    return InputError("report.impossible", f"{where}: {problem}", hint="measure again")


def derive_index(index: DeviceIndex) -> dict[str, Any]:
    """A row a measurement, fastest first, grouped by what was drawn."""
    groups: dict[str, dict[str, Any]] = {}
    for source in index.sources:
        found = source.measurement
        key = canonical([dataclasses.asdict(_work(found.clip)), found.bundle.name], "it").decode()
        group = groups.setdefault(
            key, {"bundle": found.bundle.name, "work": work_words(found.clip), "rows": []}
        )
        steady = [s for s in found.samples if s.phase == "steady"]
        chosen = steady or list(found.samples)
        peaks = [s.peak_memory_bytes for s in found.samples if s.peak_memory_bytes is not None]
        group["rows"].append(
            {
                "file": source.file,
                "device": found.device.name,
                "kind": found.device.kind,
                "system": found.device.system,
                "engine": found.software.engine,
                "provider": found.software.provider,
                "precision": found.clip.precision,
                "threads": found.clip.threads,
                "phase": chosen[0].phase,
                "clips": len(chosen),
                "clip_s": statistics.median(s.wall_s for s in chosen),
                "step_s": statistics.median(t for s in chosen for t in s.steps_s),
                "decode_s": statistics.median(s.decode_s for s in chosen),
                "peak_memory_bytes": max(peaks) if peaks else None,
                "latents_sha256": found.latents_sha256,
            }
        )
    for group in groups.values():
        group["rows"].sort(key=lambda row: (row["clip_s"], row["device"], row["file"]))
    return {"groups": sorted(groups.values(), key=lambda g: (g["bundle"], g["work"]))}


DEVICE_INDEX: Kind[DeviceIndex] = Kind(INDEX, DeviceIndex, derive_index)


def merge(documents: Sequence[tuple[str, str, Any]]) -> dict[str, Any]:
    """The raw part of an index out of device measurements, each counted once.

    Args:
        documents: (file name, SHA-256 of the file, parsed document).

    Raises:
        InputError: ``report.invalid``, ``report.impossible``.
    """
    seen: dict[str, Source] = {}
    for name, sha256, value in documents:
        seen.setdefault(sha256, Source(name, sha256, check_measurement(value, name)))
    sources = sorted(seen.values(), key=lambda source: (source.file, source.sha256))
    return dataclasses.asdict(DeviceIndex("hummingbird-device-index/1", tuple(sources)))


def measurements_of(sealed: Sealed[Report]) -> list[dict[str, Any]]:
    """Device measurements out of a report: valid arms of our own runtime that ran whole clips."""
    report, found = sealed.raw, []
    machine = machine_words(report.environment)
    valid = {arm["name"] for arm in sealed.derived["arms"] if arm["valid"]}
    for arm in report.arms:
        work = arm.workload
        if work.kind != "runtime" or work.unet_passes is not None or work.name not in valid:
            continue
        folder = builtin_bundle() if work.bundle is None else Path(work.bundle)
        runs = [s for s in report.samples if s.arm == work.name]
        made = DeviceMeasurement(
            schema="hummingbird-device/1",
            measured_at=report.made.finished,
            device=Device(**machine),
            software=Software(
                "hummingbird bench",
                report.made.version,
                str(arm.identity.get("engine", "")),
                work.provider,
            ),
            bundle=BundleName(str(arm.identity.get("graphs", {}).get("unet", "")), folder.name),
            clip=Clip(
                work.prompt, work.seed, work.frames, work.height, work.width, work.steps,
                work.guidance, "tiny" if work.decoder == "tiny" else "full", work.precision,
                work.threads,
            ),
            samples=tuple(map(_clip_time, runs)),
            latents_sha256=next((s.outputs.get("latents") for s in runs), None),
        )  # fmt: skip
        found.append(dataclasses.asdict(made))
    return found


def _clip_time(sample: Sample) -> ClipTime:
    def of(name: str) -> tuple[float, ...]:
        return tuple(stage.seconds for stage in sample.stages if stage.name == name)

    return ClipTime(
        sample.phase,
        sample.wall_s,
        sum(of("text")),
        of("step"),
        sum(of("decode")),
        sample.peak_rss_bytes,
    )


def machine_words(environment: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of ``Device`` out of a report's environment; what is not told stays open."""
    processor, memory, system = (
        environment.get(name) or {} for name in ("processor", "memory", "system")
    )
    model = str(processor.get("model") or "")
    return {
        "name": model or "this machine",
        "kind": "desktop",
        "system": " ".join(str(system[key]) for key in ("name", "release") if system.get(key)),
        "processor": model,
        "cores": processor.get("usable_cores"),
        "memory_bytes": memory.get("total_bytes"),
    }


def leaves(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every value of a nested object under its dotted name."""
    for key, item in value.items():
        if isinstance(item, Mapping):
            yield from leaves(item, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", item


def work_words(clip: Clip) -> str:
    """What was drawn, as words."""
    return (
        f"{clip.frames} frames of {clip.height} × {clip.width}, {clip.steps} steps, "
        f"{clip.decoder} decoder"
    )


def index_page(sealed: Sealed[DeviceIndex]) -> Page:
    """The page of an index."""
    sections = []
    for i, group in enumerate(sealed.derived["groups"]):
        rows = group["rows"]
        figure = Figure(
            title="Seconds of one clip by device",
            caption="Median of the clips after the first, where there are any.",
            drawing=bars(
                [
                    Bar(f"{row['device']}, {row['precision']}", row["clip_s"],
                        amounts.seconds(row["clip_s"]),
                        note=f"{row['system']}, {_short(row['provider'])}")
                    for row in rows
                ]
            ),
            table=Table(
                group["work"],
                (("device", ""), ("system", "text"), ("engine", "text"), ("precision", ""),
                 ("threads", "n"), ("clip", "n"), ("a step", "n"), ("decoding", "n"),
                 ("peak memory", "n"), ("clips", "n"), ("latents", "")),
                tuple(map(_row, rows)),
            ),
            beside=False,
        )  # fmt: skip
        sections.append(Section(f"work-{i}", f"{group['bundle']}: {group['work']}", "", (figure,)))
    devices = {row["device"] for group in sealed.derived["groups"] for row in group["rows"]}
    return Page(
        title="Hummingbird on many devices",
        subtitle=f"{len(sealed.raw.sources)} measurements of {len(devices)} devices.",
        tiles=(),
        notes=(
            "Each row was measured by its own device, one after the other and unpaired: read it as "
            "what that device takes, not as a comparison of two engines.",
        ),
        sections=tuple(sections),
        footer=f"Raw measurements have SHA-256 {sealed.sha256}. `hummingbird bench verify` "
        "computes every figure here again from them.",
    )


def _row(row: dict[str, Any]) -> tuple[str, ...]:
    peak, threads = row["peak_memory_bytes"], row["threads"]
    return (
        row["device"],
        row["system"],
        f"{row['engine']}, {_short(row['provider'])}",
        row["precision"],
        "engine's choice" if threads is None else str(threads),
        amounts.seconds(row["clip_s"]),
        amounts.seconds(row["step_s"]),
        amounts.seconds(row["decode_s"]),
        "not measured" if peak is None else amounts.storage(peak),
        f"{row['clips']} {row['phase']}",
        (row["latents_sha256"] or "not kept")[:12],
    )


def _short(provider: str) -> str:
    return provider.removesuffix("ExecutionProvider")


def _work(clip: Clip) -> Clip:
    """The clip without what does not change how much there is to do, or what is being compared."""
    return dataclasses.replace(clip, prompt="", seed=0, precision="", threads=None)
