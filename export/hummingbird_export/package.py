"""Three networks, a tokenizer and a schedule to one bundle folder, whole or not at all.

The folder is written under a temporary name, read back through the runtime's own checks, synced and
renamed. What stands in the manifest was measured on the files it lists.
"""

from __future__ import annotations

import json
import platform
import shutil
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import MappingProxyType
from typing import Any

from hummingbird_export.compile import Job, count_operators
from hummingbird_export.facts import (
    FixedSizes,
    check_facts,
    check_frame_networks,
    latent_size,
    narrow,
)
from hummingbird_export.measure import measure_graphs
from hummingbird_export.model_card import model_card
from hummingbird_export.networks import Network, Subject, compile_networks
from hummingbird_export.precision import precision_plan
from hummingbird_export.simplify import Simplifier
from hummingbird_export.targets import find_target
from hummingbird_runtime import __version__
from hummingbird_runtime.atomic import atomic_folder
from hummingbird_runtime.bundle import Bundle
from hummingbird_runtime.errors import InputError, UsageError
from hummingbird_runtime.integrity import file_entries, seal
from hummingbird_runtime.manifest import MANIFEST, Licence, Manifest, ModelFacts, Precision
from hummingbird_runtime.schedule import SchedulerConfig
from hummingbird_runtime.tokenizer import Tokenizer, read_vocabulary
from hummingbird_train.models.autoencoder import AutoencoderKL
from hummingbird_train.models.text_encoder import TextEncoder
from hummingbird_train.models.tiny_decoder import TinyDecoder
from hummingbird_train.models.unet import VideoUNet
from hummingbird_train.models.upscaler import Upscaler

TOKENIZER_FILES = ("vocab.json", "merges.txt", "tokenizer_config.json")
LICENCE_FILE = "LICENSE"


@dataclass(frozen=True)
class WeightsLicence:
    """Terms of the weights; a bundle without them cannot be written."""

    name: str
    """SPDX identifier, or the name that the publisher uses."""
    text: str
    """The whole text, copied into the bundle."""


def export_bundle(
    out: Path,
    *,
    unet: VideoUNet,
    vae: AutoencoderKL,
    text_encoder: TextEncoder,
    tokenizer_folder: Path,
    scheduler: SchedulerConfig,
    facts: ModelFacts,
    name: str,
    licence: WeightsLicence,
    target: str = "portable",
    precision: Precision | None = None,
    other_precisions: Mapping[str, Precision] = MappingProxyType({}),
    sizes: FixedSizes | None = None,
    tiny_decoder: TinyDecoder | None = None,
    upscaler: Upscaler | None = None,
    vae_encoder: bool = False,
    force_quality: bool = False,
    provenance: Mapping[str, Any] | None = None,
    bundle_id: str | None = None,
    overwrite: bool = False,
    note: Callable[[str], None] = lambda text: None,
) -> Path:
    """Export a model to a bundle folder.

    Args:
        out: the folder to make; its parent exists.
        unet: network in float32; left unchanged, as are the other two.
        vae: autoencoder; its decoder is exported, its encoder on demand.
        text_encoder: text tower.
        tokenizer_folder: holds vocab.json, merges.txt and tokenizer_config.json.
        scheduler: sampler and noise schedule.
        facts: what a caller may ask of the model; narrowed to what the target's graphs take.
        name: short name for people.
        licence: terms of the weights.
        target: name of the machine's kind, see ``targets.TARGETS``.
        precision: of the U-Net, with what fits it for the other graphs (``precision.PLANS``);
            None is the target's own.
        other_precisions: of graphs besides the U-Net, by role, instead of what fits
            (``precision.precision_plan``).
        sizes: fixes the clip size; None leaves it free, or at the facts' default where the target
            must have it fixed.
        tiny_decoder: a small decoder of the same latents, beside the full one.
        upscaler: makes decoded frames ``UPSCALE`` times larger.
        vae_encoder: also export the encoder.
        force_quality: write the bundle even if the U-Net misses its quality gate.
        provenance: JSON object on where the weights come from.
        bundle_id: UUID; None draws one.
        overwrite: replace an existing folder.
        note: told what is being done.

    Returns:
        The folder.

    Raises:
        InputError: ``export.mismatch``, ``export.licence``, ``tokenizer.invalid``,
            ``checkpoint.half_range``.
        ExecutionError: ``export.trace``, ``export.not_portable``, ``export.signature``,
            ``export.verify``, ``export.calibration``, ``export.quality``.
        UsageError, ResourceError: ``output.*``, ``export.target``, ``export.target_precision``,
            ``export.precision``;
            ``output.not_a_bundle`` when overwriting would delete something else.
    """
    chosen = find_target(target)
    unet_precision = chosen.check_precision(precision or chosen.default_precision)
    plan = precision_plan(unet_precision, other_precisions)
    _check_replaceable(out, overwrite)
    check_facts(facts, unet=unet, vae=vae, text_encoder=text_encoder)
    if tiny_decoder is not None or upscaler is not None:
        check_frame_networks(facts, tiny_decoder=tiny_decoder, upscaler=upscaler)
    _check_tokenizer(tokenizer_folder, text_encoder)
    if not licence.name.strip() or not licence.text.strip():
        raise InputError(
            "export.licence",
            "licence of the weights: got an empty name or text, expected both",
            hint="name the terms under which the weights may be used",
        )
    size = latent_size(facts)
    is_fixed = chosen.static_sizes or sizes is not None
    fixed = (sizes or FixedSizes.default(facts)).letters(facts) if is_fixed else {}
    fewest = chosen.form_for(unet.config, size).fewest_frames
    facts = narrow(facts, fixed, fewest_frames=fewest)
    identity = bundle_id or str(uuid.uuid4())
    networks: dict[str, Network] = {"text_encoder": text_encoder, "unet": unet, "vae_decoder": vae}
    if tiny_decoder is not None:
        networks["vae_decoder_tiny"] = tiny_decoder
    if vae_encoder:
        networks["vae_encoder"] = vae
    if upscaler is not None:
        networks["upscaler"] = upscaler
    with atomic_folder(out, overwrite=overwrite) as folder:
        with Simplifier() as simplifier:
            job = Job(
                bundle=folder,
                target=chosen,
                simplifier=simplifier,
                identity=identity,
                size=size,
                fixed=fixed,
                least={"F": fewest},
                note=note,
            )
            subject = Subject(
                facts=facts,
                scheduler=scheduler,
                tokenizer=Tokenizer.from_files(tokenizer_folder),
                text_encoder=text_encoder,
                force=force_quality,
            )
            compiled = compile_networks(job, networks, plan, subject)
        for role, network in networks.items():
            _write_json(folder / role / "config.json", _config(network))
        (folder / "tokenizer").mkdir()
        for file in TOKENIZER_FILES:
            shutil.copyfile(tokenizer_folder / file, folder / "tokenizer" / file)
        (folder / "scheduler").mkdir()
        _write_json(folder / "scheduler" / "scheduler_config.json", scheduler.to_json())
        _write_json(folder / "model_index.json", _model_index(networks))
        note("measuring")
        _write_json(folder / "measurements.json", measure_graphs(compiled, facts))
        _write_text(folder / LICENCE_FILE, licence.text)
        draft: dict[str, Any] = {
            "bundle_id": identity,
            "name": name,
            "graphs": {role: c.graph for role, (c, _) in compiled.items()},
            "model": facts,
            "licence": Licence(licence.name, LICENCE_FILE),
            "target": chosen.name,
            "provenance": {
                **(provenance or {}),
                "tools": tool_versions(),
                "simplification": {r: c.simplification for r, (c, _) in compiled.items()},
                "operators": {r: count_operators(c.model) for r, (c, _) in compiled.items()},
            },
        }
        _write_text(folder / "README.md", model_card(**draft, scheduler=scheduler))
        note("sealing and reading back")
        seal(folder, Manifest(**draft, files=file_entries(folder)))
        Bundle.open(folder)
    return out


