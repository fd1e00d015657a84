"""Files on disk to the arguments of ``export_bundle``: a recipe, flags that override it, or both.

A recipe is a TOML file; paths in it are relative to it::

    name = "shapes-v1"
    precision = "fp16-storage"
    unet = "unet.safetensors"
    vae = "vae.safetensors"
    text = "text.safetensors"
    tokenizer = "tokenizer"
    licence = {name = "Apache-2.0", file = "LICENSE"}
    [precisions]   # of other graphs by role, as in vae_decoder = "int8-storage"; may be left out
    [scheduler]    # scheduler_config.json's fields
    [facts]        # the manifest's model facts; what the networks know may be left out
    [provenance]   # free
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar, get_args

from hummingbird_export.facts import FixedSizes, complete_facts
from hummingbird_export.package import WeightsLicence, export_bundle
from hummingbird_runtime.errors import InputError, UsageError
from hummingbird_runtime.manifest import Precision
from hummingbird_runtime.schedule import SchedulerConfig
from hummingbird_train.models.autoencoder import AutoencoderKL
from hummingbird_train.models.text_encoder import TextEncoder
from hummingbird_train.models.tiny_decoder import TinyDecoder
from hummingbird_train.models.unet import VideoUNet
from hummingbird_train.models.upscaler import Upscaler
from hummingbird_train.models.weights import load_model

MAX_TEXT = 1 << 20

PATHS = ("unet", "vae", "text", "tokenizer", "tiny_decoder", "upscaler")
"""Entries of a recipe that are relative to it."""

N = TypeVar("N")


@dataclass(frozen=True)
class BuildPlan:
    """Everything a build needs; a field is None until a recipe or a flag gives it."""

    unet: Path | None = None
    """Safetensors file of the U-Net."""
    vae: Path | None = None
    """Safetensors file of the autoencoder."""
    text: Path | None = None
    """Safetensors file of the text tower."""
    tokenizer: Path | None = None
    """Folder with vocab.json, merges.txt and tokenizer_config.json."""
    scheduler: Mapping[str, Any] | None = None
    """Fields of scheduler_config.json."""
    facts: Mapping[str, Any] | None = None
    """Table for ``complete_facts``."""
    licence_name: str | None = None
    licence_file: Path | None = None
    name: str | None = None
    precision: str | None = None
    """Of the U-Net; None is the target's own."""
    precisions: Mapping[str, Any] = field(default_factory=dict)
    """Of other graphs, by role; what is left out follows from the U-Net's."""
    target: str = "portable"
    tiny_decoder: Path | None = None
    """Safetensors file of a small decoder, exported beside the full one."""
    upscaler: Path | None = None
    """Safetensors file of an upscaler of frames."""
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def override(self, **changes: Any) -> BuildPlan:
        """A copy with every change that is not None."""
        return replace(self, **{k: v for k, v in changes.items() if v is not None})


def read_recipe(path: Path) -> BuildPlan:
    """Read a TOML recipe.

    Raises:
        InputError: ``recipe.unreadable`` or ``recipe.keys``.
    """
    table = read_table(path)
    licence = table.pop("licence", {})
    known = {*PATHS, "name", "precision", "target"}
    tables = {"scheduler", "facts", "provenance", "precisions"}
    wrong = sorted(
        key
        for key, value in table.items()
        if not (key in known and isinstance(value, str))
        and not (key in tables and isinstance(value, Mapping))
    )
    if wrong or not isinstance(licence, Mapping) or not set(licence) <= {"name", "file"}:
        raise InputError(
            "recipe.keys",
            f"recipe {path}: got {', '.join(wrong) or 'licence'} unknown or of the wrong type, "
            f"expected texts {sorted(known)}, tables {sorted(tables)} and licence = {{name, file}}",
            hint="see `hummingbird export build --help`",
        )
    paths = {key: path.parent / table.pop(key) for key in PATHS if key in table}
    file = licence.get("file")
    return BuildPlan(
        **paths,
        **table,
        licence_name=licence.get("name"),
        licence_file=None if file is None else path.parent / file,
    )


def read_table(path: Path) -> dict[str, Any]:
    """A TOML or JSON file whose top level is a table; the suffix decides.

    Raises:
        InputError: ``recipe.unreadable``.
    """
    text = _read_text(path)
    try:
        table = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # TOMLDecodeError is a ValueError
        raise _unreadable(path, str(error).splitlines()[0]) from error
    if not isinstance(table, dict):
        raise _unreadable(path, "got no table at the top")
    return table


