"""The same-work certificate: in what two arms differ, and whether they were allowed to.

A treatment is what a comparison is about (fewer steps, another engine); it is declared beforehand.
Everything else is a control and must be equal. No ratio is called a speed-up without a certificate.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from hummingbird_bench.identity import Identity
from hummingbird_runtime.errors import InputError, UsageError

TREATMENTS = {
    "steps": "fewer or other steps of the solver: sampler, steps, guidance, passes",
    "model": "another U-Net, such as a pruned one",
    "engine": "another program, form or graph of the same computation",
    "precision": "another number format",
    "decoder": "another decoder from latents to pixels",
}
"""What may be declared, with what it covers."""

CONTROLS = (
    "height",
    "width",
    "frames",
    "prompt_sha256",
    "noise_sha256",
    "threads",
    "device",
)
"""What no comparison may change."""

_EXPLAINED_BY: Mapping[str, tuple[str, ...]] = {
    "sampler": ("steps",),
    "eta": ("steps",),
    "steps": ("steps",),
    "passes": ("steps",),
    "guidance": ("steps",),
    "model": ("model",),
    "weights": ("model",),
    "engine": ("engine",),
    "provider": ("engine",),
    "decoder": ("decoder",),
    "decoder_weights": ("decoder", "model"),
    "graphs.text": ("model", "engine", "precision"),
    "graphs.unet": ("model", "engine", "precision"),
    "graphs.decoder": ("decoder", "engine", "precision", "model"),
    "precision.text": ("precision",),
    "precision.unet": ("precision",),
    "precision.decoder": ("precision", "decoder"),
    "flops.text": ("model",),
    "flops.texts": ("steps",),
    "flops.unet_pass": ("model",),
    "flops.passes": ("steps",),
    "flops.decoded_frame": ("decoder",),
    "flops.frames": (),
}
"""Fact -> treatments that explain a difference in it, the best explanation first.

Fingerprints of the text encoder and decoder may differ with the model: another model of the same
layout has weights of its own there, while the counted work must still be equal."""


@dataclass(frozen=True)
class Difference:
    """One fact in which two arms differ."""

    axis: str
    """The treatment that explains it, or the fact's own name where none does."""
    field: str
    """The fact."""
    a: Any
    b: Any


@dataclass(frozen=True)
class Certificate:
    """What a comparison rests on."""

    treatment: tuple[str, ...]
    """As declared."""
    differs: tuple[Difference, ...]
    """Within the treatment."""
    refused: tuple[Difference, ...]
    """Outside of it: with one of these the arms may not be compared."""
    work_ratio: float
    """Counted FLOPs of a clip of ``a`` over those of ``b``."""

    @property
    def valid(self) -> bool:
        """Whether every difference was declared."""
        return not self.refused

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return dataclasses.asdict(self)


def compare(a: Identity, b: Identity, treatment: Collection[str]) -> Certificate:
    """List the differences of two arms.

    Args:
        a: the slower arm, by convention.
        b: the other one.
        treatment: keys of ``TREATMENTS``; empty for the same work twice.

    Raises:
        UsageError: ``bench.treatment`` for a word that is none.
    """
    unknown = sorted(set(treatment) - set(TREATMENTS))
    if unknown:
        raise UsageError(
            "bench.treatment",
            f"treatment of a comparison: got {', '.join(unknown)}, "
            f"expected out of {', '.join(TREATMENTS)}",
            hint="sizes, prompt, noise, threads and device are controls and stay equal",
        )
    differs: list[Difference] = []
    refused: list[Difference] = []
    for name, one, other in _facts(a, b):
        if one == other:
            continue
        explained = [axis for axis in _EXPLAINED_BY.get(name, ()) if axis in treatment]
        found = Difference(explained[0] if explained else name, name, one, other)
        (differs if explained else refused).append(found)
    ratio = a.flops["total"] / b.flops["total"]
    return Certificate(tuple(sorted(treatment)), tuple(differs), tuple(refused), ratio)


def certify(a: Identity, b: Identity, treatment: Collection[str]) -> Certificate:
    """``compare``, and refuse arms that differ in more than the treatment.

    Raises:
        InputError: ``bench.unlike_work`` naming every difference that was not declared.
        UsageError: ``bench.treatment``.
    """
    found = compare(a, b, treatment)
    if found.refused:
        listed = "; ".join(f"{d.field}: {d.a!r:.60} and {d.b!r:.60}" for d in found.refused)
        declared = ", ".join(found.treatment) or "nothing"
        raise InputError(
            "bench.unlike_work",
            f"two arms: got differences in {listed}; declared was {declared}",
            hint="make the arms equal there, or declare the axis if the comparison is about it",
        )
    return found


def _facts(a: Identity, b: Identity) -> Iterator[tuple[str, Any, Any]]:
    """Every fact of two arms; of tables each entry, the totals left out as they follow."""
    for field in dataclasses.fields(Identity):
        one, other = getattr(a, field.name), getattr(b, field.name)
        if not isinstance(one, Mapping):
            yield field.name, one, other
            continue
        for key in sorted({*one, *other} - {"total"}):
            yield f"{field.name}.{key}", one.get(key), other.get(key)
