"""The benchmark report: what a run of arms measured, as one JSON document that all pages come from.

``write_report`` checks, derives and seals it, ``render`` writes Markdown and one HTML page beside
it. The published schema is report_schema.json; these dataclasses are what is really checked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from hummingbird_bench.derive import derive
from hummingbird_bench.sample import Sample
from hummingbird_bench.sealed_document import Kind, Sealed, open_sealed, write
from hummingbird_bench.workload import Workload

SCHEMA = "hummingbird-bench/1"


@dataclass(frozen=True)
class Made:
    """How the report came to be."""

    version: str
    """of Hummingbird"""
    command: str
    """the command line"""
    started: str
    """UTC, as 2026-11-23T00:35:00Z"""
    finished: str
    """UTC"""


@dataclass(frozen=True)
class Arm:
    """One thing that was measured; its name is the workload's."""

    workload: Workload
    identity: dict[str, Any]
    """``Identity.to_json``; empty where a program cannot tell, which no ratio is built on"""
    gate: dict[str, Any] | None
    """agreement with the arm's own float32 reference, with a bool ``passed``; None: not gated"""
    invalid: str = ""
    """why the arm may not be compared; empty if it may"""


@dataclass(frozen=True)
class Comparison:
    """Two arms; the ratio is seconds of ``a`` over seconds of ``b``: above 1, ``b`` is faster."""

    row: str
    """heading under which it stands, such as 26 against 26 frames"""
    a: str
    b: str
    treatment: tuple[str, ...]
    """keys of ``certificate.TREATMENTS``; empty for the same work twice, an A/A run"""
    metric: Literal["clip", "pass"]
    """whole clips, or passes of the U-Net"""
    headline: bool = False
    """whether it is one of the figures at the head of the page"""


@dataclass(frozen=True)
class WaterfallStep:
    """A clip put together from measured parts of arms; each step changes one thing."""

    name: str
    """start, passes, pruning, engine, precision, decoder, or what else was changed"""
    label: str
    """the change as words, such as 100 passes to 4"""
    text: str
    """arm whose seconds of text encoding count"""
    unet: str
    """arm whose seconds a pass count"""
    passes: int
    """how many passes"""
    decoder: str
    """arm whose seconds of decoding and of everything else count"""


@dataclass(frozen=True)
class Waterfall:
    """Where a ratio comes from; the first step is arm ``a``, the last arm ``b``."""

    title: str
    a: str
    b: str
    steps: tuple[WaterfallStep, ...]


@dataclass(frozen=True)
class Validation:
    """An extrapolation held against a complete run."""

    arm: str
    predicted_s: float
    """seconds of a clip as extrapolated from some passes"""
    measured_s: float
    """seconds of the whole clip"""


@dataclass(frozen=True)
class Report:
    """The raw part of a report."""

    schema: Literal["hummingbird-bench/1"]
    title: str
    scale: Literal["tiny", "full"]
    """published sizes, or small ones that show the method"""
    made: Made
    environment: dict[str, Any]
    """processor, memory, versions, load; as ``environment`` collects it"""
    arms: tuple[Arm, ...]
    samples: tuple[Sample, ...]
    """every run, in the order in which it finished; none is ever left out"""
    comparisons: tuple[Comparison, ...]
    waterfalls: tuple[Waterfall, ...] = ()
    validations: tuple[Validation, ...] = ()
    stop_rule: str = ""
    """when a comparison had enough pairs, as it was fixed before the first of them ran"""
    notes: tuple[str, ...] = ()
    """what must be read with the figures, such as that weights are random"""


REPORT: Kind[Report] = Kind(SCHEMA, Report, derive)


def write_report(raw: Mapping[str, Any], path: Path, *, overwrite: bool = False) -> None:
    """Check, derive, seal and write a report as JSON.

    Args:
        raw: the fields of ``Report`` as JSON values, or ``dataclasses.asdict`` of one.
        path: the .json file.
        overwrite: whether an existing file may be replaced.

    Raises:
        InputError: ``report.invalid``; ``report.no_samples``, ``report.unknown_arm``.
        UsageError, ResourceError: ``output.*``.
    """
    write(REPORT, raw, path, overwrite=overwrite)


def open_report(path: Path) -> Sealed[Report]:
    """Read a report, check its schema and hashes and derive every figure again.

    Raises:
        InputError, IntegrityError, UsageError, ResourceError: as ``open_sealed``.
    """
    return open_sealed(path, {SCHEMA: REPORT})