def tool_versions() -> dict[str, str]:
    """Versions of everything that shaped the graphs."""
    found = {"hummingbird-edge": __version__, "python": platform.python_version()}
    for package in ("torch", "onnx", "onnx-ir", "onnxscript", "onnxsim", "onnxruntime"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # onnxruntime has several distributions of one module
            found[package] = "unknown"
    return found


def _check_replaceable(out: Path, overwrite: bool) -> None:
    """Replacing deletes the old folder: only ever a bundle."""
    occupied = out.exists() and not (out.is_dir() and not any(out.iterdir()))
    if overwrite and occupied and not (out / MANIFEST).is_file():
        raise UsageError(
            "output.not_a_bundle",
            f"output {out}: got something without {MANIFEST}, expected a bundle to replace",
            hint="name a new folder",
        )


def _check_tokenizer(folder: Path, text_encoder: TextEncoder) -> None:
    tokenizer = Tokenizer.from_files(folder)
    config = text_encoder.config
    highest = max(read_vocabulary((folder / "vocab.json").read_bytes()).values())
    length = tokenizer.config.model_max_length
    if length != config.max_length or highest >= config.vocab_size:
        raise InputError(
            "export.mismatch",
            f"tokenizer {folder}: got length {length} and ids up to {highest}, expected length "
            f"{config.max_length} and ids below {config.vocab_size} of the text encoder",
            hint="give the tokenizer that the text encoder was trained with",
        )


def _config(network: Network) -> dict[str, Any]:
    return {"_class_name": type(network).__name__, **network.config.to_json()}


def _model_index(roles: Iterable[str]) -> dict[str, Any]:
    graph = ["onnxruntime", "InferenceSession"]
    return {
        "_class_name": "TextToVideoPipeline",
        "_library": "hummingbird_runtime",
        "_hummingbird_version": __version__,
        "scheduler": ["hummingbird_runtime.schedule", "SchedulerConfig"],
        "tokenizer": ["hummingbird_runtime.tokenizer", "Tokenizer"],
        **dict.fromkeys(roles, graph),
    }


def _write_json(path: Path, value: object) -> None:
    _write_text(path, json.dumps(value, indent=2, sort_keys=True, allow_nan=False))


def _write_text(path: Path, text: str) -> None:
    path.write_bytes(text.rstrip("\n").encode("utf-8") + b"\n")
