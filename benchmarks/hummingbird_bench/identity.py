"""What an arm really computes, as its child process found it: the raw material of a certificate.

Nothing here repeats what was asked: precision, model and fingerprints come from the verified bundle
or from the arm's own networks, noise and prompt are hashed. Comparing is in ``certificate``.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from hummingbird_bench.flops import ClipWork, decoder_flops, text_flops, unet_flops
from hummingbird_bench.workload import Workload
from hummingbird_runtime.bundle import Bundle
from hummingbird_runtime.errors import InputError
from hummingbird_runtime.manifest import DECODERS
from hummingbird_runtime.noise import noise

LAYOUTS = {
    (2, True): "VideoCrafter2",
    (1, True): "Hummingbird 0.9B",
    (1, False): "Hummingbird 0.7B",
}
"""Residual blocks per level, middle block -> the published U-Net with that layout."""


@dataclass(frozen=True)
class Identity:
    """Facts of one arm; two arms with equal ones did the same work in the same way."""

    height: int
    """Pixels."""
    width: int
    """Pixels."""
    frames: int
    """Frames of the clip."""
    prompt_sha256: str
    """Of the prompt's UTF-8 text."""
    noise_sha256: str
    """Of the initial latent, float32 little-endian."""
    threads: int
    """Threads of one run."""
    device: str
    """cpu, gpu or npu."""
    model: str
    """Layout and width of the U-Net."""
    sampler: str
    """lcm or ddim."""
    eta: float
    """Share of fresh noise in a DDIM step."""
    steps: int
    """Steps of the solver."""
    passes: int
    """Evaluations of the U-Net in one clip."""
    guidance: float | None
    """Guidance scale."""
    engine: str
    """Program and version that runs the networks."""
    provider: str
    """Execution provider, or the engine's own name of its device."""
    graphs: Mapping[str, str]
    """Network -> fingerprint of its file and weights."""
    precision: Mapping[str, str]
    """Network -> number format."""
    decoder: str
    """full or tiny."""
    weights: str
    """trained or random."""
    decoder_weights: str
    """trained or random."""
    flops: Mapping[str, int]
    """``ClipWork.to_json``; of the computation asked for, the same for every form of it."""

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, value: object) -> Identity:
        """What a child process told of itself.

        Raises:
            InputError: ``bench.identity``.
        """
        wanted = {field.name for field in dataclasses.fields(cls)}
        got = set(value) if isinstance(value, Mapping) else set()
        if got != wanted or not isinstance(value, Mapping):
            raise InputError(
                "bench.identity",
                f"identity of an arm: missing {sorted(wanted - got)}, unknown "
                f"{sorted(got - wanted)}, expected every field once",
                hint="the arm's program is of another version",
            )
        return cls(**value)


def layout_name(config: Mapping[str, Any]) -> str:
    """A U-Net by its layout, widths and guidance embedding."""
    key = int(config["num_res_blocks"]), bool(config["middle_block"])
    levels = "-".join(str(int(config["model_channels"]) * int(m)) for m in config["channel_mult"])
    return f"{LAYOUTS.get(key, f'{key[0]} blocks a level')}, widths {levels}"


def text_sha256(text: str) -> str:
    """Hash of a prompt."""
    return hashlib.sha256(text.encode()).hexdigest()


def noise_sha256(seed: int, *sizes: int) -> str:
    """Hash of stream 0 of a seed's noise, sizes F, C, h, w."""
    return hashlib.sha256(noise(seed, 0, *sizes).astype("<f4").tobytes()).hexdigest()


def clip_work(
    unet: Mapping[str, Any],
    decoder: Mapping[str, Any],
    text: Mapping[str, Any],
    work: Workload,
    cell: int,
) -> ClipWork:
    """FLOPs of the clip that a workload asks for.

    Args:
        unet: configuration of the U-Net.
        decoder: of the decoder that is used.
        text: of the text encoder.
        work: sizes, steps and passes.
        cell: pixels per latent cell along one side.
    """
    height, width = work.height // cell, work.width // cell
    return ClipWork(
        text=text_flops(text),
        texts=work.passes_per_step,
        unet_pass=unet_flops(
            unet, frames=work.frames, height=height, width=width, tokens=int(text["max_length"])
        ),
        passes=work.steps * work.passes_per_step,
        decoded_frame=decoder_flops(decoder, height=height, width=width),
        frames=work.frames,
    )


