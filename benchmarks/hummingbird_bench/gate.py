"""Is what an arm computes what it should: its networks against torch in float32.

A bundle carries what the torch networks that it came from gave, in float32, at latents of 8 x 24 x
32 (its probes). The arm's own engine runs these cases again; signal to noise and cosine are taken
over the stored elements. An arm that misses its gate is INVALID, however fast it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hummingbird_runtime.bundle import Bundle
from hummingbird_runtime.errors import InputError
from hummingbird_runtime.manifest import DECODERS
from hummingbird_runtime.probes import read_probes

EXACT_DB = 200.0
"""Stands for equal bits."""

LEAST_DB = {
    "fp32": 60.0,
    "fp16-storage": 50.0,
    "int8": 15.0,
    "int8-dynamic": 15.0,
    "w8": 15.0,
    "mixed": 13.0,
    "w4": 8.0,
}
"""Signal to noise that one pass of a U-Net must reach. Correct float32 graphs measure 110 dB. Below
float32 it is what the exporter asks of the final latents of the worst of eight clips.
"""

Run = Callable[[str, Mapping[str, NDArray[Any]]], NDArray[np.float32]]
"""(role, feeds) -> the graph's output by the arm's engine."""


@dataclass(frozen=True)
class Gate:
    """Verdict over one arm."""

    snr_db: float
    """Of the U-Net: 20 log10(||reference|| / ||arm - reference||)."""
    cosine: float
    """Of the U-Net."""
    passed: bool
    case: str
    """Sizes of the U-Net's latents: frames x rows x columns."""
    reference: str
    """What it was held against."""
    graphs: Mapping[str, float] = field(default_factory=dict)
    """Signal to noise of the other networks, dB; shown, not gated."""
    quality: Mapping[str, float] = field(default_factory=dict)
    """Of quantized graphs: what the exporter measured on whole clips, the U-Net on final latents
    (``snr_db_*``, ``cosine``), the decoder on frames (``psnr_db_*``, ``colour_shift``)."""

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


def agreement(got: NDArray[np.float32], want: NDArray[np.float32]) -> tuple[float, float]:
    """Signal to noise in dB, ``EXACT_DB`` for equal bits, and cosine of two arrays of one shape."""
    a, b = got.astype(np.float64).ravel(), want.astype(np.float64).ravel()
    error, size = float(np.linalg.norm(a - b)), float(np.linalg.norm(b))
    if not math.isfinite(error):
        return -EXACT_DB, 0.0
    decibels = 20 * math.log10(size / error) if error else EXACT_DB
    return min(decibels, EXACT_DB), float(a @ b) / ((float(np.linalg.norm(a)) or 1.0) * size)


def judge(snr_db: float, precision: str) -> bool:
    """Whether a U-Net of a precision may be compared with others."""
    return snr_db >= LEAST_DB.get(precision, max(LEAST_DB.values()))


def probe_gate(bundle: Bundle, run: Run, *, decoder: str) -> Gate:
    """Gate an arm by the probes of its bundle.

    Args:
        bundle: verified.
        run: the arm's engine.
        decoder: full or tiny: which decoder is looked at beside the U-Net.

    Raises:
        InputError: ``bench.no_reference`` when the bundle has no probes of its U-Net.
    """
    figures = {}
    for role in ("unet", "text_encoder", DECODERS[decoder]):
        probes = read_probes(bundle, role)
        if not probes:
            continue
        largest = max(probes, key=lambda one: math.prod(one.probe.shape))
        probe, output = largest.probe, run(role, largest.feeds())
        if output.shape == probe.shape:
            picked = np.ascontiguousarray(output).ravel()[:: probe.stride]
            figures[role] = (*agreement(picked, largest.reference), probe.case)
        else:
            figures[role] = (-EXACT_DB, 0.0, probe.case)
    if "unet" not in figures:
        raise InputError(
            "bench.no_reference",
            f"bundle {bundle.manifest.name}: got no probe of its U-Net, expected what torch gave",
            hint="export the bundle again, this version of the exporter stores it",
        )
    snr_db, cosine, case = figures.pop("unet")
    unet, drawn = bundle.graph("unet"), bundle.graph(DECODERS[decoder])
    return Gate(
        snr_db=snr_db,
        cosine=cosine,
        passed=judge(snr_db, unet.precision),
        case=case,
        reference="torch fp32, stored in the bundle at export",
        graphs={role: db for role, (db, _, _) in figures.items()},
        quality={**unet.quality, **drawn.quality},
    )


def form_gate(told: Mapping[str, Any]) -> Gate:
    """Gate of a torch arm, out of what its program told: its form against the fair one.

    Args:
        told: ``snr_db``, ``cosine``, ``case`` of the arm's program.
    """
    snr_db, cosine = float(told["snr_db"]), float(told["cosine"])
    return Gate(
        snr_db=snr_db,
        cosine=cosine,
        passed=judge(snr_db, "fp32"),
        case=str(told["case"]),
        reference="torch fp32 eager, in the same process",
    )
