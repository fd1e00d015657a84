"""Probes: what a graph gave at export for inputs that any machine can make again.

A bundle may hold ``probes/<role>.json`` and beside it one ``.npy`` file a case. Inputs come from
the specified noise (noise.py) by seed, so only the reference's output is stored: up to ``SAMPLES``
evenly spaced elements of it, and the norm of all. The reference is the torch module, in float32.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hummingbird_runtime.bundle import Bundle
from hummingbird_runtime.bundle_files import read_small
from hummingbird_runtime.guidance import guidance_embedding
from hummingbird_runtime.noise import SEED_LIMIT, uniforms
from hummingbird_runtime.normal import normal_quantile
from hummingbird_runtime.strict_json import MAX_BYTES, fail, parse_json, record

FOLDER = "probes"
SAMPLES = 1 << 14
MAX_CASES = 16
MAX_ELEMENTS = 1 << 26
Feeds = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class ProbeInput:
    """How one input is made; exactly one of the four ways is set."""

    shape: tuple[int, ...]
    normal: float | None = None
    """float32: standard normal noise times this."""
    guidance: float | None = None
    """float32 [1, W]: the embedding of this guidance scale."""
    constant: int | None = None
    """int64: the same number everywhere."""
    below: int | None = None
    """int64: uniform in 0..below-1."""

    def __post_init__(self) -> None:
        ways = (self.normal, self.guidance, self.constant, self.below)
        if sum(way is not None for way in ways) != 1:
            fail("probe input", f"got {ways}, expected one of normal, guidance, constant, below")
        if min(self.shape, default=1) < 1 or math.prod(self.shape) > MAX_ELEMENTS:
            fail("probe input", f"got shape {list(self.shape)!r:.60}, expected sizes above 0")
        if self.below is not None and self.below < 1:
            fail("probe input", f"got below {self.below}, expected 1 or more")
        embeds = self.guidance is not None
        if embeds and (len(self.shape) != 2 or self.shape[0] != 1 or self.shape[1] % 2):
            fail("probe input", f"got guidance of shape {list(self.shape)}, expected [1, even]")


@dataclass(frozen=True)
class Probe:
    """One case of one graph."""

    case: str
    """Its sizes, for people: ``4x16x16``."""
    seed: int
    inputs: dict[str, ProbeInput]
    shape: tuple[int, ...]
    """Of the output."""
    stride: int
    """Every stride-th element of the flat output is stored."""
    norm: float
    """Square root of the sum of squares of the whole output."""
    relative_l2: float
    """The gate: largest allowed ||graph - reference|| / ||reference||."""

    def __post_init__(self) -> None:
        if not 0 <= self.seed < SEED_LIMIT or min(self.relative_l2, self.norm) <= 0:
            fail(f"probe {self.case}", "got a seed, gate or norm out of range")
        count = math.prod(self.shape)
        if not 0 < count <= MAX_ELEMENTS or not count <= self.stride * SAMPLES < 2**40:
            fail(f"probe {self.case}", f"got shape {list(self.shape)!r:.60}, stride {self.stride}")

    @property
    def stored(self) -> int:
        """How many elements of the output are stored."""
        return -(-math.prod(self.shape) // self.stride)


@dataclass(frozen=True)
class _ProbeFile:
    cases: tuple[Probe, ...]


def probe_feeds(inputs: Mapping[str, ProbeInput], seed: int) -> Feeds:
    """The arrays of a case; input number i in the order of names takes stream i of the seed."""
    return {name: _array(inputs[name], seed, i) for i, name in enumerate(sorted(inputs))}


def write_probe(
    folder: Path,
    role: str,
    case: str,
    output: NDArray[np.float32],
    *,
    inputs: Mapping[str, ProbeInput],
    seed: int,
    relative_l2: float,
) -> None:
    """Add a case to the probes of a graph, in a bundle folder that is not sealed yet.

    Args:
        folder: the bundle's folder.
        role: the graph.
        case: its sizes, for people.
        output: what the reference gave for ``probe_feeds(inputs, seed)``; finite, not all 0.
        inputs: how the inputs were made.
        seed: 0..2^64-1.
        relative_l2: the gate, such as 1e-4 for float32 or 10 ** (-snr_db / 20).
    """
    path = folder / FOLDER / f"{role}.json"
    path.parent.mkdir(exist_ok=True)
    known = _parse(path.read_bytes(), path.name) if path.exists() else ()
    flat = np.ascontiguousarray(output, np.float32).ravel()
    stride = _stride(flat.size, output.shape[-1])
    norm = float(np.linalg.norm(flat.astype(np.float64)))
    added = Probe(case, seed, dict(inputs), output.shape, stride, norm, relative_l2)
    (path.parent / f"{role}.{len(known)}.npy").write_bytes(_npy(flat[::stride]))
    cases = [asdict(probe) for probe in (*known, added)]
    text = json.dumps({"cases": cases}, indent=1, sort_keys=True, allow_nan=False)
    path.write_bytes(text.encode() + b"\n")


def read_probes(bundle: Bundle, role: str) -> list[tuple[Probe, NDArray[np.float32]]]:
    """The cases of a graph with the stored elements; none where the bundle has no probes.

    Raises:
        InputError: ``bundle.manifest_invalid`` for files that are not of this form.
        IntegrityError: ``bundle.changed``.
    """
    name = f"{FOLDER}/{role}.json"
    if name not in bundle.manifest.files:
        return []
    folder = bundle.folder(FOLDER)
    probes = _parse(read_small(folder / f"{role}.json", MAX_BYTES + 1), name)
    found = []
    for i, probe in enumerate(probes):
        array = f"{FOLDER}/{role}.{i}.npy"
        if array not in bundle.manifest.files:
            fail(array, "is not in the bundle, expected one array a case")
        # the header depends on the size alone, so no header needs to be read
        frame = _npy(np.zeros(probe.stored, np.float32))
        data = read_small(bundle.root / array, len(frame) + 1)
        start = len(frame) - 4 * probe.stored
        if len(data) != len(frame) or data[:start] != frame[:start]:
            fail(array, f"got another array, expected {probe.stored} float32 numbers")
        found.append((probe, np.frombuffer(data, "<f4", offset=start)))
    return found


def _parse(data: bytes, name: str) -> tuple[Probe, ...]:
    cases = record(_ProbeFile, parse_json(data, what=name), name).cases
    if len(cases) > MAX_CASES:
        fail(name, f"got {len(cases)} cases, expected at most {MAX_CASES}")
    return cases


def _array(spec: ProbeInput, seed: int, stream: int) -> NDArray[Any]:
    if spec.constant is not None:
        return np.full(spec.shape, spec.constant, np.int64)
    if spec.guidance is not None:
        return guidance_embedding(spec.guidance, spec.shape[1])
    u = uniforms(seed, stream, 0, math.prod(spec.shape))
    if spec.below is not None:
        return (u * spec.below).astype(np.int64).reshape(spec.shape)
    scaled = normal_quantile(u) * (spec.normal or 0.0)
    return scaled.astype(np.float32).reshape(spec.shape)


def _stride(size: int, last: int) -> int:
    """The smallest stride that keeps ``SAMPLES`` or fewer and walks over every column."""
    stride = -(-size // SAMPLES)
    while math.gcd(stride, last) != 1:
        stride += 1
    return stride


def _npy(array: NDArray[np.float32]) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, array.astype("<f4"), version=(1, 0))
    return file.getvalue()