def bundle_identity(work: Workload, bundle: Bundle, *, engine: str, device: str) -> Identity:
    """Identity of an arm whose networks are the graphs of a bundle.

    Args:
        work: what was asked.
        bundle: verified.
        engine: program and version that runs the graphs.
        device: cpu, gpu or npu.

    Raises:
        InputError: ``bench.precision`` when the bundle's U-Net has another precision than asked,
            ``bench.guidance`` when it is guided in another way, ``bench.model_config``,
            ``bundle.no_such_graph``.
    """
    manifest, facts = bundle.manifest, bundle.manifest.model
    roles = {"text": "text_encoder", "unet": "unet", "decoder": DECODERS[work.decoder]}
    graphs = {name: bundle.graph(role) for name, role in roles.items()}
    if graphs["unet"].precision != work.precision:
        raise InputError(
            "bench.precision",
            f"arm {work.name}: got a bundle whose U-Net is {graphs['unet'].precision}, "
            f"expected {work.precision}",
            hint="correct the workload's precision or choose another bundle",
        )
    passes = 2 if facts.guidance.kind == "cfg" else 1
    if passes != work.passes_per_step:
        raise InputError(
            "bench.guidance",
            f"arm {work.name}: got passes_per_step {work.passes_per_step}, expected {passes} of a "
            f"bundle whose guidance is {facts.guidance.kind}",
            hint="correct the workload's passes_per_step",
        )
    unet, decoder, text = (read_config(bundle, roles[name]) for name in ("unet", "decoder", "text"))
    cell = facts.vae_scale_factor
    sizes = work.frames, facts.latent_channels, work.height // cell, work.width // cell
    weights = str(manifest.provenance.get("weights", ""))
    kind = "random" if weights.startswith("random") else "trained"
    own = str(manifest.provenance.get("decoder_weights", weights))
    return Identity(
        height=work.height,
        width=work.width,
        frames=work.frames,
        prompt_sha256=text_sha256(work.prompt),
        noise_sha256=noise_sha256(work.seed, *sizes),
        threads=work.threads,
        device=device,
        model=layout_name(unet),
        sampler=bundle.scheduler.sampler,
        eta=bundle.scheduler.eta,
        steps=work.steps,
        passes=work.steps * passes,
        guidance=facts.guidance.default if work.guidance is None else work.guidance,
        engine=engine,
        provider=work.provider,
        graphs={name: fingerprint(bundle, role) for name, role in roles.items()},
        precision={name: graph.precision for name, graph in graphs.items()},
        decoder=work.decoder,
        weights=kind,
        decoder_weights="random" if own.startswith("random") else "trained",
        flops=clip_work(unet, decoder, text, work, cell).to_json(),
    )


def runtime_identity(work: Workload, bundle: Bundle) -> Identity:
    """Identity of an arm run by our own runtime; errors as ``bundle_identity``."""
    try:
        engine = f"hummingbird {version('hummingbird-edge')}, onnxruntime {version('onnxruntime')}"
    except PackageNotFoundError:  # onnxruntime has several distributions of one module
        engine = "hummingbird, onnxruntime"
    device = "cpu" if work.provider == "CPUExecutionProvider" else "gpu"
    return bundle_identity(work, bundle, engine=engine, device=device)


def fingerprint(bundle: Bundle, role: str) -> str:
    """SHA-256 over names and hashes of a graph's files, from the verified manifest."""
    prefix = bundle.graph(role).path.rpartition("/")[0] + "/"
    files = sorted(
        (name, entry.sha256)
        for name, entry in bundle.manifest.files.items()
        if name.startswith(prefix) and not name.endswith("config.json")
    )
    return hashlib.sha256(json.dumps(files).encode()).hexdigest()


def read_config(bundle: Bundle, role: str) -> dict[str, Any]:
    """Configuration of a network, as it stands beside its graph.

    Raises:
        InputError: ``bench.model_config`` when the bundle has none.
    """
    name = f"{role}/config.json"
    if name not in bundle.manifest.files:
        raise InputError(
            "bench.model_config",
            f"bundle {bundle.manifest.name}: got no {name}, expected the network's configuration",
            hint="use a bundle that `hummingbird export` wrote",
        )
    bundle.check_unchanged(name)
    found: dict[str, Any] = json.loads(Path(bundle.root, name).read_text("utf-8"))
    return found
