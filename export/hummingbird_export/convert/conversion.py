"""A diagnosed checkpoint to a folder that ``hummingbird export build`` takes, whole or not at all.

Per network one safetensors file, streamed tensor by tensor, then tokenizer, licence, provenance and
the recipe ``build.json``. The same input gives the same bytes.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor

from hummingbird_export.convert.container import Checkpoint
from hummingbird_export.convert.doctor import KIND, Diagnosis, Part
from hummingbird_export.convert.keys import PARTS
from hummingbird_export.convert.lora import Lora, Pair
from hummingbird_export.convert.provenance import NOTICE, Terms, origin_of, sha256_of
from hummingbird_export.convert.stream import DTYPES, write_stream
from hummingbird_export.convert.table import title
from hummingbird_export.random_models import write_clip_tokenizer
from hummingbird_runtime import __version__
from hummingbird_runtime.atomic import atomic_folder
from hummingbird_runtime.errors import InputError, ResourceError, UsageError

RECIPE = "build.json"
PROVENANCE = "provenance.json"
LICENCE = "LICENSE"

_FLOATS = ("float16", "bfloat16", "float32", "float64")
_TOKENIZER = "tokenizer"
_SPARE = 16 << 20
"""Bytes for everything beside the weights."""


@dataclass(frozen=True)
class Options:
    """How to convert."""

    terms: Terms
    name: str
    """Of the model, for the recipe."""
    dtype: str = "fp32"
    """Storage format, a key of ``stream.DTYPES``."""
    lora: Lora | None = None
    """Merged into the U-Net."""
    strength: float = 1.0
    """Factor on the LoRA's update."""
    variant: str | None = None
    """Variant that the caller expects."""
    partial: bool = False
    """Whether a model without some of its parts is written."""
    watch: Callable[[], None] = field(default=lambda: None)
    """Called between tensors; may raise to cancel."""
    say: Callable[[str], None] = field(default=lambda _: None)
    """Called with a line at the start of each step."""


def convert(out: Path, diagnosis: Diagnosis, options: Options, *, overwrite: bool = False) -> Path:
    """Write the folder.

    Args:
        out: the folder to make; its parent exists.
        diagnosis: of the source files.
        options: see there.
        overwrite: replace an older folder of this kind.

    Returns:
        The folder.

    Raises:
        InputError: what ``check`` raises; ``lora.*``; ``checkpoint.not_finite``,
            ``checkpoint.half_range``; ``checkpoint.corrupt`` for a file that changed meanwhile.
        IntegrityError: ``checkpoint.changed``.
        UsageError: ``output.exists``, ``output.not_a_checkpoint``.
        ResourceError: ``output.*``.
    """
    check(diagnosis, options)
    pairs = _lora_pairs(diagnosis, options)
    _check_replaceable(out, overwrite)
    _check_space(out, diagnosis, options)
    options.say("hashing the source")
    sources = [_source(source, options.watch) for source in diagnosis.sources]
    with atomic_folder(out, overwrite=overwrite) as folder:
        parts = {
            name: _write_part(folder / f"{name}.safetensors", part, options, pairs)
            for name, part in diagnosis.parts.items()
        }
        write_clip_tokenizer(folder / _TOKENIZER)
        _write(folder / LICENCE, options.terms.text)
        _write_json(folder / "config.json", _configs(diagnosis))
        record = _provenance(diagnosis, options, sources, parts)
        _write_json(folder / PROVENANCE, record)
        _write_json(folder / RECIPE, _recipe(diagnosis, options, record))
        options.watch()
    return out


def check(diagnosis: Diagnosis, options: Options) -> None:
    """Refuse what would make no usable model.

    Raises:
        InputError: ``checkpoint.kind`` for a LoRA alone, ``checkpoint.variant``,
            ``checkpoint.keys``, ``checkpoint.shapes``, ``checkpoint.dtype``, ``checkpoint.parts``.
    """
    files = ", ".join(str(source.path) for source in diagnosis.sources)
    if diagnosis.lora is not None:
        raise InputError(
            "checkpoint.kind",
            f"checkpoint {files}: got a {title(diagnosis)}, expected a model",
            hint="give the model as SRC and this file with --lora",
        )
    got = diagnosis.variant.name if diagnosis.variant else "none"
    if options.variant is not None and got != options.variant:
        raise InputError(
            "checkpoint.variant",
            f"checkpoint {files}: got {title(diagnosis)} ({got}), expected {options.variant}",
            hint="check the file, or leave --variant out",
        )
    check_tensors(diagnosis)
    absent = [name for name in PARTS if name not in diagnosis.parts]
    if absent and not options.partial:
        raise InputError(
            "checkpoint.parts",
            f"checkpoint {files}: got {' and '.join(diagnosis.parts)}, expected also "
            f"{' and '.join(absent)}",
            hint="give the other files after this one, or --partial to write what is here",
        )