def build(
    out: Path,
    plan: BuildPlan,
    *,
    overwrite: bool = False,
    sizes: FixedSizes | None = None,
    vae_encoder: bool = False,
    force_quality: bool = False,
    note: Callable[[str], None] = lambda text: None,
) -> Path:
    """Load what a plan names and export it.

    Args:
        out: bundle folder to make.
        plan: complete plan.
        overwrite: replace an existing folder.
        sizes: fixes the clip size.
        vae_encoder: also export the encoder.
        force_quality: write the bundle even if the U-Net misses its quality gate.
        note: told what is being done.

    Raises:
        UsageError: ``usage.arguments`` when the plan lacks something.
        InputError, ExecutionError, ResourceError: of loading and of ``export_bundle``.
    """
    unet_path = _need(plan.unet, "--unet")
    vae_path = _need(plan.vae, "--vae")
    text_path = _need(plan.text, "--text")
    tokenizer = _need(plan.tokenizer, "--tokenizer")
    scheduler = SchedulerConfig.from_json(_need(plan.scheduler, "--scheduler"))
    table = _need(plan.facts, "--facts")
    licence = WeightsLicence(
        _need(plan.licence_name, "--licence"),
        _read_text(_need(plan.licence_file, "--licence-file")),
    )
    unet = _load(unet_path, VideoUNet)
    vae = _load(vae_path, AutoencoderKL)
    text_encoder = _load(text_path, TextEncoder)
    weights = {"unet": unet_path, "vae": vae_path, "text_encoder": text_path}
    tiny = None
    if plan.tiny_decoder is not None:
        tiny = _load(plan.tiny_decoder, TinyDecoder)
        weights["vae_decoder_tiny"] = plan.tiny_decoder
    upscaler = None
    if plan.upscaler is not None:
        upscaler = _load(plan.upscaler, Upscaler)
        weights["upscaler"] = plan.upscaler
    return export_bundle(
        out,
        unet=unet,
        vae=vae,
        text_encoder=text_encoder,
        tokenizer_folder=tokenizer,
        scheduler=scheduler,
        facts=complete_facts(table, unet=unet, vae=vae),
        target=plan.target,
        precision=None if plan.precision is None else check_precision(plan.precision),
        other_precisions={r: check_precision(name) for r, name in plan.precisions.items()},
        sizes=sizes,
        tiny_decoder=tiny,
        upscaler=upscaler,
        vae_encoder=vae_encoder,
        force_quality=force_quality,
        note=note,
        name=plan.name or out.name,
        licence=licence,
        provenance={
            **plan.provenance,
            "weights_sha256": {role: _sha256(path) for role, path in weights.items()},
        },
        overwrite=overwrite,
    )


def check_precision(name: Any) -> Precision:
    """The name as a ``Precision``.

    Raises:
        UsageError: ``export.precision``.
    """
    for known in get_args(Precision):
        if name == known:
            precision: Precision = known
            return precision
    raise UsageError(
        "export.precision",
        f"precision, got {name!r}, expected one of {', '.join(get_args(Precision))}",
        hint="see `hummingbird export build --help`",
    )


def _need(value: N | None, flag: str) -> N:
    if value is None:
        raise UsageError(
            "usage.arguments",
            f"export build: got no {flag.removeprefix('--')}, expected one",
            hint=f"give {flag} or name it in the recipe",
        )
    return value


def _load(path: Path, kind: type[N]) -> N:
    model = load_model(path)
    if not isinstance(model, kind):
        raise InputError(
            "checkpoint.kind",
            f"weights {path}, got a {type(model).__name__}, expected a {kind.__name__}",
            hint="check the order of --unet, --vae and --text",
        )
    return model


def _read_text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_TEXT + 1)
        if len(data) > MAX_TEXT:
            raise _unreadable(path, f"got more than {MAX_TEXT} bytes")
        return data.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(path, str(error)) from error


def _unreadable(path: Path, problem: str) -> InputError:
    return InputError(
        "recipe.unreadable",
        f"file {path}: {problem}, expected a readable text file",
        hint="check the path and the file's contents",
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
