"""A bundle as a benchmark's plan sees it: recipe, sizes, precision and configurations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hummingbird_bench.identity import read_config
from hummingbird_runtime.bundle import Bundle
from hummingbird_runtime.manifest import DECODERS


@dataclass(frozen=True)
class Source:
    """One bundle as a plan sees it."""

    path: str
    precision: str
    """Of its U-Net."""
    decoders: tuple[str, ...]
    """full, tiny."""
    guidance: float
    passes_per_step: int
    steps: int
    sampler: str
    eta: float
    random: bool
    """Whether its weights are random."""
    size_bytes: int
    unet: dict[str, Any]
    """Configuration."""
    text: dict[str, Any]
    decoder: dict[str, dict[str, Any]]
    """By full, tiny."""
    cell: int
    """Pixels per latent cell along one side."""
    sizes: tuple[int, int]
    """Height and width that it was trained for."""

    @classmethod
    def read(cls, path: str) -> Source:
        """Verify a bundle and take from it what a plan needs.

        Raises:
            InputError, IntegrityError, ResourceError: ``bundle.*``; ``bench.model_config``.
        """
        bundle = Bundle.open(path)
        facts, graphs = bundle.manifest.model, bundle.manifest.graphs
        decoders = tuple(name for name, role in DECODERS.items() if role in graphs)
        return cls(
            path=str(bundle.root),
            precision=bundle.graph("unet").precision,
            decoders=decoders,
            guidance=facts.guidance.default,
            passes_per_step=2 if facts.guidance.kind == "cfg" else 1,
            steps=facts.num_inference_steps.default,
            sampler=bundle.scheduler.sampler,
            eta=bundle.scheduler.eta,
            random=str(bundle.manifest.provenance.get("weights", "")).startswith("random"),
            size_bytes=sum(entry.bytes for entry in bundle.manifest.files.values()),
            unet=read_config(bundle, "unet"),
            text=read_config(bundle, "text_encoder"),
            decoder={name: read_config(bundle, DECODERS[name]) for name in decoders},
            cell=facts.vae_scale_factor,
            sizes=(facts.height.default, facts.width.default),
        )