def check_tensors(diagnosis: Diagnosis) -> None:
    """Refuse a model whose tensors are not those of its configuration.

    Raises:
        InputError: ``checkpoint.keys``, ``checkpoint.shapes``, ``checkpoint.dtype``.
    """
    files = ", ".join(str(source.path) for source in diagnosis.sources)
    parts = list(diagnosis.parts.values())
    missing = [f"{p.name}: {n}" for p in parts for n in p.missing]
    strange = [f"{p.name}: {n}" for p in parts for n in p.unexpected] + list(diagnosis.unknown)
    wrong = [(p, n) for p in parts for n in p.misshapen]
    if missing or strange:
        examples = [f"missing {name}" for name in missing[:1]]
        examples += [f"unexpected {name}" for name in strange[:1]]
        raise InputError(
            "checkpoint.keys",
            f"checkpoint {files}: got {len(missing)} tensors missing and {len(strange)} unexpected "
            f"({'; '.join(examples)}), expected those of {title(diagnosis)}",
            hint="--inspect shows them by block; --drop PREFIX leaves out what you do not need",
        )
    if wrong:
        part, name = wrong[0]
        raise InputError(
            "checkpoint.shapes",
            f"checkpoint {files}: got {len(wrong)} tensors of other shapes, the first {part.name}: "
            f"{name} {list(part.tensors[name].shape)}, expected {list(part.expected[name])}",
            hint="--inspect shows them by block",
        )
    odd = [(n, i.dtype) for p in parts for n, i in p.tensors.items() if i.dtype not in _FLOATS]
    if odd:
        raise InputError(
            "checkpoint.dtype",
            f"checkpoint {files}: got {odd[0][1]} in {odd[0][0]} and {len(odd) - 1} more, expected "
            f"one of {', '.join(_FLOATS)}",
            hint="quantized checkpoints cannot be converted; get the original",
        )


def _lora_pairs(diagnosis: Diagnosis, options: Options) -> dict[str, Pair]:
    if options.lora is None:
        return {}
    if "unet" not in diagnosis.parts:
        raise InputError(
            "lora.base",
            f"LoRA {options.lora.checkpoint.path}: got no U-Net beside it, expected one to change",
            hint="give the model that the LoRA was trained on as SRC",
        )
    return options.lora.targets(diagnosis.parts["unet"].expected)


def _check_replaceable(out: Path, overwrite: bool) -> None:
    if overwrite and out.is_dir() and any(out.iterdir()) and not (out / PROVENANCE).is_file():
        raise UsageError(
            "output.not_a_checkpoint",
            f"output {out}: got a folder without {PROVENANCE}, expected a converted checkpoint to "
            "replace",
            hint="choose another folder; --force would delete everything in this one",
        )


def _check_space(out: Path, diagnosis: Diagnosis, options: Options) -> None:
    """Refuse a disk that cannot hold the result, before minutes of work."""
    values = sum(part.parameters for part in diagnosis.parts.values())
    needed = values * DTYPES[options.dtype].itemsize + _SPARE
    try:
        free = shutil.disk_usage(out.resolve().parent).free
    except OSError:
        return  # a missing folder gets its own error from atomic_folder
    if free < needed:
        raise ResourceError(
            "output.disk_full",
            f"output {out}: got {free} bytes free, expected at least {needed}",
            hint="free some space, write elsewhere, or use --dtype fp16",
        )


def _source(source: Checkpoint, watch: Callable[[], None]) -> dict[str, Any]:
    digest = sha256_of(source.path, watch=watch)
    return {
        "file": source.path.name,
        "bytes": source.size,
        "sha256": digest,
        "container": source.container,
        **origin_of(source.path, digest),
    }


def _write_part(
    path: Path, part: Part, options: Options, pairs: Mapping[str, Pair]
) -> dict[str, Any]:
    changed = pairs if part.name == "unet" else {}

    def read(name: str) -> Tensor:
        options.watch()
        source, stored_name = part.origin[name]
        tensor = source.read(stored_name)
        if options.lora is not None and name in changed:
            tensor = options.lora.merge(tensor, changed[name], options.strength)
        return tensor

    metadata = {
        "format": "pt",
        "model": KIND[part.name],
        "config": json.dumps(part.config.to_json()),
    }
    options.say(f"writing {path.name}, {len(part.expected)} tensors as {options.dtype}")
    digest = write_stream(path, part.expected, DTYPES[options.dtype], metadata, read)
    with safe_open(str(path), framework="pt") as file:
        assert set(file.keys()) == set(part.expected), path.name
    return {
        "file": path.name,
        "sha256": digest,
        "tensors": len(part.expected),
        "parameters": sum(math.prod(shape) for shape in part.expected.values()),
        "source_dtypes": sorted(part.dtypes),
        "dtype": options.dtype,
    }


def _configs(diagnosis: Diagnosis) -> dict[str, Any]:
    variant = diagnosis.variant
    return {
        "variant": variant.name if variant else None,
        **{name: part.config.to_json() for name, part in diagnosis.parts.items()},
    }


def _provenance(
    diagnosis: Diagnosis,
    options: Options,
    sources: list[dict[str, Any]],
    parts: dict[str, dict[str, Any]],
) -> dict[str, Any]:
    lora = options.lora
    return {
        "converted_by": f"hummingbird {__version__}",
        "variant": diagnosis.variant.name if diagnosis.variant else None,
        "title": title(diagnosis),
        "sources": sources,
        "lora": None
        if lora is None
        else {**_source(lora.checkpoint, options.watch), "strength": options.strength},
        "parts": parts,
        "not_needed": dict(diagnosis.dropped),
        "licence": options.terms.name,
        "redistribution": NOTICE,
    }


def _recipe(
    diagnosis: Diagnosis, options: Options, provenance: Mapping[str, Any]
) -> dict[str, Any]:
    variant = diagnosis.variant
    tables: dict[str, Any] = {}
    if variant is not None:
        tables = {"scheduler": variant.scheduler.to_json(), "facts": dict(variant.facts)}
    kept = ("variant", "sources", "lora", "redistribution")
    return {
        "name": options.name,
        **{part: f"{part}.safetensors" for part in diagnosis.parts},
        "tokenizer": _TOKENIZER,
        "licence": {"name": options.terms.name, "file": LICENCE},
        **tables,
        "provenance": {key: provenance[key] for key in kept},
    }


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    _write(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def _write(path: Path, text: str) -> None:
    with path.open("wb") as file:
        file.write(text.encode("utf-8"))
