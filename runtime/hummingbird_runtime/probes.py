"""Probes: what a graph gave at export for inputs that any machine can make again.

A bundle may hold ``probes/<role>.json`` and beside it one ``.npy`` file a case. Inputs come from
the specified noise (noise.py) by seed, or from an array beside: a prompt's embedding. Of the
reference's output up to ``SAMPLES`` evenly spaced elements are stored, and the norm of all. The
reference is the torch module, in float32.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from hummingbird_runtime.bundle import Bundle
from hummingbird_runtime.bundle_files import read_small
from hummingbird_runtime.noise import SEED_LIMIT
from hummingbird_runtime.probe_inputs import MAX_ELEMENTS, Feeds, ProbeInput, probe_feeds
from hummingbird_runtime.strict_json import MAX_BYTES, fail, parse_json, record

FOLDER = "probes"
SAMPLES = 1 << 14
MAX_CASES = 16


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
class StoredProbe:
    """A case with the arrays that lie beside it."""

    probe: Probe
    reference: NDArray[np.float32]
    """The stored elements of the output."""
    arrays: dict[str, NDArray[np.float32]]
    """Inputs that are no noise, by name."""

    def feeds(self) -> Feeds:
        """The inputs."""
        return probe_feeds(self.probe.inputs, self.probe.seed, self.arrays)


@dataclass(frozen=True)
class _ProbeFile:
    cases: tuple[Probe, ...]


def write_probe(
    folder: Path,
    role: str,
    case: str,
    output: NDArray[np.float32],
    *,
    inputs: Mapping[str, ProbeInput],
    seed: int,
    relative_l2: float,
    arrays: Mapping[str, NDArray[np.float32]] = MappingProxyType({}),
) -> None:
    """Add a case to the probes of a graph, in a bundle folder that is not sealed yet.

    Args:
        folder: the bundle's folder.
        role: the graph.
        case: its sizes, for people.
        output: what the reference gave for ``probe_feeds(inputs, seed, arrays)``; finite, not all
            0.
        inputs: how the inputs were made.
        seed: 0..2^64-1.
        relative_l2: the gate, such as 1e-4 for float32 or 10 ** (-snr_db / 20).
        arrays: inputs that are stored, by name.
    """
    path = folder / FOLDER / f"{role}.json"
    if not path.parent.is_dir():
        path.parent.mkdir()
    known = _parse(path.read_bytes(), path.name) if path.exists() else ()
    flat = np.ascontiguousarray(output, np.float32).ravel()
    stride = _stride(flat.size, output.shape[-1])
    norm = float(np.linalg.norm(flat.astype(np.float64)))
    added = Probe(case, seed, dict(inputs), output.shape, stride, norm, relative_l2)
    (path.parent / f"{role}.{len(known)}.npy").write_bytes(_npy(flat[::stride]))
    for name, spec in inputs.items():
        if spec.stored:
            file = path.parent / f"{role}.{len(known)}.{name}.npy"
            file.write_bytes(_npy(arrays[name].ravel()))
    cases = [asdict(probe) for probe in (*known, added)]
    text = json.dumps({"cases": cases}, indent=1, sort_keys=True, allow_nan=False)
    path.write_bytes(text.encode() + b"\n")


def read_probes(bundle: Bundle, role: str) -> list[StoredProbe]:
    """The cases of a graph; none where the bundle has no probes.

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
        arrays = {
            name: _read_array(bundle, f"{role}.{i}.{name}.npy", math.prod(spec.shape))
            for name, spec in probe.inputs.items()
            if spec.stored
        }
        reference = _read_array(bundle, f"{role}.{i}.npy", probe.stored)
        found.append(StoredProbe(probe, reference, arrays))
    return found


def _read_array(bundle: Bundle, file: str, count: int) -> NDArray[np.float32]:
    """A flat float32 array; its header depends on the size alone, so none needs to be read."""
    path = f"{FOLDER}/{file}"
    if path not in bundle.manifest.files:
        fail(path, "is not in the bundle, expected the arrays of every case")
    frame = _npy(np.zeros(count, np.float32))
    data = read_small(bundle.root / path, len(frame) + 1)
    start = len(frame) - 4 * count
    if len(data) != len(frame) or data[:start] != frame[:start]:
        fail(path, f"got another array, expected {count} float32 numbers")
    return np.frombuffer(data, "<f4", offset=start)


def _parse(data: bytes, name: str) -> tuple[Probe, ...]:
    cases = record(_ProbeFile, parse_json(data, what=name), name).cases
    if len(cases) > MAX_CASES:
        fail(name, f"got {len(cases)} cases, expected at most {MAX_CASES}")
    return cases


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
