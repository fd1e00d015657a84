"""Three networks, a tokenizer and a schedule to one bundle folder, whole or not at all.

The folder is written under a temporary name, read back through the runtime's own checks, synced and
renamed. What stands in the manifest was measured on the files it lists.
"""

from __future__ import annotations

import json
import platform
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from hummingbird_export.compile import CompiledGraph, compile_graph
from hummingbird_export.facts import check_facts
from hummingbird_export.measure import measure_graphs
from hummingbird_export.model_card import model_card
from hummingbird_export.precision import Precision, round_to_half, rounding_error
from hummingbird_export.simplify import Simplifier
from hummingbird_export.wrappers import Signature, decoder_graph, text_graph, unet_graph
from hummingbird_runtime import __version__
from hummingbird_runtime.atomic import atomic_folder
from hummingbird_runtime.bundle import Bundle
from hummingbird_runtime.errors import InputError, UsageError
from hummingbird_runtime.integrity import file_entries, seal
from hummingbird_runtime.manifest import MANIFEST, Graph, Licence, Manifest, ModelFacts
from hummingbird_runtime.schedule import SchedulerConfig
from hummingbird_runtime.tokenizer import Tokenizer, read_vocabulary
from hummingbird_train.models.autoencoder import AutoencoderKL
from hummingbird_train.models.text_encoder import TextEncoder
from hummingbird_train.models.unet import VideoUNet

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
    precision: Precision = "fp32",
    provenance: Mapping[str, Any] | None = None,
    bundle_id: str | None = None,
    overwrite: bool = False,
) -> Path:
    """Export a model to a bundle folder.

    Args:
        out: the folder to make; its parent exists.
        unet: network in float32; left unchanged, as are the other two.
        vae: autoencoder; only its decoder is exported.
        text_encoder: text tower.
        tokenizer_folder: holds vocab.json, merges.txt and tokenizer_config.json.
        scheduler: sampler and noise schedule.
        facts: what a caller may ask of the model.
        name: short name for people.
        licence: terms of the weights.
        precision: ``fp16-storage`` halves the files; arithmetic is float32 in both.
        provenance: JSON object on where the weights come from.
        bundle_id: UUID; None draws one.
        overwrite: replace an existing folder.

    Returns:
        The folder.

    Raises:
        InputError: ``export.mismatch``, ``export.licence``, ``tokenizer.invalid``,
            ``checkpoint.half_range``.
        ExecutionError: ``export.trace``, ``export.not_portable``, ``export.signature``,
            ``export.verify``.
        UsageError, ResourceError: ``output.*``; ``output.not_a_bundle`` when overwriting would
            delete something else.
    """
    _check_replaceable(out, overwrite)
    check_facts(facts, unet=unet, vae=vae, text_encoder=text_encoder)
    _check_tokenizer(tokenizer_folder, text_encoder)
    if not licence.name.strip() or not licence.text.strip():
        raise InputError(
            "export.licence",
            "licence of the weights: got an empty name or text, expected both",
            hint="name the terms under which the weights may be used",
        )
    identity = bundle_id or str(uuid.uuid4())
    with atomic_folder(out, overwrite=overwrite) as folder:
        with Simplifier() as simplifier:
            compiled, errors = _compile_all(
                folder, unet, vae, text_encoder, precision, identity, simplifier
            )
        graphs = {role: _with_rounding(c.graph, errors[role]) for role, (c, _) in compiled.items()}
        _write_json(folder / "unet" / "config.json", _config(unet))
        _write_json(folder / "vae_decoder" / "config.json", _config(vae))
        _write_json(folder / "text_encoder" / "config.json", _config(text_encoder))
        (folder / "tokenizer").mkdir()
        for file in TOKENIZER_FILES:
            shutil.copyfile(tokenizer_folder / file, folder / "tokenizer" / file)
        (folder / "scheduler").mkdir()
        _write_json(folder / "scheduler" / "scheduler_config.json", scheduler.to_json())
        _write_json(folder / "model_index.json", _model_index())
        _write_json(folder / "measurements.json", measure_graphs(compiled, facts))
        _write_text(folder / LICENCE_FILE, licence.text)
        draft: dict[str, Any] = {
            "bundle_id": identity,
            "name": name,
            "graphs": graphs,
            "model": facts,
            "licence": Licence(licence.name, LICENCE_FILE),
            "provenance": {
                **(provenance or {}),
                "tools": tool_versions(),
                "simplification": {r: c.simplification for r, (c, _) in compiled.items()},
            },
        }
        _write_text(folder / "README.md", model_card(**draft, scheduler=scheduler))
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


def _compile_all(
    folder: Path,
    unet: VideoUNet,
    vae: AutoencoderKL,
    text_encoder: TextEncoder,
    precision: Precision,
    identity: str,
    simplifier: Simplifier,
) -> tuple[dict[str, tuple[CompiledGraph, Signature]], dict[str, float]]:
    """Compile the graphs one after the other, so that one rounded copy is held at a time."""
    compiled: dict[str, tuple[CompiledGraph, Signature]] = {}
    errors: dict[str, float] = {}
    tokens = text_encoder.config.max_length
    for role, network in (("text_encoder", text_encoder), ("vae_decoder", vae), ("unet", unet)):
        exact = round_to_half(network) if precision == "fp16-storage" else network
        errors[role] = rounding_error(network, exact)
        if isinstance(exact, VideoUNet):
            module, signature = unet_graph(exact, tokens=tokens)
        elif isinstance(exact, AutoencoderKL):
            module, signature = decoder_graph(exact)
        else:
            module, signature = text_graph(exact)
        metadata = {"hummingbird.bundle_id": identity, "hummingbird.role": role}
        graph = compile_graph(
            module,
            signature,
            folder,
            simplifier=simplifier,
            precision=precision,
            metadata=metadata,
        )
        compiled[role] = (graph, signature)
    return compiled, errors


def _with_rounding(graph: Graph, error: float) -> Graph:
    if graph.precision == "fp32":
        return graph
    parity = {**graph.parity, "weights_relative_l2": error}
    return Graph(**{**graph.__dict__, "parity": parity})


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


def _config(network: VideoUNet | AutoencoderKL | TextEncoder) -> dict[str, Any]:
    return {"_class_name": type(network).__name__, **network.config.to_json()}


def _model_index() -> dict[str, Any]:
    graph = ["onnxruntime", "InferenceSession"]
    return {
        "_class_name": "TextToVideoPipeline",
        "_library": "hummingbird_runtime",
        "_hummingbird_version": __version__,
        "scheduler": ["hummingbird_runtime.schedule", "SchedulerConfig"],
        "text_encoder": graph,
        "tokenizer": ["hummingbird_runtime.tokenizer", "Tokenizer"],
        "unet": graph,
        "vae_decoder": graph,
    }


def _write_json(path: Path, value: object) -> None:
    _write_text(path, json.dumps(value, indent=2, sort_keys=True, allow_nan=False))


def _write_text(path: Path, text: str) -> None:
    path.write_bytes(text.rstrip("\n").encode("utf-8") + b"\n")
